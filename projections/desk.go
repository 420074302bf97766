package projections

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// desk is a session of its own on which a slice lies open for several projections: its events were read once and put into
// temporary tables, one for each type, behind a view of the name slice. A statement about some types reads those tables and
// nothing else, where it would have read the whole slice. What lies there is gone with each transaction.
//
// A desk serves our own projections alone, so sealed data and leaves are left out: none of them reads those.
type desk struct {
	e     *Engine
	conn  *sql.Conn
	types []string // that have a table, in the order of the tables' numbers
	met   []string // that lay among the others last time: they get a table before the next
	laid  bounds   // what lies on it, in the transaction at hand
	held  []string // types of what lies on it
}

// deskColumns are those of the view slice, but for sealed and leaf.
const deskColumns = "position, id, type, stream, version, subject, channel, purpose, state, target, delivery_id, occurred_at, recorded_at, actor, source, correlation_id, causation_id, data"

// openDesk takes a session for it. A slice of 100,000 events fits into its buffers, and needs no file then.
func (e *Engine) openDesk(ctx context.Context) (*desk, error) {
	conn, err := schema.Direct(e.db).Conn(ctx)
	if err != nil {
		return nil, err
	}
	d := &desk{e: e, conn: conn}
	// A session that has used a temporary table before keeps the buffers that it has.
	_, _ = conn.ExecContext(ctx, "SET temp_buffers = '96MB'")
	tables := fmt.Sprintf(`CREATE TEMP TABLE laid AS SELECT %s FROM %s.slice WHERE false;
		CREATE TEMP TABLE sorted (LIKE laid) PARTITION BY LIST (type) ON COMMIT DELETE ROWS;
		CREATE TEMP TABLE sorted_others PARTITION OF sorted DEFAULT ON COMMIT DELETE ROWS`, deskColumns, pq.QuoteIdentifier(e.name))
	if _, err := conn.ExecContext(ctx, tables); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// close ends the session, and with it everything on it.
func (d *desk) close() { schema.Discard(d.conn) }

// lay reads the events of a slice that are of the types wanted, or all of them, and lays them out in this transaction. Which types
// those are is seen from where they came to lie.
func (d *desk) lay(ctx context.Context, tx *sql.Tx, s schema.Slice, wanted []string) error {
	d.laid = bounds{}
	var b strings.Builder
	for _, t := range d.met {
		d.types = append(d.types, t)
		fmt.Fprintf(&b, "CREATE TEMP TABLE sorted_%d PARTITION OF sorted FOR VALUES IN (%s) ON COMMIT DELETE ROWS;\n", len(d.types), pq.QuoteLiteral(t))
	}
	fmt.Fprintf(&b, "SET LOCAL ledger.slice_from = '%d'; SET LOCAL ledger.slice_to = '%d';\n", s.From, s.To)
	fmt.Fprintf(&b, "INSERT INTO sorted SELECT %s FROM %s.slice", deskColumns, pq.QuoteIdentifier(d.e.name))
	if wanted != nil {
		quoted := make([]string, len(wanted))
		for i, t := range wanted {
			quoted[i] = pq.QuoteLiteral(t)
		}
		fmt.Fprintf(&b, " WHERE type IN (%s)", strings.Join(quoted, ", "))
	}
	// The type stands in the view as a constant, which rules the other tables out before anything is read.
	b.WriteString(";\nCREATE OR REPLACE TEMP VIEW slice AS SELECT * FROM pg_temp.sorted_others")
	columns := strings.Replace(deskColumns, "type", "%s::text COLLATE \"C\" AS type", 1)
	for i, t := range d.types {
		fmt.Fprintf(&b, " UNION ALL SELECT "+columns+" FROM pg_temp.sorted_%d", pq.QuoteLiteral(t), i+1)
	}
	if _, err := tx.ExecContext(ctx, b.String()); err != nil {
		return fmt.Errorf("lay out events %s: %w", s, err)
	}
	held := "SELECT DISTINCT type FROM pg_temp.sorted_others"
	for i, t := range d.types {
		held += fmt.Sprintf(" UNION ALL SELECT %s WHERE EXISTS (SELECT FROM pg_temp.sorted_%d)", pq.QuoteLiteral(t), i+1)
	}
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(array_agg(type), '{}') FROM ("+held+") held").Scan(pq.Array(&d.held)); err != nil {
		return fmt.Errorf("types of events %s: %w", s, err)
	}
	d.met = slices.DeleteFunc(slices.Clone(d.held), func(t string) bool { return slices.Contains(d.types, t) })
	d.laid = bounds{s.From, s.To}
	return nil
}

// holds reports whether a slice is the one that lies there; a part of it is read from the ledger.
func (d *desk) holds(s schema.Slice) bool { return d != nil && d.laid == bounds{s.From, s.To} }
