package schema

import (
	"context"
	"fmt"
)

// guards looks whether what keeps the ledger append-only is still there. That is no proof of anything, which the tree
// is; it is how one notices that somebody has opened a door.
func (v *verification) guards(ctx context.Context) error {
	rows, err := v.db.QueryContext(ctx, guardsSQL)
	if err != nil {
		return fmt.Errorf("look at the guards: %w", unavailable(err))
	}
	defer rows.Close()
	for rows.Next() {
		var message string
		if err := rows.Scan(&message); err != nil {
			return fmt.Errorf("look at the guards: %w", unavailable(err))
		}
		v.problem(ProblemGuard, 0, 0, "%s", message)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look at the guards: %w", unavailable(err))
	}
	return nil
}

// guardsSQL says in a sentence each what is missing. Of a trigger's type, 1 is FOR EACH ROW, 2 BEFORE, 8 DELETE, 16 UPDATE and
// 32 TRUNCATE; it is enabled as O (by default) or A (always).
const guardsSQL = `
WITH guarded AS (
	SELECT c.oid, c.relname, c.relacl, c.relowner, c.relname = 'events' OR i.inhparent IS NOT NULL AS events
	FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = 'events'::regclass
	WHERE c.oid IN ('events'::regclass, 'tiles'::regclass, 'checkpoints'::regclass, 'cosignatures'::regclass) OR i.inhparent IS NOT NULL
), refusal AS (
	SELECT p.oid, p.prosrc ~ '^\s*BEGIN\s+RAISE EXCEPTION' AS refuses FROM pg_proc p WHERE p.oid = to_regprocedure('refuse_change()')
)
SELECT format('UPDATE, DELETE and TRUNCATE on %s are not refused: its trigger is missing, disabled or changed', g.relname)
FROM guarded g
WHERE NOT EXISTS (SELECT FROM pg_trigger t JOIN refusal r ON r.oid = t.tgfoid AND r.refuses
	WHERE t.tgrelid = g.oid AND t.tgenabled IN ('O', 'A') AND t.tgqual IS NULL AND t.tgnargs = 0 AND t.tgattr = '' AND t.tgtype & 63 = 2 + 8 + 16 + 32)
UNION ALL
SELECT format('trigger %s on %s is none of ours: it can change what is appended', t.tgname, g.relname)
FROM guarded g JOIN pg_trigger t ON t.tgrelid = g.oid
WHERE NOT t.tgisinternal AND t.tgfoid IS DISTINCT FROM (SELECT oid FROM refusal)
UNION ALL
SELECT format('rule %s on %s is none of ours: it can change what is written', r.rulename, g.relname)
FROM guarded g JOIN pg_rewrite r ON r.ev_class = g.oid
UNION ALL
SELECT format('%s may %s %s', CASE a.grantee WHEN 0 THEN 'everybody' ELSE a.grantee::regrole::text END, a.privilege_type, g.relname)
FROM guarded g, LATERAL (
	SELECT x.grantee, x.privilege_type FROM aclexplode(g.relacl) x
	UNION SELECT x.grantee, x.privilege_type FROM pg_attribute b, aclexplode(b.attacl) x WHERE b.attrelid = g.oid
) a
WHERE a.grantee <> g.relowner AND a.privilege_type <> 'SELECT'
	AND NOT (NOT g.events AND a.privilege_type = 'INSERT' AND a.grantee = to_regrole('ledger_service'))
UNION ALL
SELECT format('ledger_service acts as %s, the owner of %s', g.relowner::regrole, g.relname)
FROM guarded g WHERE pg_has_role('ledger_service', g.relowner, 'MEMBER')
UNION ALL
SELECT format('function %s may be called by everybody', p.proname)
FROM pg_proc p
WHERE p.pronamespace = current_schema()::regnamespace AND p.proname IN ('append', 'ensure_partitions')
	AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) x WHERE x.grantee = 0))
UNION ALL
SELECT format('function %s looks names up on its caller''s path', p.proname)
FROM pg_proc p
WHERE p.pronamespace = current_schema()::regnamespace AND p.prosecdef
	AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search_path=%')
ORDER BY 1`
