package schema_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// lent gives a pool that goes through a PgBouncer with few connections, and the database behind it.
func lent(t *testing.T, size int) (*sql.DB, *schematest.DB) {
	t.Helper()
	database := schematest.Open(t)
	db, err := schema.Connect(schematest.Pooler(t, database.URL, size), schema.Options{Role: "ledger_service", Generic: true, Direct: database.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db, database
}

func TestAPoolerLendsTransactions(t *testing.T) {
	t.Parallel()
	const connections, callers, each = 2, 24, 15
	db, _ := lent(t, connections)
	l := schema.OpenLedger(db, nil, nil)
	defer l.Close()
	_, master := randomMasterKey(t)
	vault := openVault(t, db, master, newHands())
	reads := schema.NewPrepared(db)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			if err := askThroughPooler(t.Context(), db, l, vault, reads, c, each); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := int64(0)
	for e, err := range schema.Stream(t.Context(), db, 0, callers*each*2) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; e.Position != n {
			t.Fatalf("event %d is read as the %dth", e.Position, n)
		}
	}
	if n != callers*each*2 {
		t.Errorf("%d events, want %d", n, callers*each*2)
	}
}

// askThroughPooler does everything that the program does with a database, many times over.
func askThroughPooler(ctx context.Context, db *sql.DB, l *schema.Ledger, vault *schema.Vault, reads *schema.Prepared, caller, times int) error {
	for i := range times {
		if _, err := l.Append(ctx, event(fmt.Sprint("s-", caller), fmt.Sprintf(`{"i":%d}`, i))); err != nil {
			return err
		}
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := l.AppendTx(ctx, tx, event("tx", `{}`)); err != nil {
			return err
		}
		var role, path string
		if err := reads.In(tx).QueryRowContext(ctx, `SELECT current_user, current_setting('search_path') WHERE $1 > 0`, 1).Scan(&role, &path); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		if role != "ledger_service" || path != "ledger" {
			return fmt.Errorf("works as %s on %s", role, path)
		}
		var version int64
		if err := reads.QueryRowContext(ctx, `SELECT max(version) FROM events WHERE stream = $1 AND current_user = 'ledger_service'`, fmt.Sprint("s-", caller)).Scan(&version); err != nil {
			return err
		}
		if version != int64(i+1) {
			return fmt.Errorf("after append %d the stream is at version %d", i+1, version)
		}
		if _, err := vault.Sealer(ctx, []uuid.UUID{uuid.New()}); err != nil {
			return err
		}
	}
	return nil
}

// A statement that changes something and answers is only done when its transaction is, which the reader must hear.
func TestAPoolersAnswerIncludesTheCommit(t *testing.T) {
	t.Parallel()
	db, owner := lent(t, 1)
	if _, err := owner.ExecContext(t.Context(), `CREATE TABLE chosen (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON chosen TO ledger_service; INSERT INTO chosen VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	unique := func(err error) bool {
		var pqErr *pq.Error
		return errors.As(err, &pqErr) && pqErr.Code.Name() == "unique_violation"
	}
	rows, err := db.QueryContext(t.Context(), `INSERT INTO chosen VALUES ($1) RETURNING n`, 1)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
	}
	if err := rows.Err(); !unique(err) {
		t.Errorf("rows of a statement whose commit is refused end with %v", err)
	}
	rows.Close() //nolint:sqlclosecheck // what comes next needs the one connection
	var n int
	if err := db.QueryRowContext(t.Context(), `INSERT INTO chosen VALUES ($1) RETURNING n`, 1).Scan(&n); !unique(err) {
		t.Errorf("a row of a statement whose commit is refused ends with %v", err)
	}
	if _, err := db.ExecContext(t.Context(), `INSERT INTO chosen VALUES ($1)`, 1); !unique(err) {
		t.Errorf("a statement whose commit is refused ends with %v", err)
	}
	// What is left half read, or fails, or is prepared, leaves the one connection as it was.
	rows, err = db.QueryContext(t.Context(), `SELECT generate_series(1, $1)`, 100_000) //nolint:rowserrcheck // it is left half read
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	if err := rows.Close(); err != nil { //nolint:sqlclosecheck // what comes next needs the one connection
		t.Error(err)
	}
	if _, err := db.ExecContext(t.Context(), `SELECT 1 / 0`); err == nil {
		t.Error("a division by zero is no error")
	}
	kept, err := db.PrepareContext(t.Context(), `SELECT $1::int + 1`)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	for i := range 3 {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		copying, err := tx.PrepareContext(t.Context(), pq.CopyIn("chosen", "n")) //nolint:staticcheck // it quotes the names
		if err != nil {
			t.Fatal(err)
		}
		if _, err := copying.ExecContext(t.Context(), 10+i); err != nil {
			t.Fatal(err)
		}
		if _, err := copying.ExecContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := copying.Close(); err != nil { //nolint:sqlclosecheck // before the commit, as everybody does
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := kept.QueryRowContext(t.Context(), i).Scan(&n); err != nil || n != i+1 {
			t.Errorf("a prepared statement answers %d, %v", n, err)
		}
	}
	var prepared, all int
	if err := db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM chosen)`).Scan(&prepared, &all); err != nil || prepared > 0 || all != 4 {
		t.Errorf("%d statements stay prepared on the server, %d rows, %v; want none and 4", prepared, all, err)
	}
}

func TestAPoolersURLWhereASessionIsNeeded(t *testing.T) {
	t.Parallel()
	pooled := schematest.Pooler(t, schematest.Open(t).URL, 1)
	db, err := schema.Connect(pooled, schema.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := schema.Migrate(t.Context(), db); !errors.Is(err, schema.ErrPooler) {
		t.Errorf("migrating through a pooler = %v, want ErrPooler", err)
	}
}
