package audit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// ConsentKind is what consent changes have in common.
type ConsentKind struct {
	Channel   domain.Channel       `json:"channel"`
	Purpose   domain.Purpose       `json:"purpose"`
	Status    domain.ConsentStatus `json:"status"`
	DecidedBy string               `json:"decided_by"`
	Method    string               `json:"method"`
	Source    string               `json:"source" doc:"Of the event, with {id} for each id in it."`
}

// RecordedChange is one answer of one person.
type RecordedChange struct {
	Position  int64     `json:"position"`
	ProfileID uuid.UUID `json:"profile_id"`
	ConsentKind
	DecidedAt  time.Time `json:"decided_at"`
	RecordedAt time.Time `json:"recorded_at"`
	Actor      string    `json:"actor"`
}

// ConsentFilter selects consent changes. An empty field selects all.
type ConsentFilter struct {
	Kind     ConsentKind
	From, To time.Time // of recording
	Before   Place     // the cursor of a list, newest first
	Limit    int
}

// Place is a consent change's place in a list: one event holds several. Without a channel it is before all of the event's.
type Place struct {
	Position int64
	Channel  domain.Channel
	Purpose  domain.Purpose
}

// kindsMost is how many kinds are read off their index one by one; a filter that selects more is not selective.
const kindsMost = 300

// ConsentChanges lists consent changes newest first.
func ConsentChanges(ctx context.Context, q schema.Querier, f ConsentFilter) ([]RecordedChange, error) {
	var kinds, changes []string
	var args []any
	add := func(where *[]string, condition string, v any) {
		args = append(args, v)
		*where = append(*where, fmt.Sprintf(condition, len(args)))
	}
	k := f.Kind
	for _, eq := range []struct{ column, value string }{
		{"channel", string(k.Channel)},
		{"purpose", string(k.Purpose)},
		{"status", string(k.Status)},
		{"decided_by", k.DecidedBy},
		{"method", k.Method},
		{"source", k.Source},
	} {
		if eq.value != "" {
			add(&kinds, "k."+eq.column+" = $%d", eq.value)
		}
	}
	of, kindArgs := "TRUE", len(args)
	if len(kinds) > 0 {
		of = strings.Join(kinds, " AND ")
	}
	if !f.From.IsZero() {
		add(&changes, "c.position > position_before($%d)", f.From)
	}
	if !f.To.IsZero() {
		add(&changes, "c.position <= position_before($%d)", f.To)
	}
	if f.Before.Position > 0 && f.Before.Channel == "" {
		add(&changes, "c.position < $%d", f.Before.Position)
	} else if f.Before.Position > 0 {
		args = append(args, f.Before.Position)
		at := len(args)
		args = append(args, string(f.Before.Channel), string(f.Before.Purpose))
		changes = append(changes, fmt.Sprintf("c.position <= $%d AND (c.position < $%[1]d OR (k.channel, k.purpose) > ($%d, $%d))", at, at+1, at+2))
	}
	selective := len(kinds) > 0
	if selective {
		var n int
		if err := q.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT FROM consent_kinds k WHERE `+of+fmt.Sprintf(` LIMIT %d) n`, kindsMost+1), args[:kindArgs]...).Scan(&n); err != nil {
			return nil, fmt.Errorf("consent changes: %w", err)
		}
		selective = n <= kindsMost
	}
	where := "TRUE"
	if len(changes) > 0 {
		where = strings.Join(changes, " AND ")
	}
	query := `SELECT c.position, c.profile_id, k.channel, k.purpose, k.status, k.decided_by, k.method, k.source, c.decided_at, c.recorded_at, c.actor FROM `
	// Within one event the cursor's order is not the index's, so a page of a kind's index takes in all of its last event.
	if selective {
		query += fmt.Sprintf(`consent_kinds k CROSS JOIN LATERAL (SELECT c.* FROM consent_changes c WHERE c.kind = k.kind AND %s ORDER BY c.position DESC LIMIT %d) c WHERE %s`, where, f.Limit, of)
	} else {
		query += `consent_changes c JOIN consent_kinds k ON k.kind = c.kind WHERE ` + where + ` AND ` + of
	}
	rows, err := q.QueryContext(ctx, query+fmt.Sprintf(` ORDER BY c.position DESC, k.channel, k.purpose LIMIT %d`, f.Limit), args...)
	if err != nil {
		return nil, fmt.Errorf("consent changes: %w", err)
	}
	defer rows.Close()
	out := []RecordedChange{}
	for rows.Next() {
		var c RecordedChange
		if err := rows.Scan(&c.Position, &c.ProfileID, &c.Channel, &c.Purpose, &c.Status, &c.DecidedBy, &c.Method, &c.Source, &c.DecidedAt, &c.RecordedAt, &c.Actor); err != nil {
			return nil, fmt.Errorf("consent changes: %w", err)
		}
		c.DecidedAt, c.RecordedAt = c.DecidedAt.UTC(), c.RecordedAt.UTC()
		out = append(out, c)
	}
	return out, rows.Err()
}

// ConsentKinds lists the values that filters may take: every kind that there is, at most a thousand.
func ConsentKinds(ctx context.Context, q schema.Querier) ([]ConsentKind, error) {
	rows, err := q.QueryContext(ctx, `SELECT channel, purpose, status, decided_by, method, source FROM consent_kinds ORDER BY 1, 2, 3, 4, 5, 6 LIMIT 1000`)
	if err != nil {
		return nil, fmt.Errorf("consent kinds: %w", err)
	}
	defer rows.Close()
	out := []ConsentKind{}
	for rows.Next() {
		var k ConsentKind
		if err := rows.Scan(&k.Channel, &k.Purpose, &k.Status, &k.DecidedBy, &k.Method, &k.Source); err != nil {
			return nil, fmt.Errorf("consent kinds: %w", err)
		}
		out = append(out, k)
	}
	return out, rows.Err()
}

// Names lists the types, targets or actors that occur in the ledger, with how many events each has, the most frequent first.
func Names(ctx context.Context, q schema.Querier, dimension string) ([]Name, error) {
	rows, err := q.QueryContext(ctx, `SELECT name, sum(n) FROM blocks WHERE dimension = $1 GROUP BY name ORDER BY 2 DESC, 1 LIMIT 500`, dimension)
	if err != nil {
		return nil, fmt.Errorf("names: %w", err)
	}
	defer rows.Close()
	out := []Name{}
	for rows.Next() {
		var n Name
		if err := rows.Scan(&n.Name, &n.N); err != nil {
			return nil, fmt.Errorf("names: %w", err)
		}
		out = append(out, n)
	}
	return out, rows.Err()
}

// Name is a type, target or actor, and how many events have it.
type Name struct {
	Name string `json:"name"`
	N    int64  `json:"n"`
}
