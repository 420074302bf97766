package suppressions

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Policy is the policy of a platform's connection as it stands.
type Policy struct {
	domain.PlatformPolicy

	Version   int64     `json:"version"`
	ChangedAt time.Time `json:"changed_at"`
	ChangedBy string    `json:"changed_by"`
}

// Policies lists the connections by name.
func Policies(ctx context.Context, q schema.Querier) ([]Policy, error) {
	return policies(ctx, q, `SELECT policy, version, changed_at, actor FROM platform_policies ORDER BY name`)
}

// PolicyOf gives a connection's policy. The error is schema.ErrNotFound.
func PolicyOf(ctx context.Context, q schema.Querier, name string) (Policy, error) {
	found, err := policies(ctx, q, `SELECT policy, version, changed_at, actor FROM platform_policies WHERE name = $1`, name)
	if err != nil {
		return Policy{}, err
	}
	if len(found) == 0 {
		return Policy{}, fmt.Errorf("platform %q: %w", name, schema.ErrNotFound)
	}
	return found[0], nil
}

func policies(ctx context.Context, q schema.Querier, query string, args ...any) ([]Policy, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("platforms: %w", err)
	}
	defer rows.Close()
	out := []Policy{}
	for rows.Next() {
		var p Policy
		var raw []byte
		if err := rows.Scan(&raw, &p.Version, &p.ChangedAt, &p.ChangedBy); err != nil {
			return nil, fmt.Errorf("platforms: %w", err)
		}
		if err := json.Unmarshal(raw, &p.PlatformPolicy); err != nil {
			return nil, fmt.Errorf("platforms: %w", err)
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// Run is one reconciliation.
type Run struct {
	ID         uuid.UUID                    `json:"id"`
	Platform   string                       `json:"platform"`
	Mode       string                       `json:"mode"`
	Check      bool                         `json:"check"`
	Trigger    string                       `json:"trigger"`
	Actor      string                       `json:"actor"`
	State      string                       `json:"state"`
	StartedAt  time.Time                    `json:"started_at"`
	FinishedAt *time.Time                   `json:"finished_at"`
	Error      *string                      `json:"error"`
	Held       *domain.ReconciliationHeld   `json:"held"`
	Counts     *domain.ReconciliationCounts `json:"counts"`
	Position   int64                        `json:"position"`
}

const runColumns = `id, platform, mode, "check", "trigger", actor, state, started_at, finished_at, error, held, counts, position`

// RunFilter selects runs. The zero value selects all.
type RunFilter struct {
	Platform string
	Before   int64 // only runs that started before this position; 0: all
	Limit    int   // 0: 50
}

// Runs lists runs, the newest first.
func Runs(ctx context.Context, q schema.Querier, f RunFilter) ([]Run, error) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	return runs(ctx, q, `SELECT `+runColumns+` FROM reconciliation_runs WHERE ($1 = '' OR platform = $1) AND ($2 = 0 OR position < $2) ORDER BY position DESC LIMIT $3`,
		f.Platform, f.Before, f.Limit)
}

// RunByID gives one run, from the moment that it was recorded: one that the projection has not heard of yet has no position. The
// error is schema.ErrNotFound.
func RunByID(ctx context.Context, q schema.Querier, id uuid.UUID) (Run, error) {
	found, err := runs(ctx, q, `SELECT `+runColumns+` FROM reconciliation_runs WHERE id = $1 UNION ALL
		SELECT id, platform, mode, "check", "trigger", actor, 'running', started_at, NULL, NULL, NULL, NULL, 0 FROM reconciliations WHERE id = $1 AND NOT EXISTS (SELECT FROM reconciliation_runs WHERE id = $1)`, id)
	if err != nil {
		return Run{}, err
	}
	if len(found) == 0 {
		return Run{}, fmt.Errorf("reconciliation %s: %w", id, schema.ErrNotFound)
	}
	return found[0], nil
}

func runs(ctx context.Context, q schema.Querier, query string, args ...any) ([]Run, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("reconciliations: %w", err)
	}
	defer rows.Close()
	out := []Run{}
	for rows.Next() {
		var r Run
		var held, counts []byte
		if err := rows.Scan(&r.ID, &r.Platform, &r.Mode, &r.Check, &r.Trigger, &r.Actor, &r.State, &r.StartedAt, &r.FinishedAt, &r.Error, &held, &counts, &r.Position); err != nil {
			return nil, fmt.Errorf("reconciliations: %w", err)
		}
		if held != nil {
			r.Held = &domain.ReconciliationHeld{}
			err = json.Unmarshal(held, r.Held)
		}
		if counts != nil && err == nil {
			r.Counts = &domain.ReconciliationCounts{}
			err = json.Unmarshal(counts, r.Counts)
		}
		if err != nil {
			return nil, fmt.Errorf("reconciliation %s: %w", r.ID, err)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// Last says when a platform was last read: the start of the last run that read everything, and of the last that read at
// all. Both are zero when it never was. Checks and imports do not count.
func Last(ctx context.Context, q schema.Querier, platform string) (full, any time.Time, err error) {
	var f, a sql.NullTime
	err = q.QueryRowContext(ctx, `SELECT max(started_at) FILTER (WHERE mode = 'full'), max(started_at) FROM reconciliation_runs
		WHERE platform = $1 AND mode <> 'import' AND NOT "check" AND state IN ('done', 'partial')`, platform).Scan(&f, &a)
	if err != nil {
		return full, any, fmt.Errorf("reconciliations: %w", err)
	}
	return f.Time, a.Time, nil
}

// Finding is a difference that a person decides on.
type Finding struct {
	ID         uuid.UUID      `json:"id"`
	Platform   string         `json:"platform"`
	Run        uuid.UUID      `json:"run"`
	Channel    domain.Channel `json:"channel"`
	Class      string         `json:"class"`
	Hash       string         `json:"hash,omitempty"`
	ProfileID  *uuid.UUID     `json:"profile_id"`
	Scope      string         `json:"scope,omitempty"`
	Count      int64          `json:"count"`
	Theirs     *string        `json:"theirs"`
	Ours       *string        `json:"ours"`
	Explain    string         `json:"explain"`
	Action     string         `json:"action"`
	Actions    []string       `json:"actions"`
	Decision   *int64         `json:"decision"`
	State      string         `json:"state"`
	RaisedAt   time.Time      `json:"raised_at"`
	ResolvedAt *time.Time     `json:"resolved_at"`
	ResolvedBy *string        `json:"resolved_by"`
	Resolution *string        `json:"resolution"`
	Reason     *string        `json:"reason"`
	Position   int64          `json:"position"`
}

const findingColumns = `id, platform, coalesce(run, '00000000-0000-0000-0000-000000000000'), channel, class, coalesce(encode(hash, 'hex'), ''), profile_id, scope, amount, theirs, ours,
	explain, action, actions, decision, state, raised_at, resolved_at, resolved_by, resolution, reason, position`

// FindingFilter selects findings. The zero value selects all.
type FindingFilter struct {
	Platform string
	Class    string
	State    string // open or resolved
	Run      uuid.UUID
	Profile  uuid.UUID
	After    int64 // only findings raised after this position
	Limit    int   // 0: 50
}

// Findings lists findings in the order in which they were raised.
func Findings(ctx context.Context, q schema.Querier, f FindingFilter) ([]Finding, error) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	return findings(ctx, q, `SELECT `+findingColumns+` FROM findings WHERE ($1 = '' OR platform = $1) AND ($2 = '' OR state = $2)
		AND ($3 = '00000000-0000-0000-0000-000000000000'::uuid OR run = $3) AND ($4 = '00000000-0000-0000-0000-000000000000'::uuid OR profile_id = $4) AND position > $5 AND ($7 = '' OR class = $7)
		ORDER BY position, id LIMIT $6`, f.Platform, f.State, f.Run, f.Profile, f.After, f.Limit, f.Class)
}

// Kind is how many findings of one class wait for a person on one platform.
type Kind struct {
	Platform, Class string
	Open            int64
}

// Kinds counts what waits for a person, the most first.
func Kinds(ctx context.Context, q schema.Querier) ([]Kind, error) {
	rows, err := q.QueryContext(ctx, `SELECT platform, class, count(*) FROM findings WHERE state = 'open' GROUP BY platform, class ORDER BY count(*) DESC, platform, class`)
	if err != nil {
		return nil, fmt.Errorf("findings: %w", err)
	}
	defer rows.Close()
	var out []Kind
	for rows.Next() {
		var k Kind
		if err := rows.Scan(&k.Platform, &k.Class, &k.Open); err != nil {
			return nil, fmt.Errorf("findings: %w", err)
		}
		out = append(out, k)
	}
	return out, rows.Err()
}

// FindingByID gives one finding. The error is schema.ErrNotFound.
func FindingByID(ctx context.Context, q schema.Querier, id uuid.UUID) (Finding, error) {
	found, err := findings(ctx, q, `SELECT `+findingColumns+` FROM findings WHERE id = $1`, id)
	if err != nil {
		return Finding{}, err
	}
	if len(found) == 0 {
		return Finding{}, fmt.Errorf("finding %s: %w", id, schema.ErrNotFound)
	}
	return found[0], nil
}

func findings(ctx context.Context, q schema.Querier, query string, args ...any) ([]Finding, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("findings: %w", err)
	}
	defer rows.Close()
	out := []Finding{}
	for rows.Next() {
		var f Finding
		var actions []byte
		err := rows.Scan(&f.ID, &f.Platform, &f.Run, &f.Channel, &f.Class, &f.Hash, &f.ProfileID, &f.Scope, &f.Count, &f.Theirs, &f.Ours, &f.Explain, &f.Action, &actions, &f.Decision,
			&f.State, &f.RaisedAt, &f.ResolvedAt, &f.ResolvedBy, &f.Resolution, &f.Reason, &f.Position)
		if err == nil {
			err = json.Unmarshal(actions, &f.Actions)
		}
		if err != nil {
			return nil, fmt.Errorf("findings: %w", err)
		}
		out = append(out, f)
	}
	return out, rows.Err()
}

// Difference is one thing that a run found, and what it did about it.
type Difference struct {
	N        int64          `json:"-"`
	Finding  *uuid.UUID     `json:"id"` // of the finding that asks a person about it
	Platform string         `json:"platform"`
	Channel  domain.Channel `json:"channel"`
	Scope    string         `json:"scope,omitempty"`
	Class    string         `json:"class"`
	Hash     string         `json:"hash,omitempty"`
	Profile  *uuid.UUID     `json:"profile_id"`
	Reason   *string        `json:"reason"`
	TheirsAt *time.Time     `json:"theirs_at"`
	OursAt   *time.Time     `json:"ours_at"`
	Decision *int64         `json:"decision"`
	Purpose  *string        `json:"purpose"`
	Action   string         `json:"action"`
	Count    int64          `json:"count"`
}

// Differences lists what a run found, in order, after the n-th.
func Differences(ctx context.Context, q schema.Querier, run uuid.UUID, action string, after int64, limit int) ([]Difference, error) {
	rows, err := q.QueryContext(ctx, `SELECT `+differenceColumns+` FROM reconciled_differences d WHERE run = $1 AND ($2 = '' OR action = $2) AND n > $3 ORDER BY n LIMIT $4`, run, action, after, limit)
	if err != nil {
		return nil, fmt.Errorf("differences: %w", err)
	}
	return scanDifferences(rows)
}

const differenceColumns = `n, (SELECT f.id FROM findings f WHERE f.platform = d.platform AND f.channel = d.channel AND f.class = d.class AND f.scope = d.scope AND f.hash IS NOT DISTINCT FROM d.hash
	ORDER BY f.state, f.position DESC LIMIT 1), platform, channel, scope, class, coalesce(encode(hash, 'hex'), ''), profile_id, reason, theirs_at, ours_at, decision, purpose, action, amount`

func scanDifferences(rows *sql.Rows) ([]Difference, error) {
	defer rows.Close()
	out := []Difference{}
	for rows.Next() {
		var d Difference
		if err := rows.Scan(&d.N, &d.Finding, &d.Platform, &d.Channel, &d.Scope, &d.Class, &d.Hash, &d.Profile, &d.Reason, &d.TheirsAt, &d.OursAt, &d.Decision, &d.Purpose, &d.Action, &d.Count); err != nil {
			return nil, fmt.Errorf("differences: %w", err)
		}
		out = append(out, d)
	}
	return out, rows.Err()
}

// Standing is where a platform stands beside us.
type Standing struct {
	Unconfirmed int64      `json:"unconfirmed"`        // opt-outs written there and not read back
	Oldest      *time.Time `json:"oldest_unconfirmed"` // when the oldest of them was decided
	Waiting     int64      `json:"waiting"`            // changes that wait to be written
	Open        int64      `json:"open"`               // findings that wait for a person
}

// StandingOf gives where a platform stands. Only channels whose list can be read are counted as unconfirmed: the others
// never will be.
func StandingOf(ctx context.Context, q schema.Querier, platform string, readable []domain.Channel) (s Standing, err error) {
	err = q.QueryRowContext(ctx, `
		SELECT (SELECT count(*) FROM pushes p WHERE `+unconfirmed+`), (SELECT min(decided_at) FROM pushes p WHERE `+unconfirmed+`),
		       (SELECT count(*) FROM outgoing WHERE platform = $1), (SELECT count(*) FROM findings WHERE platform = $1 AND state = 'open')`,
		platform, pq.Array(readable)).Scan(&s.Unconfirmed, &s.Oldest, &s.Waiting, &s.Open)
	if err != nil {
		return s, fmt.Errorf("platform %s: %w", platform, err)
	}
	return s, nil
}

// Coverage is how many of our addresses a platform knew when its list was last read whole.
type Coverage struct {
	KnownThere int64     `json:"known_there"`
	Contacts   int64     `json:"contacts"` // addresses that we know
	At         time.Time `json:"at"`       // when that run began
}

// Ratio is the share of our addresses that the platform knew.
func (c Coverage) Ratio() float64 { return float64(c.KnownThere) / float64(max(c.Contacts, 1)) }

// CoverageOf gives a platform's coverage, nil when its list was never read whole while we knew anybody.
func CoverageOf(ctx context.Context, q schema.Querier, platform string) (*Coverage, error) {
	var c Coverage
	err := q.QueryRowContext(ctx, `SELECT (counts->>'known_there')::bigint, (counts->>'contacts')::bigint, started_at FROM reconciliation_runs
		WHERE platform = $1 AND mode = 'full' AND state IN ('done', 'partial') AND (counts->>'contacts')::bigint > 0 ORDER BY position DESC LIMIT 1`, platform).Scan(&c.KnownThere, &c.Contacts, &c.At)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("platform %s: %w", platform, err)
	}
	c.At = c.At.UTC()
	return &c, nil
}

