package targets

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Target is a target as it is now.
type Target struct {
	domain.Target
	Version   int64     // of its configuration, in the target's stream
	Revision  int64     // of the last event about it: what a change must state that it decided on
	State     string    // enabled, disabled or deleted
	Reason    string    // why it is disabled or deleted
	ChangedAt time.Time // of the last event about it
	ChangedBy string
	Position  int64
	Restores  int64            // the earlier version that this one repeats; 0 when it is none
	Approved  *domain.Approval // the proposal that it followed from; nil when it took one person
}

// Enabled reports whether firings go out through it.
func (t Target) Enabled() bool { return t.State == "enabled" }

const columns = `handle, version, revision, state, coalesce(reason, ''), config, changed_at, changed_by, position`

func scan(row interface{ Scan(...any) error }) (t Target, err error) {
	var config []byte
	var handle string
	if err := row.Scan(&handle, &t.Version, &t.Revision, &t.State, &t.Reason, &config, &t.ChangedAt, &t.ChangedBy, &t.Position); err != nil {
		return t, err
	}
	var changed domain.TargetChanged
	if err := json.Unmarshal(config, &changed); err != nil {
		return t, fmt.Errorf("target %s: %w", handle, err)
	}
	t.Target, t.Restores, t.Approved = changed.Target, changed.Restores, changed.Approved
	return t, nil
}

// Get gives a target by handle, deleted ones included, or schema.ErrNotFound.
func Get(ctx context.Context, q schema.Querier, handle string) (Target, error) {
	t, err := scan(q.QueryRowContext(ctx, `SELECT `+columns+` FROM targets WHERE handle = $1`, handle))
	if errors.Is(err, sql.ErrNoRows) {
		return t, fmt.Errorf("target %q: %w", handle, schema.ErrNotFound)
	}
	return t, err
}

// Named gives the targets of these handles that exist, by handle.
func Named(ctx context.Context, q schema.Querier, handles []string) (map[string]Target, error) {
	out := make(map[string]Target, len(handles))
	return out, each(ctx, q, func(t Target) { out[t.Handle] = t }, `SELECT `+columns+` FROM targets WHERE handle = ANY($1)`, pq.Array(handles))
}

// List gives the targets that are not deleted, by handle, after one and at most so many.
func List(ctx context.Context, q schema.Querier, after string, limit int) ([]Target, error) {
	var out []Target
	err := each(ctx, q, func(t Target) { out = append(out, t) },
		`SELECT `+columns+` FROM targets WHERE handle > $1 AND state <> 'deleted' ORDER BY handle LIMIT $2`, after, limit)
	return out, err
}

// Versions gives every version that a target ever had, the newest first.
func Versions(ctx context.Context, q schema.Querier, handle string) ([]Target, error) {
	var out []Target
	err := each(ctx, q, func(t Target) { out = append(out, t) },
		`SELECT handle, version, version, 'enabled', coalesce(reason, ''), config, changed_at, changed_by, position
		 FROM target_versions WHERE handle = $1 ORDER BY version DESC`, handle)
	return out, err
}

// Version gives one version of a target, or schema.ErrNotFound.
func Version(ctx context.Context, q schema.Querier, handle string, version int64) (Target, error) {
	t, err := scan(q.QueryRowContext(ctx, `SELECT handle, version, version, 'enabled', coalesce(reason, ''), config, changed_at, changed_by, position
		FROM target_versions WHERE handle = $1 AND version = $2`, handle, version))
	if errors.Is(err, sql.ErrNoRows) {
		return t, fmt.Errorf("target %q version %d: %w", handle, version, schema.ErrNotFound)
	}
	return t, err
}

func each(ctx context.Context, q schema.Querier, add func(Target), query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("targets: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		t, err := scan(rows)
		if err != nil {
			return fmt.Errorf("targets: %w", err)
		}
		add(t)
	}
	return rows.Err()
}

// Configs gives what every target that is not withdrawn says, by handle, to see what a change of a partial would do to them.
func Configs(ctx context.Context, q schema.Querier) ([]domain.Target, error) {
	list, err := List(ctx, q, "", math.MaxInt32)
	if err != nil {
		return nil, err
	}
	configs := make([]domain.Target, len(list))
	for i, t := range list {
		configs[i] = t.Target
	}
	return configs, nil
}

// Partial is a partial as it is now.
type Partial struct {
	Name      string    `json:"name"`
	Version   int64     `json:"version"` // in its stream, which is also what a change must state that it decided on
	State     string    `json:"state"`   // present or deleted
	Source    string    `json:"source"`
	ChangedAt time.Time `json:"changed_at"`
	ChangedBy string    `json:"changed_by"`
	Position  int64     `json:"position"`
}

// ListPartials gives every partial that there is or was, by name.
func ListPartials(ctx context.Context, q schema.Querier) ([]Partial, error) {
	rows, err := q.QueryContext(ctx, `SELECT name, version, state, source, changed_at, changed_by, position FROM partials ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("partials: %w", err)
	}
	defer rows.Close()
	out := []Partial{}
	for rows.Next() {
		var p Partial
		if err := rows.Scan(&p.Name, &p.Version, &p.State, &p.Source, &p.ChangedAt, &p.ChangedBy, &p.Position); err != nil {
			return nil, fmt.Errorf("partials: %w", err)
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// Partials gives the partials that templates may name now.
func Partials(ctx context.Context, q schema.Querier) (domain.Partials, error) {
	list, err := ListPartials(ctx, q)
	p := domain.Partials{Sources: make(map[string]string, len(list))}
	for _, x := range list {
		p.Position = max(p.Position, x.Position)
		if x.State == "present" {
			p.Sources[x.Name] = x.Source
		}
	}
	return p, err
}

// PartialsNow is Partials with what was recorded since: a change that was just answered is in it, which the projection
// would show some milliseconds later.
func PartialsNow(ctx context.Context, db *sql.DB) (domain.Partials, error) {
	var cursor int64
	if err := db.QueryRowContext(ctx, `SELECT position FROM subscriptions WHERE name = $1`, Definition.SubscriptionName()).Scan(&cursor); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return domain.Partials{}, fmt.Errorf("partials: %w", err)
	}
	partials, err := Partials(ctx, db)
	if err != nil {
		return partials, err
	}
	for r, err := range schema.Events(ctx, db, schema.Filter{After: cursor, Types: []string{"partial.changed", "partial.deleted"}}) {
		if err != nil {
			return partials, err
		}
		payload, err := domain.Decode(r.Type, r.Data, nil)
		if err != nil {
			return partials, fmt.Errorf("event %d: %w", r.Position, err)
		}
		switch p := payload.(type) {
		case domain.PartialChanged:
			partials = partials.With(p.Name, p.Source)
		case domain.PartialDeleted:
			partials = partials.Without(p.Name)
		}
		partials.Position = max(partials.Position, r.Position)
	}
	return partials, nil
}

// PartialsPosition is that of the last change of any partial, to tell whether what is known of them still holds.
func PartialsPosition(ctx context.Context, q schema.Querier) (position int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT coalesce(max(position), 0) FROM partials`).Scan(&position)
	return position, err
}
