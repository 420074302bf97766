package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// place is the SQL schema that a projection's statements work in.
type place struct {
	schema string
	own    bool  // an analyst's: what runs here can write here and nowhere else
	desk   *desk // on which a slice may lie that its statements read; nil: they read the ledger
}

// StatementError is a statement of a projection that PostgreSQL refused, and where it stands.
type StatementError struct {
	Projection string
	File       string // tables.sql, indexes.sql, apply.sql or fold.sql
	Statement  string // its heading there
	Line       int    // of the file, from 1; 0 where PostgreSQL names no place
	Err        error
}

func (e *StatementError) Error() string {
	where := e.File
	if e.Line > 0 {
		where += " line " + strconv.Itoa(e.Line)
	}
	if e.Statement != "" {
		where += fmt.Sprintf(", statement %q", e.Statement)
	}
	return fmt.Sprintf("projection %s, %s: %s", e.Projection, where, said(e.Err))
}

// Unwrap gives PostgreSQL's error.
func (e *StatementError) Unwrap() error { return e.Err }

// said is PostgreSQL's message with what it adds to it.
func said(err error) string {
	var pqErr *pq.Error
	if !errors.As(err, &pqErr) {
		return err.Error()
	}
	text := pqErr.Message
	if pqErr.Detail != "" {
		text += "; " + pqErr.Detail
	}
	if pqErr.Hint != "" {
		text += "; " + pqErr.Hint
	}
	return text
}

// create makes a schema with the projection's tables in it, without what only readers need.
func (e *Engine) create(ctx context.Context, tx *sql.Tx, p place, d Definition) error {
	if p.own {
		if _, err := tx.ExecContext(ctx, `SELECT make_own_schema($1)`, p.schema); err != nil {
			return err
		}
	} else {
		quoted := pq.QuoteIdentifier(p.schema)
		if _, err := tx.ExecContext(ctx, "CREATE SCHEMA "+quoted+"; GRANT USAGE ON SCHEMA "+quoted+" TO ledger_reader; "+
			"ALTER DEFAULT PRIVILEGES IN SCHEMA "+quoted+" GRANT SELECT ON TABLES TO ledger_reader"); err != nil {
			return err
		}
	}
	return e.run(ctx, tx, p, d, Statement{SQL: d.Tables, File: "tables.sql", Line: 1})
}

// index makes what only readers need.
func (e *Engine) index(ctx context.Context, tx *sql.Tx, p place, d Definition) error {
	if strings.TrimSpace(d.Indexes) == "" {
		return nil
	}
	return e.run(ctx, tx, p, d, Statement{SQL: d.Indexes, File: "indexes.sql", Line: 1})
}

// enter and leave bracket statements that work in a place: its own schema comes first, then the ledger's. What lies on a desk
// goes before both.
func (e *Engine) enter(p place, laid bool) string {
	path := pq.QuoteIdentifier(p.schema) + ", " + pq.QuoteIdentifier(e.name)
	if laid {
		path = "pg_temp, " + path
	} else {
		path += ", pg_temp"
	}
	return "SET LOCAL search_path = " + path + ";\n"
}

func (e *Engine) leave() string {
	paths := []string{pq.QuoteIdentifier(e.name)}
	for _, p := range Paths(e.name, e.all...) {
		paths = append(paths, pq.QuoteIdentifier(p))
	}
	return ";\nSET LOCAL search_path = " + strings.Join(paths, ", ")
}

// wear makes a text run under the role of its place.
func (e *Engine) wear(p place, text string) string {
	if !p.own {
		return text
	}
	return fmt.Sprintf("SELECT %s.check_own_schema(%s); SELECT %s.ledger_run(%s)",
		pq.QuoteIdentifier(e.name), pq.QuoteLiteral(p.schema), pq.QuoteIdentifier(p.schema), pq.QuoteLiteral(text))
}

// run runs one text in a place. An error about the text is a *StatementError.
func (e *Engine) run(ctx context.Context, tx *sql.Tx, p place, d Definition, s Statement) error {
	before := e.enter(p, false)
	_, err := tx.ExecContext(ctx, before+e.wear(p, s.SQL)+e.leave())
	if err == nil || schema.Transient(err) || ctx.Err() != nil {
		return err
	}
	out := &StatementError{Projection: d.Name, File: s.File, Statement: s.Name, Err: err}
	if line := lineOf(err, before+s.SQL, before); line > 0 {
		out.Line = s.Line + line - 1
	}
	return out
}

// lineOf is the line of the text behind a prefix that PostgreSQL points at, from 1; 0 when it points at none. What runs in a
// function is pointed at within the function's text.
func lineOf(err error, text, prefix string) int {
	var pqErr *pq.Error
	if !errors.As(err, &pqErr) {
		return 0
	}
	at := pqErr.Position
	if pqErr.InternalPosition != "" {
		at, text, prefix = pqErr.InternalPosition, strings.TrimPrefix(text, prefix), ""
	}
	character, convErr := strconv.Atoi(at)
	runes := []rune(text)
	if convErr != nil || character < 1 || character > len(runes)+1 {
		return 0
	}
	return strings.Count(string(runes[:character-1]), "\n") - strings.Count(prefix, "\n") + 1
}

// apply runs the projection's statements for a slice in a place. The caller has set the slice.
//
// They travel in one round trip. Which of them failed, PostgreSQL does not say; so for the one event at which they fail,
// they are run one by one.
func (e *Engine) apply(ctx context.Context, tx *sql.Tx, p place, d Definition, s schema.Slice) error {
	return e.applyIf(ctx, tx, p, d, s, "")
}

// applyIf is apply behind a statement of ours that must hold, in the same round trip.
func (e *Engine) applyIf(ctx context.Context, tx *sql.Tx, p place, d Definition, s schema.Slice, condition string) error {
	statements := d.For(s)
	if statements == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, condition+e.enter(p, p.desk.holds(s))+e.wear(p, statements)+e.leave())
	if err == nil || s.Len() > 1 || schema.Transient(err) || ctx.Err() != nil || isOutdated(err) {
		return err
	}
	if again := schema.Again(ctx, tx, s); again != nil {
		return again
	}
	for _, statement := range d.Apply {
		if len(statement.On) > 0 && !s.MayHold(statement.On...) {
			continue
		}
		if err := e.run(ctx, tx, p, d, statement); err != nil {
			return err
		}
	}
	return err
}
