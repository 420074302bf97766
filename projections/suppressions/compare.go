package suppressions

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Comparison says what of a run is compared, and what its platform's words are worth.
type Comparison struct {
	Run      uuid.UUID
	Platform string // the connection's name
	Channel  domain.Channel
	Policy   domain.PlatformPolicy
	Started  time.Time // when reading began, by our clock
	Read     time.Time // when it ended

	Readable bool          // the platform has a list of opt-outs on the channel
	Complete bool          // it was read whole: who is not on it is not suppressed
	Everyone bool          // it shows those who are not suppressed too
	Verify   time.Duration // what was written less long ago may not show yet
	Repeats  bool          // a repeated opt-out shows with its own time
	Writable bool          // opt-outs can be written on the channel
	CanLift  bool          // the platform lifts on request, and the policy lets it

	Shows         []string // reasons that its list can show: that one which it cannot is not there proves nothing
	Undeliverable []string // reasons that say that an address does not work, whoever writes to it
}

// planFor gives the statements of a comparison room to hash whole lists, in this transaction alone.
//
// Loops over rows are never the way where a list is read: they are only chosen on statistics from before the pages came.
const planFor = `SET LOCAL work_mem = '160MB'; SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL jit = off; SET LOCAL enable_nestloop = off; SELECT analyze_reconciled()`

// loops lets a statement look rows up one by one: it is led by a table of this transaction whose size the planner knows.
const loops, noLoops = `SET LOCAL enable_nestloop = on`, `SET LOCAL enable_nestloop = off`

// settled is how exact a platform's time is: the latest moment that it can stand for. A second that is cut off must not make
// an opt-out older than the yes of the same second.
const settled = `(CASE t.precision WHEN 'second' THEN least(t.at + interval '999999 microseconds', greatest($4::timestamptz, t.at))
	WHEN 'day' THEN least(date_trunc('day', t.at, 'UTC') + interval '1 day - 1 microsecond', greatest($4::timestamptz, t.at)) ELSE t.at END)`

// step is one statement of a comparison.
type step struct {
	what, query string
	args, into  []any
}

func steps(ctx context.Context, tx *sql.Tx, all []step) error {
	for _, s := range all {
		var err error
		if s.into == nil {
			_, err = tx.ExecContext(ctx, s.query, s.args...)
		} else {
			err = tx.QueryRowContext(ctx, s.query, s.args...).Scan(s.into...)
		}
		if err != nil {
			return fmt.Errorf("compare: %s: %w", s.what, err)
		}
	}
	return nil
}

// clearTable holds of each address and scope of which a run's pages say that the platform would send the latest such reading. Like
// the other tables of a comparison it is temporary rather than part of the questions that read it: the planner knows its size then.
const clearTable = `CREATE TEMP TABLE IF NOT EXISTS compared_clear (channel text COLLATE "C", scope text COLLATE "C", hash bytea, seq bigint, reason text COLLATE "C", at timestamptz) ON COMMIT DROP`

const clearQuery = `
INSERT INTO compared_clear (channel, scope, hash, seq, reason, at)
SELECT DISTINCT ON (hash, scope) $2, scope, hash, seq, reason, at
FROM reconciled_rows WHERE run = $1 AND channel = $2 AND gone
ORDER BY hash, scope, at DESC NULLS LAST, seq DESC`

