package schematest

import (
	"database/sql"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Open gives the test a migrated, empty ledger in a database of its own, and drops it when the test ends. The pool is the
// owner's, with the ledger's schema on its search path; for another role, connect to the URL with [schema.Connect].
func Open(t testing.TB) *DB {
	t.Helper()
	return Clone(t, Template{
		Name:    schema.DefaultName,
		Files:   schema.Migrations(),
		Migrate: schema.Migrate,
		Connect: func(databaseURL string) (*sql.DB, error) { return schema.Connect(databaseURL, schema.Options{}) },
	})
}
