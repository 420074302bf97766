// Package schematest gives each test a real PostgreSQL database of its own, in some tens of milliseconds, with no set-up.
//
//	db := schematest.Open(t) // a migrated, empty ledger; dropped when the test ends
//
// A database is a clone of a template (CREATE DATABASE … TEMPLATE …), and a template is migrated once: its name holds a hash of
// the migrations, so that a change makes a new one.
//
// The server is the one that DISPATCH_LEDGER_TEST_DATABASE_URL names, by a role that may create databases and roles.
// Without it the first test of a test binary starts a private one, through package schema/local, that lives as long as
// the binary. Its cluster is a slot in the user's cache directory that the binary locks: binaries that run at the same
// time take different slots, and the next run finds cluster and templates as they were left. No server is shared, so none
// has to be found, counted or waited for, and what a killed test left behind is swept by the slot's next owner.
//
// The tests of package schema itself are in package schema_test, because this package imports it.
//
// [NewServer] is for tests that kill the server: it gives a whole one.
package schematest