// foldQuery makes of a run's pages one row for each address about which the list says something new: t is what the pages say, l
// what the list said before.
//
// Among readings of one address the suppression holds, unless the other is later by the platform's clock, or by the order of
// reading where it has none. What we wrote or lifted a moment ago may not show yet, and says nothing.
const foldQuery = `
INSERT INTO reconciled_state (run, channel, scope, hash, news, reason, class, native, at, precision)
SELECT $1::uuid, $2, coalesce(t.scope, l.scope), coalesce(t.hash, l.hash), CASE WHEN t.hash IS NULL THEN 'lifted' ELSE 'seen' END,
       CASE WHEN t.hash IS NULL THEN l.reason ELSE t.reason END, CASE WHEN t.hash IS NULL THEN l.class ELSE t.class END,
       CASE WHEN t.hash IS NULL THEN coalesce(c.reason, '') ELSE t.native END,
       CASE WHEN t.hash IS NULL THEN l.at ELSE coalesce(t.at, l.at, $4::timestamptz) END, CASE WHEN t.hash IS NULL THEN l.precision ELSE t.precision END
FROM (
	SELECT s.*, p.hash IS NOT NULL AND NOT coalesce(s.at > p.pushed_at AND s.precision IN ('exact', 'second'), false) AS stale
	FROM (
		SELECT DISTINCT ON (hash, scope) scope, hash, seq, reason, class, native, at, precision
		FROM reconciled_rows WHERE run = $1 AND channel = $2 AND NOT gone
		ORDER BY hash, scope, (class = 'consent') DESC, at DESC NULLS LAST, seq DESC
	) s
	LEFT JOIN pushes p ON p.platform = $3 AND p.channel = $2 AND p.hash = s.hash AND s.scope = '' AND p.intent = 'resubscribe' AND p.pushed_at > $4::timestamptz - $5::interval
	WHERE NOT EXISTS (SELECT FROM compared_clear c WHERE c.channel = $2 AND c.scope = s.scope AND c.hash = s.hash AND (c.at > s.at OR (c.at IS NULL OR s.at IS NULL) AND c.seq > s.seq))
) t
FULL JOIN (SELECT * FROM listed WHERE platform = $3 AND channel = $2 AND NOT lifted) l ON l.hash = t.hash AND l.scope = t.scope
LEFT JOIN compared_clear c ON t.hash IS NULL AND c.channel = $2 AND c.hash = l.hash AND c.scope = l.scope
LEFT JOIN pushes p ON t.hash IS NULL AND p.platform = $3 AND p.channel = $2 AND p.hash = l.hash AND l.scope = '' AND p.intent = 'suppress' AND p.pushed_at > $4::timestamptz - $5::interval
WHERE CASE WHEN t.hash IS NULL THEN
	p.hash IS NULL AND (c.hash IS NOT NULL OR $6 AND l.seen_at < $7::timestamptz - $5::interval AND (l.via = 'list' OR l.reason = ANY($8::text[])))
ELSE
	NOT t.stale AND (l.hash IS NULL
	OR l.class <> 'consent' AND t.class = 'consent'
	OR l.class = 'consent' AND t.class <> 'consent' AND $6
	OR l.class = 'consent' AND t.class = 'consent' AND t.precision IN ('exact', 'second', 'day') AND t.at > l.at + interval '1 second')
END`

// Fold makes of a run's pages of one channel what is new in them. It may be called again. absent is how many addresses it
// takes to be lifted because no page had them.
func Fold(ctx context.Context, tx *sql.Tx, c Comparison) (absent int64, err error) {
	return absent, steps(ctx, tx, []step{
		{what: "plan", query: planFor},
		{what: "fold the pages", query: `DELETE FROM reconciled_state WHERE run = $1 AND channel = $2`, args: []any{c.Run, c.Channel}},
		{what: "fold the pages", query: clearTable},
		{what: "fold the pages", query: `DELETE FROM compared_clear WHERE channel = $1`, args: []any{c.Channel}},
		{what: "fold the pages", query: clearQuery, args: []any{c.Run, c.Channel}},
		{what: "fold the pages", query: `ANALYZE compared_clear`},
		{what: "fold the pages", query: foldQuery, args: []any{c.Run, c.Channel, c.Platform, c.Read, interval(c.Verify), c.Complete, c.Started, pq.Array(c.Shows)}},
		{
			what: "count the absent", args: []any{c.Run, c.Channel}, into: []any{&absent},
			query: `SELECT count(*) FROM reconciled_state s WHERE s.run = $1 AND s.channel = $2 AND s.news = 'lifted'
				AND NOT EXISTS (SELECT FROM compared_clear c WHERE c.channel = $2 AND c.scope = s.scope AND c.hash = s.hash)`,
		},
	})
}

