package queue

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Work is a target that something is due for.
type Work struct {
	Target    string
	Priority  int // of the most urgent that is due: 0 transactional, 1 promotional
	Paused    bool
	Cause     string    // why it was paused, while nobody has resumed it
	Pauses    int       // in a row
	HeldSince time.Time // when the first of those pauses began; zero without one
	Failures  int       // in a row since it last answered, over all processes
	State     string    // of the target: enabled or deleted
	Version   int64     // of the target's configuration
	Position  int64     // of the last event about the target: its configuration and state are cached by it
	Known     int64     // what is read from the projections after this holds every event up to here
}

// workQuery hops from target to target along the index, so that its cost is in targets and not in deliveries. It comes from the
// far end, and to each target's latest first: at the near end lies what was sent a moment ago, which the database has not
// tidied up yet and would pass over one by one.
const workQuery = `
WITH RECURSIVE hop AS (
	(SELECT target FROM queue ORDER BY target DESC LIMIT 1)
	UNION ALL
	SELECT (SELECT q.target FROM queue q WHERE q.target < h.target ORDER BY q.target DESC LIMIT 1) FROM hop h WHERE h.target IS NOT NULL
)
SELECT h.target, d.priority, coalesce(p.until > statement_timestamp(), false), coalesce(p.cause, ''), coalesce(p.pauses, 0),
	CASE WHEN p.cause IS NOT NULL THEN p.held_since END, coalesce(b.failures, 0), t.state, t.version, t.position,
	(SELECT min(k.position) FROM subscriptions k WHERE k.name IN ('projection.consent', 'projection.targets', 'projection.queue'))
FROM hop h
JOIN targets t ON t.handle = h.target
LEFT JOIN pauses p ON p.target = h.target
LEFT JOIN breakers b ON b.target = h.target
CROSS JOIN LATERAL (
	SELECT x.priority FROM (VALUES (0), (1)) AS x (priority) CROSS JOIN LATERAL (
		SELECT FROM queue q WHERE q.target = h.target AND q.priority = x.priority AND q.due_at <= statement_timestamp() ORDER BY q.due_at DESC LIMIT 1
	) q ORDER BY 1 LIMIT 1
) d
WHERE h.target IS NOT NULL AND t.state <> 'disabled'
ORDER BY d.priority, h.target`

// Wanted asks for work on one target.
type Wanted struct {
	Target string
	Free   int           // how many more requests may be in flight
	Lease  time.Duration // how long one attempt can take at most
	Rate   float64       // requests a second over all processes; 0 is no limit
	Burst  float64       // requests at once within the rate
	Probe  bool          // only if no process has a request of this target in flight
}

// Claim is the right, and the recorded intent, to make one attempt. It is durable when Claimer.Due returns it.
type Claim struct {
	Attempt   int
	Base      int // attempts made before the delivery was last put into the queue
	ClaimedAt time.Time
	ExpiresAt time.Time       // by the database's clock; past it the attempt counts as lost
	Planned   domain.Recorded // the delivery.planned event
	Until     time.Time       // not sent at this time or later; zero: no limit
}