const unconfirmed = `p.platform = $1 AND p.channel = ANY($2::text[]) AND p.intent = 'suppress' AND p.confirmed_at IS NULL AND p.status IN ('ordered', 'applied', 'unchanged', 'accepted', 'pending', 'failed')`

// Listed is what a platform's list says about an address.
type Listed struct {
	Platform  string         `json:"platform"`
	Channel   domain.Channel `json:"channel"`
	Scope     string         `json:"scope,omitempty"`
	Hash      []byte         `json:"-"`
	Lifted    bool           `json:"lifted"`
	Reason    string         `json:"reason"`
	Class     string         `json:"class"`
	Native    *string        `json:"native"`
	At        *time.Time     `json:"at"`
	Precision string         `json:"precision"`
	SeenAt    time.Time      `json:"seen_at"`
	Via       string         `json:"via"`
	Position  int64          `json:"position"`
}

// ListedFor gives what every platform's list says about a person's addresses, and what was written there.
func ListedFor(ctx context.Context, q schema.Querier, profile uuid.UUID) ([]Listed, error) {
	return listed(ctx, q, `SELECT l.platform, l.channel, l.scope, l.hash, l.lifted, l.reason, l.class, l.native, l.at, l.precision, l.seen_at, l.via, l.position
		FROM reach r JOIN listed l ON l.channel = r.channel AND l.hash = r.hash WHERE r.profile_id = $1 ORDER BY l.platform, l.channel, l.scope, l.hash`, profile)
}