func interval(d time.Duration) string { return fmt.Sprintf("%d microseconds", d.Microseconds()) }

// sides lays the two sides of one channel's comparison out, once for the questions that follow.
//
// compared_outs is who opted out here; compared_list the platform's list as it stands after the run's news; compared whom the list
// suppresses on the whole account (listed) or who opted out here, or both: a row for each address and each whose address it is.
// compared_ins is who of those that are listed, and did not opt out, opted in.
func sides(c *Comparison) []step {
	const what = "lay out the two sides"
	return []step{
		{what: what, query: `DROP TABLE IF EXISTS pg_temp.compared_outs, pg_temp.compared_list, pg_temp.compared, pg_temp.compared_ins`},
		{what: what, query: loops}, // the view holds one over people who were merged, and without it no two plans differ by their cost
		{what: what, args: []any{c.Channel, pq.Array(c.Policy.PushedFor)}, query: `CREATE TEMP TABLE compared_outs ON COMMIT DROP AS
			SELECT profile_id, max(decided_at) AS out_at, max(position) AS out_position
			FROM consent_held WHERE channel = $1 AND purpose = ANY($2::text[]) AND status = 'opted_out' GROUP BY profile_id`},
		{what: what, query: `ANALYZE compared_outs (profile_id)`},
		{what: what, query: noLoops},
		{what: what, args: []any{c.Run, c.Channel, c.Platform, c.Read}, query: `CREATE TEMP TABLE compared_list ON COMMIT DROP AS
			SELECT t.scope, t.hash, t.reason, t.class, t.at, ` + settled + ` AS latest, t.fresh
			FROM (
				SELECT scope, hash, reason, class, at, precision, true AS fresh FROM reconciled_state WHERE run = $1 AND channel = $2 AND news = 'seen'
				UNION ALL
				SELECT l.scope, l.hash, l.reason, l.class, l.at, l.precision, false FROM listed l
				WHERE l.platform = $3 AND l.channel = $2 AND NOT l.lifted
				  AND NOT EXISTS (SELECT FROM reconciled_state s WHERE s.run = $1 AND s.channel = $2 AND s.scope = l.scope AND s.hash = l.hash)
			) t`},
		{what: what, query: `ANALYZE compared_list (scope, hash, class)`},
		{what: what, args: []any{c.Channel}, query: `CREATE TEMP TABLE compared ON COMMIT DROP AS
			SELECT coalesce(t.hash, o.hash) AS hash, t.hash IS NOT NULL AS listed, t.reason, t.class, t.at, t.latest, t.fresh, o.profile_id, o.out_at, o.out_position
			FROM (SELECT * FROM compared_list WHERE scope = '') t
			FULL JOIN (SELECT r.hash, r.profile_id, o.out_at, o.out_position FROM reach r LEFT JOIN compared_outs o USING (profile_id) WHERE r.channel = $1) o ON o.hash = t.hash
			WHERE t.hash IS NOT NULL OR o.out_position IS NOT NULL`},
		{what: what, query: `ANALYZE compared`},
		{what: what, query: loops},
		{what: what, args: []any{c.Channel, pq.Array(c.Policy.PushedFor)}, query: `CREATE TEMP TABLE compared_ins ON COMMIT DROP AS
			WITH people AS (SELECT DISTINCT profile_id FROM compared WHERE listed AND out_at IS NULL AND profile_id IS NOT NULL)
			SELECT profile_id, max(decided_at) AS in_at, max(position) AS in_position
			FROM (
				SELECT s.profile_id, s.decided_at, s.position FROM people JOIN consent_state s USING (profile_id) -- what holds, of whoever was never merged
				WHERE s.channel = $1 AND s.purpose = ANY($2::text[]) AND s.status = 'opted_in' AND NOT EXISTS (SELECT FROM ties t WHERE t.profile_id = s.profile_id)
				UNION ALL
				SELECT m.profile_id, c.decided_at, c.position FROM (SELECT profile_id FROM people INTERSECT SELECT profile_id FROM ties) m
				CROSS JOIN LATERAL (SELECT h.decided_at, h.position FROM consent_held h
					WHERE h.profile_id = m.profile_id AND h.channel = $1 AND h.purpose = ANY($2::text[]) AND h.status = 'opted_in') c
			) i GROUP BY profile_id`},
		{what: what, query: `ANALYZE compared_ins`},
		{what: what, query: noLoops},
	}
}

