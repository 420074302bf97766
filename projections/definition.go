package projections

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Definition is a projection: the tables it has and what a slice of the ledger does to them.
type Definition struct {
	Name    string
	Version int    // raised when the SQL changes meaning; the projection is then rebuilt and swapped in
	Tables  string // tables.sql
	Indexes string // indexes.sql, or empty: what only readers need, made after a rebuild has replayed the ledger
	Apply   []Statement
	Source  string            // apply.sql, which Apply was read from
	Collect []Statement       // Apply as a rebuild runs it until it folds; the same where there is no fold.sql
	Folds   []Statement       // of fold.sql, named after the tables that they fill
	Linger  time.Duration     // how long the live projection lets events gather; see schema.Subscription
	Yield   time.Duration     // the same under load
	Most    int               // events in a slice of the live projection; 0: as many as the engine takes
	Digest  [sha256.Size]byte // of the files
}

// Statement is one statement of a file, under its heading.
type Statement struct {
	Name string   // from "-- name:"
	On   []string // event types it reads, from "-- on:"; empty means any
	SQL  string
	File string // which it stands in
	Line int    // of the file at which SQL begins, from 1
}

var definitionName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

// Define reads tables.sql, apply.sql and, where there are any, indexes.sql and fold.sql. It panics on a mistake, which a program's own projections make at start.
func Define(name string, version int, files fs.FS) Definition {
	d, err := Load(name, version, files)
	if err != nil {
		panic(err)
	}
	return d
}

// InSlicesOf bounds the slices of the live projection: what one slice holds is seen when all of it is applied, so whoever waits
// for a single event of a burst waits for a small slice.
func (d Definition) InSlicesOf(most int) Definition {
	d.Most = most
	return d
}

// Lingering gives the definition with a time for which its live projection lets events gather.
func (d Definition) Lingering(t time.Duration) Definition {
	d.Linger = t
	return d
}

// Yielding gives the definition with a time for which its live projection lets events gather under load.
func (d Definition) Yielding(t time.Duration) Definition {
	d.Yield = t
	return d
}

// Load is Define for a projection that comes from outside.
func Load(name string, version int, files fs.FS) (Definition, error) {
	if !definitionName.MatchString(name) {
		return Definition{}, fmt.Errorf("projection name %q: use lower-case letters, digits and _, starting with a letter", name)
	}
	tables, err := fs.ReadFile(files, "tables.sql")
	if err != nil {
		return Definition{}, fmt.Errorf("projection %s has no tables.sql: %w", name, err)
	}
	apply, err := fs.ReadFile(files, "apply.sql")
	if err != nil {
		return Definition{}, fmt.Errorf("projection %s has no apply.sql: %w", name, err)
	}
	indexes, err := optional(files, "indexes.sql")
	if err != nil {
		return Definition{}, fmt.Errorf("projection %s: %w", name, err)
	}
	fold, err := optional(files, "fold.sql")
	if err != nil {
		return Definition{}, fmt.Errorf("projection %s: %w", name, err)
	}
	d := Definition{Name: name, Version: version, Tables: string(tables), Indexes: string(indexes), Apply: statements(string(apply)), Source: string(apply)}
	content := [][]byte{tables, apply}
	if len(indexes) > 0 || len(fold) > 0 {
		content = append(content, indexes)
	}
	if len(fold) > 0 {
		content = append(content, fold)
	}
	d.Digest = sha256.Sum256(bytes.Join(content, []byte{0}))
	if len(d.Apply) == 0 {
		return Definition{}, fmt.Errorf("projection %s: apply.sql holds no statement", name)
	}
	if err := d.readFold(string(fold)); err != nil {
		return Definition{}, fmt.Errorf("projection %s, fold.sql: %w", name, err)
	}
	return d, nil
}

// optional reads a file that need not be there.
func optional(files fs.FS, name string) ([]byte, error) {
	content, err := fs.ReadFile(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return content, err
}

// statements splits apply.sql at its "-- name:" headings; what stands before the first is a comment. A file without
// headings is one statement.
func statements(text string) []Statement {
	const file = "apply.sql"
	if out := under(named, "name", text, file); len(out) > 0 {
		return out
	}
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return []Statement{{Name: "apply", On: typesOn(text), SQL: text, File: file, Line: 1}}
}

// Headings of apply.sql, and of fold.sql.
var (
	named         = regexp.MustCompile(`(?m)^-- (name):(.*)(\n|\z)`)
	namedOrFolded = regexp.MustCompile(`(?m)^-- (name|fold):(.*)(\n|\z)`)
)

// under gives the statements of a file that stand under headings of a kind, each up to the next heading of any.
func under(headings *regexp.Regexp, kind, text, file string) (out []Statement) {
	all := headings.FindAllStringSubmatchIndex(text, -1)
	for i, at := range all {
		end := len(text)
		if i+1 < len(all) {
			end = all[i+1][0]
		}
		if text[at[2]:at[3]] == kind {
			body := text[at[1]:end]
			out = append(out, Statement{Name: strings.TrimSpace(text[at[4]:at[5]]), On: typesOn(body), SQL: body, File: file, Line: strings.Count(text[:at[1]], "\n") + 1})
		}
	}
	return out
}

// typesOn reads the "-- on:" lines of a statement.
func typesOn(body string) (types []string) {
	for line := range strings.Lines(body) {
		if list, ok := strings.CutPrefix(line, "-- on:"); ok {
			for t := range strings.SplitSeq(list, ",") {
				types = append(types, strings.TrimSpace(t))
			}
		}
	}
	return types
}

// Types lists the event types that the projection reads; nil means any.
func (d Definition) Types() []string {
	var types []string
	for _, s := range d.Apply {
		if len(s.On) == 0 {
			return nil
		}
		types = append(types, s.On...)
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// For gives the statements that a slice calls for, as one text: without parameters they travel in one round trip.
func (d Definition) For(s schema.Slice) string {
	var b strings.Builder
	for _, st := range d.Apply {
		if len(st.On) == 0 || s.MayHold(st.On...) {
			b.WriteString(st.SQL)
			b.WriteString("\n")
		}
	}
	return b.String()
}

// SubscriptionName is the cursor of the live projection.
func (d Definition) SubscriptionName() string { return "projection." + d.Name }