// ListedOf gives what one platform's list says about addresses.
func ListedOf(ctx context.Context, q schema.Querier, platform string, channel domain.Channel, hashes [][]byte) ([]Listed, error) {
	return listed(ctx, q, `SELECT platform, channel, scope, hash, lifted, reason, class, native, at, precision, seen_at, via, position
		FROM listed WHERE platform = $1 AND channel = $2 AND hash = ANY($3::bytea[])`, platform, channel, pq.ByteaArray(hashes))
}

func listed(ctx context.Context, q schema.Querier, query string, args ...any) ([]Listed, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("lists: %w", err)
	}
	defer rows.Close()
	out := []Listed{}
	for rows.Next() {
		var l Listed
		if err := rows.Scan(&l.Platform, &l.Channel, &l.Scope, &l.Hash, &l.Lifted, &l.Reason, &l.Class, &l.Native, &l.At, &l.Precision, &l.SeenAt, &l.Via, &l.Position); err != nil {
			return nil, fmt.Errorf("lists: %w", err)
		}
		out = append(out, l)
	}
	return out, rows.Err()
}

// Holder is a person whose address a hash is.
type Holder struct {
	Hash     string // hex
	Profile  uuid.UUID
	Position int64 // of the event that holds the address, sealed
}

// Holders gives whose addresses these are.
func Holders(ctx context.Context, q schema.Querier, channel domain.Channel, hashes [][]byte) ([]Holder, error) {
	rows, err := q.QueryContext(ctx, `SELECT hash, profile_id, position FROM reach WHERE channel = $1 AND hash = ANY($2::bytea[]) ORDER BY hash, position DESC`, channel, pq.ByteaArray(hashes))
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	defer rows.Close()
	var out []Holder
	for rows.Next() {
		var h Holder
		var raw []byte
		if err := rows.Scan(&raw, &h.Profile, &h.Position); err != nil {
			return nil, fmt.Errorf("addresses: %w", err)
		}
		h.Hash = hex.EncodeToString(raw)
		out = append(out, h)
	}
	return out, rows.Err()
}

// Behind reports whether a projection that the comparison reads has not come to a position yet.
func Behind(ctx context.Context, q schema.Querier, position int64, names ...string) (bool, error) {
	var behind bool
	err := q.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM subscriptions WHERE name = ANY($1) AND position < $2)`, pq.Array(names), position).Scan(&behind)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, fmt.Errorf("projections: %w", err)
	}
	return behind, nil
}