// listedQuery classifies whom the list suppresses on the whole account.
//
// An opt-out there that we do not have is recorded here, unless the person agreed here later, or it is our own push come
// back with the platform's time: then it is for the evidence, or for a person, to say whether it is lifted there.
const listedQuery = `
WITH judged AS MATERIALIZED ( -- but for those who opted out on both sides, and of whom the platform heard by itself
	SELECT m.hash, m.profile_id, m.reason, m.at, m.latest, m.out_at, m.out_position, i.in_at, i.in_position, m.fresh, m.class AS kind,
	       p.status AS pushed, x.echo,
	       CASE
	       WHEN m.profile_id IS NULL THEN CASE WHEN m.fresh THEN 'unknown_contact' END
	       WHEN m.class = 'consent' AND m.out_at IS NOT NULL THEN CASE WHEN x.echo AND m.fresh THEN 'echo' END
	       WHEN m.class = 'consent' AND (i.in_at IS NULL OR m.latest >= i.in_at AND NOT x.echo) THEN 'missing_here'
	       WHEN m.class = 'consent' THEN
	           CASE WHEN p.intent = 'resubscribe' AND p.decision >= i.in_position AND p.status IN ('ordered', 'applied', 'unchanged', 'accepted', 'pending')
	                     AND p.ordered_at > $4::timestamptz - $5::interval THEN NULL
	                WHEN p.intent = 'resubscribe' AND p.decision >= i.in_position AND p.status IN ('challenged', 'refused', 'not_found') THEN 'not_lifted'
	                ELSE 'resubscribed_here' END
	       WHEN m.out_at IS NOT NULL THEN
	           CASE WHEN p.intent = 'suppress' AND p.decision >= m.out_position AND p.status <> 'failed' AND p.status <> 'ordered' THEN NULL ELSE 'other_reasons' END
	       WHEN m.fresh THEN 'deliverability'
	       END AS class
	FROM compared m LEFT JOIN compared_ins i ON i.profile_id = m.profile_id
	LEFT JOIN pushes p ON p.platform = $3 AND p.channel = $2 AND p.hash = m.hash
	CROSS JOIN LATERAL (SELECT coalesce(p.intent = 'suppress' AND p.status IN ('ordered', 'applied', 'unchanged', 'accepted', 'pending') AND (
	       m.at BETWEEN p.ordered_at - interval '1 minute' AND coalesce(p.pushed_at, p.ordered_at) + $5::interval + interval '1 minute'
	       OR abs(extract(epoch FROM m.at - p.decided_at)) < 1), false) AS echo) x
	WHERE m.listed AND NOT (m.class = 'consent' AND m.out_at IS NOT NULL AND p.hash IS NULL)
), kept AS (
	INSERT INTO reconciled_differences (run, platform, channel, class, hash, profile_id, reason, theirs_at, ours_at, decision, action)
	SELECT $1, $3, $2, j.class, j.hash, j.profile_id, CASE j.class WHEN 'not_lifted' THEN j.pushed ELSE j.reason END, j.latest, coalesce(j.out_at, j.in_at), coalesce(j.out_position, j.in_position),
	       CASE j.class WHEN 'missing_here' THEN 'record' WHEN 'other_reasons' THEN 'push' WHEN 'not_lifted' THEN 'ask'
	            ELSE CASE WHEN $6 AND $7 AND j.latest < j.in_at AND NOT j.echo THEN 'lift' ELSE 'ask' END END
	FROM judged j WHERE j.class IN ('missing_here', 'other_reasons', 'resubscribed_here', 'not_lifted')
), reported AS ( -- that an address of ours does not work there, unless somebody has said as much, or otherwise, since
	INSERT INTO reconciled_differences (run, platform, channel, class, hash, profile_id, reason, theirs_at, action)
	SELECT $1, $3, $2, 'deliverability', j.hash, j.profile_id, j.reason, j.at, 'report'
	FROM judged j LEFT JOIN address_facts f ON f.channel = $2 AND f.hash = encode(j.hash, 'hex') AND f.profile_id IN (j.profile_id, '00000000-0000-0000-0000-000000000000') AND f.reported_at >= j.at
	WHERE j.kind = 'deliverability' AND j.profile_id IS NOT NULL AND j.reason = ANY($8::text[]) AND f.hash IS NULL
)
SELECT count(*) FILTER (WHERE class = 'unknown_contact'), count(*) FILTER (WHERE class = 'deliverability'), count(*) FILTER (WHERE class = 'echo')
FROM judged`

