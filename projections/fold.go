package projections

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/lib/pq"
)

// fold.sql says how a rebuild spares itself to look each row up by its key, slice after slice, in tables that nobody reads yet. Until
// it has come near the head, its statements stand in for those of apply.sql by the same names: they add rows to tables of the
// same shapes and without keys. Then each table is filled once with what the rows amount to, and gets its key. What comes
// after that goes through apply.sql, as it does in a live projection.
//
// Where rows are collected that come to little, such as what is seen of everybody every night, they would fill the disk: so once they
// take much more than what they last came to, they are folded on the way, into the same kind of table.
//
// Rows are collected and progress is recorded in one transaction, and so is the fold with what is made at the end: an
// interruption finds the one or the other, and goes on. Verify knows nothing of it, and so holds it to apply.sql.

// collected begins the name of the table in which rows for another are collected.
const collected = "collected_"

var foldedName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,45}$`)

// readFold takes fold.sql in; nothing of it, where the text is empty.
func (d *Definition) readFold(text string) error {
	d.Collect = d.Apply
	if strings.TrimSpace(text) == "" {
		return nil
	}
	d.Collect, d.Folds = slices.Clone(d.Apply), under(namedOrFolded, "fold", text, "fold.sql")
	standIns := under(namedOrFolded, "name", text, "fold.sql")
	if len(d.Folds) == 0 || len(standIns) == 0 {
		return errors.New(`it needs the name of a statement of apply.sql, in whose stead rows are collected, after "-- name:", and that of a table, which they are folded into, after "-- fold:"`)
	}
	for _, s := range standIns {
		i := slices.IndexFunc(d.Collect, func(other Statement) bool { return other.Name == s.Name })
		if i < 0 || d.Collect[i].File == s.File {
			return fmt.Errorf("line %d: %q is not the name of a statement of apply.sql, or is there twice", s.Line-1, s.Name)
		}
		s.On = d.Collect[i].On // it collects from what the other is about
		d.Collect[i] = s
	}
	for i, f := range d.Folds {
		if !foldedName.MatchString(f.Name) || slices.ContainsFunc(d.Folds[:i], func(other Statement) bool { return other.Name == f.Name }) {
			return fmt.Errorf("line %d: %q is not the name of a table, in lower case, or is there twice", f.Line-1, f.Name)
		}
	}
	return nil
}

// collecting is the definition as a rebuild runs it until it folds.
func (d Definition) collecting() Definition {
	d.Apply = d.Collect
	return d
}

// WithoutFold is the definition as it would be without a fold.sql: a rebuild of it applies every slice by apply.sql.
func (d Definition) WithoutFold() Definition {
	d.Collect, d.Folds = d.Apply, nil
	d.Digest = sha256.Sum256(append(d.Digest[:], "without fold"...))
	return d
}

// gather makes the tables in which rows are collected.
func (e *Engine) gather(ctx context.Context, tx *sql.Tx, p place, d Definition) error {
	for _, f := range d.Folds {
		f.SQL = fmt.Sprintf("CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS)", collected+f.Name, f.Name)
		f.Line-- // the heading, which names it
		if err := e.run(ctx, tx, p, d, f); err != nil {
			return err
		}
	}
	return nil
}

// foldAt is how many bytes of rows are collected before they are looked at on the way.
const foldAt = 1 << 30

// foldOnTheWay folds what has grown, and leaves it in the place of what was collected.
func (r *run) foldOnTheWay(ctx context.Context) error {
	for _, f := range r.d.Folds {
		n, err := r.collectedSize(ctx, f)
		if err != nil {
			return err
		}
		if n <= max(r.e.foldAt, 3*r.folded[f.Name]) {
			continue
		}
		if err := r.refold(ctx, f); err != nil {
			return err
		}
		if r.folded == nil {
			r.folded = map[string]int64{}
		}
		if r.folded[f.Name], err = r.collectedSize(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// collectedSize is how many bytes the rows take that were collected for a table.
func (r *run) collectedSize(ctx context.Context, f Statement) (n int64, err error) {
	err = r.e.db.QueryRowContext(ctx, `SELECT pg_relation_size(format('%I.%I', $1::text, $2::text))`, r.place.schema, collected+f.Name).Scan(&n)
	return n, err
}

// refold puts in the place of what was collected for a table what that amounts to.
func (r *run) refold(ctx context.Context, f Statement) error {
	tx, err := r.e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, buildSettings); err != nil {
		return err
	}
	f.SQL = fmt.Sprintf("CREATE TABLE %[1]s_anew (LIKE %[1]s INCLUDING DEFAULTS INCLUDING CONSTRAINTS); INSERT INTO %[1]s_anew %[2]s\n; DROP TABLE %[1]s; ALTER TABLE %[1]s_anew RENAME TO %[1]s",
		collected+f.Name, f.SQL)
	if err := r.e.run(ctx, tx, r.place, r.d, f); err != nil {
		return err
	}
	if err := r.autovacuum(ctx, tx, "SET (autovacuum_enabled = off)"); err != nil {
		return err
	}
	return tx.Commit()
}

// fold fills the tables with what was collected for them.
func (e *Engine) fold(ctx context.Context, tx *sql.Tx, p place, d Definition) error {
	for _, f := range d.Folds {
		lift, restore, err := keys(ctx, tx, p.schema, f.Name)
		if err != nil {
			return err
		}
		// On one line before what stands in the file, whose lines a message counts.
		f.SQL = fmt.Sprintf("%s INSERT INTO %s %s\n;%s DROP TABLE %s", lift, f.Name, f.SQL, restore, collected+f.Name)
		if err := e.run(ctx, tx, p, d, f); err != nil {
			return err
		}
	}
	return nil
}

// keys gives the statements that take a table's keys off and that make them again. One that something else depends on, such as a
// foreign key, stays.
func keys(ctx context.Context, tx *sql.Tx, where, table string) (lift, restore string, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT conname, pg_get_constraintdef(c.oid) FROM pg_constraint c
		WHERE conrelid = to_regclass(format('%I.%I', $1::text, $2::text)) AND contype IN ('p', 'u')
			AND NOT EXISTS (SELECT FROM pg_depend WHERE deptype = 'n' AND (refclassid, refobjid) IN (('pg_constraint'::regclass, c.oid), ('pg_class'::regclass, c.conindid)))
		ORDER BY contype, conname`, where, table)
	if err != nil {
		return "", "", err
	}
	defer rows.Close()
	for rows.Next() {
		var name, what string
		if err := rows.Scan(&name, &what); err != nil {
			return "", "", err
		}
		lift += fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s;", table, pq.QuoteIdentifier(name))
		restore += fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s;", table, pq.QuoteIdentifier(name), what)
	}
	return lift, restore, rows.Err()
}
