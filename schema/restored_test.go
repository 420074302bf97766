package schema_test

import (
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// A dump holds nothing of what was granted on the database itself: what migrates a restored one gives it back.
func TestARestoredDatabaseIsAsItWas(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t)
	if _, err := db.ExecContext(t.Context(), `DO $$ BEGIN
		EXECUTE format('REVOKE ALL ON DATABASE %I FROM ledger_service', current_database());
		EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
	END $$`); err != nil {
		t.Fatal(err)
	}
	may := func() (may bool) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), `SELECT has_database_privilege('ledger_service', current_database(), 'CREATE') AND has_database_privilege('ledger_service', current_database(), 'TEMPORARY')`).Scan(&may); err != nil {
			t.Fatal(err)
		}
		return may
	}
	if may() {
		t.Fatal("nothing was taken away")
	}
	if err := schema.Migrate(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	if !may() {
		t.Error("the service may not build projections in a restored database")
	}
}