// workingQuery finds the addresses that the list holds no more, of which it alone had said that they do not work.
const workingQuery = `
INSERT INTO reconciled_differences (run, platform, channel, class, hash, profile_id, reason, theirs_at, action)
SELECT DISTINCT $1::uuid, $3, $2, 'deliverability', s.hash, r.profile_id, 'working', $4::timestamptz, 'report'
FROM reconciled_state s JOIN reach r ON r.channel = $2 AND r.hash = s.hash
JOIN address_facts f ON f.channel = $2 AND f.hash = encode(s.hash, 'hex') AND f.profile_id IN (r.profile_id, '00000000-0000-0000-0000-000000000000')
WHERE s.run = $1 AND s.channel = $2 AND s.scope = '' AND s.news = 'lifted' AND s.class = 'deliverability' AND f.status IN ('bounced', 'invalid') AND f.reported_by = $3
  AND NOT EXISTS (SELECT FROM listed o WHERE o.channel = $2 AND o.scope = '' AND o.hash = s.hash AND o.platform <> $3 AND NOT o.lifted AND o.class = 'deliverability')`

// absentQuery classifies who opted out here and is not on the list.
const absentQuery = `
WITH outs AS MATERIALIZED (
	SELECT DISTINCT ON (hash) hash, profile_id, out_at, out_position FROM compared WHERE NOT listed ORDER BY hash, out_position DESC
), judged AS (
	SELECT o.*, s.reason, s.at,
	       CASE
	       WHEN g.hash IS NOT NULL THEN NULL
	       WHEN p.intent = 'suppress' AND p.decision >= o.out_position AND p.status NOT IN ('ordered', 'failed') THEN
	           CASE WHEN p.status IN ('refused', 'not_found', 'no_address', 'challenged') THEN 'not_taken'
	                WHEN p.status NOT IN ('applied', 'unchanged', 'accepted', 'pending') OR NOT $6 THEN NULL
	                WHEN p.pushed_at > $4::timestamptz - $5::interval THEN NULL
	                WHEN p.confirmed_at IS NOT NULL OR l.lifted AND l.class = 'consent' AND l.seen_at > p.pushed_at OR s.news = 'lifted' AND s.class = 'consent' THEN 'lifted_there'
	                WHEN NOT $7 THEN NULL
	                WHEN p.attempt < 3 THEN 'missing_there'
	                ELSE 'not_taken' END
	       WHEN s.news = 'lifted' AND s.class = 'consent' OR l.lifted AND l.class = 'consent' AND NOT l.by_us THEN 'lifted_there'
	       WHEN $8 AND a.hash IS NULL THEN NULL
	       ELSE 'missing_there' END AS class
	FROM outs o
	LEFT JOIN pushes p ON p.platform = $3 AND p.channel = $2 AND p.hash = o.hash
	LEFT JOIN listed l ON l.platform = $3 AND l.channel = $2 AND l.scope = '' AND l.hash = o.hash
	LEFT JOIN reconciled_state s ON s.run = $1 AND s.channel = $2 AND s.scope = '' AND s.hash = o.hash
	LEFT JOIN outgoing g ON g.platform = $3 AND g.channel = $2 AND g.hash = o.hash AND g.intent = 'suppress'
	LEFT JOIN compared_clear a ON a.channel = $2 AND a.scope = '' AND a.hash = o.hash
), kept AS (
	INSERT INTO reconciled_differences (run, platform, channel, class, hash, profile_id, reason, theirs_at, ours_at, decision, action)
	SELECT $1, $3, $2, class, hash, profile_id, reason, at, out_at, out_position,
	       CASE class WHEN 'not_taken' THEN 'ask' WHEN 'lifted_there' THEN $9 ELSE 'push' END
	FROM judged WHERE class IS NOT NULL AND $10
), unwritable AS (
	INSERT INTO reconciled_differences (run, platform, channel, scope, class, amount, action)
	SELECT $1, $3, $2, 'unwritable', 'not_taken', count(*), 'ask' FROM judged WHERE class IS NOT NULL AND NOT $10 HAVING count(*) > 0
)
SELECT 1`