// dueQuery takes, for each target that is not paused, what is due, the urgent first and then the oldest, as far as its tokens
// reach.
//
// The moment is the statement's: what is volatile, as clock_timestamp() is, is no condition of an index, and what is due later
// would be read to the end each time.
//
// The tokens are locked before anything else, in the order of the targets, so that two processes wait for each other and
// never in a circle; rows of the queue that another process is at are passed over.
const dueQuery = `
WITH w AS MATERIALIZED (
	SELECT * FROM unnest($1::text[], $2::int[], $3::float8[], $4::float8[], $5::float8[], $6::boolean[]) AS w (target, free, lease, rate, burst, probe)
), bucket AS MATERIALIZED (
	SELECT p.target, least(w.burst, p.tokens + greatest(extract(epoch FROM clock_timestamp() - p.at), 0) * w.rate) AS tokens
	FROM w JOIN paces p ON p.target = w.target WHERE w.rate > 0 ORDER BY p.target FOR UPDATE OF p
), due AS MATERIALIZED (
	SELECT d.delivery_id, d.attempt, d.base, d.planned, d.expires_at, w.lease, w.target
	FROM w LEFT JOIN bucket b ON b.target = w.target CROSS JOIN LATERAL (
		SELECT r.* FROM (VALUES (0), (1)) AS x (priority) CROSS JOIN LATERAL (
			SELECT q.delivery_id, q.attempt, q.base, q.planned, q.expires_at FROM queue q
			WHERE q.target = w.target AND q.priority = x.priority AND q.due_at <= statement_timestamp()
			  AND NOT EXISTS (SELECT FROM leases l WHERE l.delivery_id = q.delivery_id AND l.attempt >= q.attempt)
			  AND (q.profile_id IS NULL OR NOT EXISTS (
			      SELECT FROM queue o WHERE o.target = q.target AND o.profile_id = q.profile_id AND o.planned < q.planned))
			ORDER BY q.due_at
			FOR UPDATE OF q SKIP LOCKED
		) r LIMIT CASE WHEN w.rate > 0 THEN least(w.free, floor(coalesce(b.tokens, 0))::int) ELSE w.free END
	) d
	WHERE (NOT w.probe OR NOT EXISTS (SELECT FROM leases l WHERE l.target = w.target AND l.expires_at > clock_timestamp()
		AND EXISTS (SELECT FROM queue q WHERE q.delivery_id = l.delivery_id AND q.attempt = l.attempt)))
	  AND NOT EXISTS (SELECT FROM pauses p WHERE p.target = w.target AND (p.until > statement_timestamp() OR p.cause = 'failures' AND NOT w.probe))
), taken AS (
	UPDATE paces p SET tokens = b.tokens - (SELECT count(*) FROM due d WHERE d.target = p.target), at = clock_timestamp()
	FROM bucket b WHERE b.target = p.target
), claimed AS (
	INSERT INTO leases AS l (delivery_id, attempt, worker, target, claimed_at, expires_at)
	SELECT delivery_id, attempt, $7, target, clock_timestamp(), clock_timestamp() + make_interval(secs => lease) FROM due
	ON CONFLICT (delivery_id) DO UPDATE
		SET attempt = excluded.attempt, worker = excluded.worker, target = excluded.target, claimed_at = excluded.claimed_at, expires_at = excluded.expires_at, planned = NULL
		WHERE l.attempt < excluded.attempt
	RETURNING l.delivery_id, l.attempt, l.claimed_at, l.expires_at
)
SELECT c.attempt, d.base, d.expires_at, c.claimed_at, c.expires_at, e.position, e.id, e.stream, e.subject, e.target, e.delivery_id, e.recorded_at, e.correlation_id, e.data, e.sealed
FROM claimed c JOIN due d USING (delivery_id) JOIN events e ON e.position = d.planned`

// Claimer claims on a connection of its own, with its statements prepared and planned once: the queue is small one moment
// and large the next, so it is told to go by the indexes whatever the statistics of the moment say. It is for one goroutine.
type Claimer struct {
	db        *sql.DB
	conn      *sql.Conn
	work, due *sql.Stmt
	paced     map[string]bool // targets whose bucket is there
}

// NewClaimer makes a claimer. Close it.
func NewClaimer(db *sql.DB) *Claimer { return &Claimer{db: db, paced: map[string]bool{}} }

// byIndex keeps the planner from sorting a queue that an index has in order.
const byIndex = `SET plan_cache_mode = force_generic_plan; SET enable_bitmapscan = off; SET enable_sort = off; SET enable_seqscan = off;
	SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off`

func (c *Claimer) open(ctx context.Context) (err error) {
	if c.conn != nil {
		return nil
	}
	if c.conn, err = schema.Direct(c.db).Conn(ctx); err != nil {
		return err
	}
	if _, err = c.conn.ExecContext(ctx, byIndex); err == nil {
		if c.work, err = c.conn.PrepareContext(ctx, workQuery); err == nil {
			c.due, err = c.conn.PrepareContext(ctx, dueQuery)
		}
	}
	if err != nil {
		c.Close()
	}
	return err
}

// Close gives the connection up. The claimer may be used again.
func (c *Claimer) Close() {
	if c.conn != nil {
		schema.Discard(c.conn)
	}
	c.conn, c.work, c.due = nil, nil, nil
}

// Work lists the targets that something is due for, the most urgent first.
func (c *Claimer) Work(ctx context.Context) (out []Work, err error) {
	defer c.reset(&err, "work")
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	rows, err := c.work.QueryContext(ctx)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var w Work
		var held sql.NullTime
		if err := rows.Scan(&w.Target, &w.Priority, &w.Paused, &w.Cause, &w.Pauses, &held, &w.Failures, &w.State, &w.Version, &w.Position, &w.Known); err != nil {
			return nil, err
		}
		w.HeldSince = held.Time
		out = append(out, w)
	}
	return out, rows.Err()
}

// reset names an error and gives up the connection that it came from.
func (c *Claimer) reset(err *error, what string) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", what, *err)
		c.Close()
	}
}