// scopeQuery takes opt-outs of single lists and groups for what the policy says that they mean, and sums up those of which
// it says nothing.
const scopeQuery = `
WITH meant AS (SELECT key AS id, value AS purpose FROM jsonb_each_text($4::jsonb)), scoped AS MATERIALIZED (
	SELECT t.*, r.profile_id, m.purpose FROM compared_list t LEFT JOIN reach r ON r.channel = $2 AND r.hash = t.hash LEFT JOIN meant m ON m.id IN (t.scope, substr(t.scope, strpos(t.scope, ':') + 1))
	WHERE t.scope <> '' AND t.class = 'consent'
), kept AS (
	INSERT INTO reconciled_differences (run, platform, channel, scope, class, hash, profile_id, reason, theirs_at, ours_at, decision, purpose, action)
	SELECT $1, $3, $2, s.scope, 'missing_here', s.hash, s.profile_id, s.reason, s.latest, a.decided_at, a.position, s.purpose, 'record'
	FROM scoped s
	LEFT JOIN consent_held a ON a.profile_id = s.profile_id AND a.channel = $2 AND a.purpose = s.purpose
	LEFT JOIN consent_held g ON g.profile_id = s.profile_id AND g.channel = $2 AND g.purpose = 'all' AND g.status = 'opted_out'
	WHERE s.profile_id IS NOT NULL AND s.purpose <> 'ignore' AND g.profile_id IS NULL
	  AND (a.profile_id IS NULL OR a.status = 'unknown' OR a.status = 'opted_in' AND s.latest >= a.decided_at)
)
INSERT INTO reconciled_differences (run, platform, channel, scope, class, amount, action)
SELECT $1, $3, $2, scope, 'scope_differs', count(DISTINCT hash), 'ask' FROM scoped WHERE purpose IS NULL GROUP BY scope`

// countQuery counts addresses: whom the list suppresses, who of those opted out here, who opted out here at all, those that we have,
// and those of them that the platform knows of: whom it suppresses, and whom it said in this run that it would send to.
const countQuery = `
WITH known AS ( -- but for those of compared
	SELECT t.hash FROM compared_list t WHERE t.scope <> '' AND EXISTS (SELECT FROM reach x WHERE x.channel = $1 AND x.hash = t.hash)
	UNION ALL
	SELECT g.hash FROM compared_clear g WHERE g.channel = $1 AND EXISTS (SELECT FROM reach x WHERE x.channel = $1 AND x.hash = g.hash)
)
SELECT count(*) FILTER (WHERE listed), (SELECT count(*) FROM compared WHERE listed AND class = 'consent' AND out_at IS NOT NULL), count(*) FILTER (WHERE out),
       (SELECT count(*) FROM reach WHERE channel = $1), count(*) FILTER (WHERE known)
FROM (
	SELECT bool_or(listed) AS listed, bool_or(out) AS out, bool_or(known) AS known
	FROM (SELECT hash, listed, out_at IS NOT NULL AS out, listed AND profile_id IS NOT NULL AS known FROM compared UNION ALL SELECT hash, false, false, true FROM known) a
	GROUP BY hash
) addresses`

// Tally is what one channel's comparison counted.
type Tally struct {
	Suppressed, Agreed, OptedOut, Contacts, KnownThere int64
	Differences                                        map[string]int64 // new ones of this channel, by class
	Planned                                            map[string]int64 // what is done about them: record, push, lift, ask, report
}

// Classify finds the differences of one channel and says for each what is done about it: record, push, lift, ask, report or none.
// It may be called again.
func Classify(ctx context.Context, tx *sql.Tx, c Comparison) (Tally, error) {
	t := Tally{Differences: map[string]int64{}, Planned: map[string]int64{}}
	scopes, err := json.Marshal(c.Policy.Scopes)
	if err != nil {
		return t, fmt.Errorf("compare: %w", err)
	}
	if c.Policy.Scopes == nil {
		scopes = []byte("{}")
	}
	lifted := "push"
	if c.Policy.LiftedThere == domain.LiftAsk {
		lifted = "ask"
	}
	skip := c.Policy.UnknownThere == domain.SkipUnknown && c.Complete && c.Everyone
	verify := interval(c.Verify)
	var unknown, undeliverable, echo int64
	all := append([]step{{what: "plan", query: planFor}}, sides(&c)...)
	all = append(
		all,
		step{what: "differences", query: `DELETE FROM reconciled_differences WHERE run = $1 AND channel = $2`, args: []any{c.Run, c.Channel}},
		step{
			what: "whom the list holds", query: listedQuery,
			args: []any{c.Run, c.Channel, c.Platform, c.Read, verify, c.CanLift, c.Repeats, pq.Array(c.Undeliverable)},
			into: []any{&unknown, &undeliverable, &echo},
		},
		step{what: "addresses that work again", query: workingQuery, args: []any{c.Run, c.Channel, c.Platform, c.Read}},
		step{what: "loops", query: loops},
		step{
			what: "whom it does not hold", query: absentQuery,
			args: []any{c.Run, c.Channel, c.Platform, c.Read, verify, c.Readable, c.Complete, skip, lifted, c.Writable},
		},
		step{what: "lists and groups", query: scopeQuery, args: []any{c.Run, c.Channel, c.Platform, string(scopes)}},
		step{what: "counts", query: countQuery, args: []any{c.Channel}, into: []any{&t.Suppressed, &t.Agreed, &t.OptedOut, &t.Contacts, &t.KnownThere}},
		step{what: "loops", query: noLoops},
		step{what: "known findings", args: []any{c.Run, c.Channel}, query: `UPDATE reconciled_differences d SET action = 'known' WHERE d.run = $1 AND d.channel = $2 AND d.action = 'ask' AND EXISTS (
			SELECT FROM findings f WHERE f.platform = d.platform AND f.channel = d.channel AND f.class = d.class AND f.scope = d.scope AND f.hash IS NOT DISTINCT FROM d.hash
			  AND (f.state = 'open' OR f.resolution <> 'gone' AND f.decision IS NOT DISTINCT FROM d.decision))`},
	)
	if err := steps(ctx, tx, all); err != nil {
		return t, err
	}
	rows, err := tx.QueryContext(ctx, `SELECT class, action, sum(amount) FROM reconciled_differences WHERE run = $1 AND channel = $2 AND action <> 'known' GROUP BY class, action`, c.Run, c.Channel)
	if err != nil {
		return t, fmt.Errorf("compare: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var class, action string
		var n int64
		if err := rows.Scan(&class, &action, &n); err != nil {
			return t, fmt.Errorf("compare: %w", err)
		}
		if action != "report" { // these are counted as they are listed
			t.Differences[class] += n
		}
		t.Planned[action] += n
	}
	for class, n := range map[string]int64{domain.UnknownContact: unknown, domain.DeliveryProblem: undeliverable, domain.EchoOfOurs: echo} {
		if n > 0 {
			t.Differences[class] = n
		}
	}
	return t, rows.Err()
}