// Due claims what is due for the targets asked for. Two workers never get the same attempt.
func (c *Claimer) Due(ctx context.Context, worker string, wanted []Wanted) (out []Claim, err error) {
	defer c.reset(&err, "claim")
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	n := len(wanted)
	names, free, lease, rates, bursts, probes := make([]string, n), make([]int64, n), make([]float64, n), make([]float64, n), make([]float64, n), make([]bool, n)
	for i, w := range wanted {
		names[i], free[i], lease[i], rates[i], bursts[i], probes[i] = w.Target, int64(w.Free), w.Lease.Seconds(), w.Rate, w.Burst, w.Probe
		if w.Rate > 0 && !c.paced[w.Target] {
			if _, err := c.conn.ExecContext(ctx, `INSERT INTO paces (target, tokens) VALUES ($1, $2) ON CONFLICT DO NOTHING`, w.Target, w.Burst); err != nil {
				return nil, err
			}
			c.paced[w.Target] = true
		}
	}
	rows, err := c.due.QueryContext(ctx, pq.Array(names), pq.Array(free), pq.Array(lease), pq.Array(rates), pq.Array(bursts), pq.Array(probes), worker)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c Claim
		var subject, correlation uuid.NullUUID
		var until sql.NullTime
		e := &c.Planned
		if err := rows.Scan(&c.Attempt, &c.Base, &until, &c.ClaimedAt, &c.ExpiresAt, &e.Position, &e.ID, &e.Stream, &subject, &e.Target, &e.DeliveryID,
			&e.RecordedAt, &correlation, &e.Data, &e.Sealed); err != nil {
			return nil, err
		}
		e.Type, e.Subject, e.CorrelationID, c.Until = "delivery.planned", subject.UUID, correlation.UUID, until.Time
		out = append(out, c)
	}
	return out, rows.Err()
}

// Release gives back claims whose requests never left, so that they are claimed again instead of counting as lost.
func Release(ctx context.Context, q schema.Querier, worker string, claims []Claim) error {
	ids, attempts := make([]string, len(claims)), make([]int64, len(claims))
	for i, c := range claims {
		ids[i], attempts[i] = c.Planned.DeliveryID.String(), int64(c.Attempt)
	}
	_, err := q.ExecContext(ctx, `DELETE FROM leases l USING unnest($1::uuid[], $2::int[]) AS c (delivery_id, attempt)
		WHERE l.delivery_id = c.delivery_id AND l.attempt = c.attempt AND l.worker = $3`, pq.Array(ids), pq.Array(attempts), worker)
	if err != nil {
		return fmt.Errorf("release claims: %w", err)
	}
	return nil
}

// Base is how many attempts were made before a delivery was last put into the queue; 0 for one that is not in it.
func Base(ctx context.Context, q schema.Querier, delivery uuid.UUID) (n int, err error) {
	rows, err := q.QueryContext(ctx, `SELECT base FROM queue WHERE delivery_id = $1`, delivery)
	if err != nil {
		return 0, fmt.Errorf("queue: %w", err)
	}
	defer rows.Close()
	if rows.Next() {
		if err := rows.Scan(&n); err != nil {
			return 0, fmt.Errorf("queue: %w", err)
		}
	}
	return n, rows.Err()
}

// Overdue is a delivery whose time has passed before it was sent.
type Overdue struct {
	DeliveryID    uuid.UUID
	Target        string
	ProfileID     uuid.UUID
	Attempt       int
	ExpiresAt     time.Time
	CorrelationID uuid.UUID
	PlannedID     uuid.UUID // id of the delivery.planned event
}

// Overdues lists deliveries whose time has passed and that nobody is sending at the moment.
func Overdues(ctx context.Context, q schema.Querier, limit int) ([]Overdue, error) {
	rows, err := q.QueryContext(ctx, `
		SELECT q.delivery_id, q.target, e.subject, q.attempt, q.expires_at, e.correlation_id, e.id
		FROM queue q JOIN events e ON e.position = q.planned
		WHERE q.expires_at <= statement_timestamp() AND NOT EXISTS (SELECT FROM leases l WHERE l.delivery_id = q.delivery_id AND l.attempt >= q.attempt)
		ORDER BY q.expires_at LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("overdue deliveries: %w", err)
	}
	defer rows.Close()
	var out []Overdue
	for rows.Next() {
		var o Overdue
		var subject, correlation uuid.NullUUID
		if err := rows.Scan(&o.DeliveryID, &o.Target, &subject, &o.Attempt, &o.ExpiresAt, &correlation, &o.PlannedID); err != nil {
			return nil, fmt.Errorf("overdue deliveries: %w", err)
		}
		o.ProfileID, o.CorrelationID = subject.UUID, correlation.UUID
		out = append(out, o)
	}
	return out, rows.Err()
}

// Pause is the last word on whether a target is left alone.
type Pause struct {
	Target string
	Cause  string // empty: it was resumed
	Reason string
	Until  time.Time // zero: until somebody resumes it
	Since  time.Time
	Pauses int // in a row
}

// Pauses lists the targets that are paused, or whose pause has run out and that nobody has resumed.
func Pauses(ctx context.Context, q schema.Querier) ([]Pause, error) {
	rows, err := q.QueryContext(ctx, `SELECT target, cause, coalesce(reason, ''), CASE WHEN isfinite(until) THEN until END, since, pauses
		FROM pauses WHERE cause IS NOT NULL ORDER BY target`)
	if err != nil {
		return nil, fmt.Errorf("pauses: %w", err)
	}
	defer rows.Close()
	var out []Pause
	for rows.Next() {
		var p Pause
		var until sql.NullTime
		if err := rows.Scan(&p.Target, &p.Cause, &p.Reason, &until, &p.Since, &p.Pauses); err != nil {
			return nil, fmt.Errorf("pauses: %w", err)
		}
		p.Until = until.Time
		out = append(out, p)
	}
	return out, rows.Err()
}

// Lost is a claim that outlived its worker.
type Lost struct {
	DeliveryID    uuid.UUID
	Target        string
	TargetVersion int64
	ProfileID     uuid.UUID
	Attempt       int
	Base          int // attempts made before the delivery was last put into the queue
	Worker        string
	ClaimedAt     time.Time
	CorrelationID uuid.UUID
	PlannedID     uuid.UUID // id of the delivery.planned event
}

const expiredQuery = `
SELECT l.delivery_id, e.target, (e.data->>'target_version')::bigint, e.subject, l.attempt, q.base, l.worker, l.claimed_at, e.correlation_id, e.id
FROM leases l CROSS JOIN LATERAL (SELECT * FROM queue q WHERE q.delivery_id = l.delivery_id AND q.attempt = l.attempt OFFSET 0) q JOIN events e ON e.position = q.planned
WHERE l.expires_at < statement_timestamp() ORDER BY l.expires_at LIMIT $1`

// Expired lists claims past their lease whose attempt has no outcome.
func Expired(ctx context.Context, q schema.Querier, limit int) ([]Lost, error) {
	rows, err := q.QueryContext(ctx, expiredQuery, limit)
	if err != nil {
		return nil, fmt.Errorf("expired claims: %w", err)
	}
	defer rows.Close()
	var out []Lost
	for rows.Next() {
		var l Lost
		var subject, correlation uuid.NullUUID
		if err := rows.Scan(&l.DeliveryID, &l.Target, &l.TargetVersion, &subject, &l.Attempt, &l.Base, &l.Worker, &l.ClaimedAt, &correlation, &l.PlannedID); err != nil {
			return nil, fmt.Errorf("expired claims: %w", err)
		}
		l.ProfileID, l.CorrelationID = subject.UUID, correlation.UUID
		out = append(out, l)
	}
	return out, rows.Err()
}

// sweepQuery has each lease look for its row by the key: as an anti-join it would go through the whole queue for a few leases.
const sweepQuery = `
DELETE FROM leases l WHERE (SELECT q.attempt FROM queue q WHERE q.delivery_id = l.delivery_id) IS NULL
		AND (l.planned IS NULL OR l.planned <= (SELECT s.position FROM subscriptions s WHERE s.name = $1))`

// Sweep removes the leases of deliveries that are done with. One without a row of the queue belongs to a delivery that has
// left it for good, or to one that was claimed as it was planned and that the queue has not come to yet.
func Sweep(ctx context.Context, q schema.Querier) error {
	_, err := q.ExecContext(ctx, sweepQuery, Definition.SubscriptionName())
	if err != nil {
		return fmt.Errorf("sweep leases: %w", err)
	}
	return nil
}

// Depth is how much work waits for a target.
type Depth struct {
	Target string
	Queued int
	Due    int
	Oldest time.Time // due time of the first
}

// Depths gives what waits, by target.
func Depths(ctx context.Context, q schema.Querier) ([]Depth, error) {
	rows, err := q.QueryContext(ctx, `SELECT target, count(*), count(*) FILTER (WHERE due_at <= clock_timestamp()), min(due_at) FROM queue GROUP BY target ORDER BY target`)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	defer rows.Close()
	var out []Depth
	for rows.Next() {
		var d Depth
		if err := rows.Scan(&d.Target, &d.Queued, &d.Due, &d.Oldest); err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
		out = append(out, d)
	}
	return out, rows.Err()
}
