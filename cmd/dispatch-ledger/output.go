package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// table is rows as they come out of a command: for people, for programs, for spreadsheets.
type table struct {
	columns []string
	rows    [][]string
	values  []any // the same rows for JSON
}

func (t *table) add(value any, cells ...string) {
	t.rows = append(t.rows, cells)
	t.values = append(t.values, value)
}

// print writes a table in the format that --output names.
func (s *settings) print(t table) error {
	switch s.output {
	case "table":
		w := tabwriter.NewWriter(s.env.stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, strings.ToUpper(strings.Join(t.columns, "\t")))
		for _, row := range t.rows {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		return w.Flush()
	case "csv":
		w := csv.NewWriter(s.env.stdout)
		if err := w.Write(t.columns); err != nil {
			return err
		}
		for _, row := range t.rows {
			safe := make([]string, len(row))
			for i, cell := range row {
				safe[i] = harmless(cell)
			}
			if err := w.Write(safe); err != nil {
				return err
			}
		}
		w.Flush()
		return w.Error()
	case "json":
		return s.printJSON(t.values)
	}
	return usagef("--output is %q; it is table, json or csv", s.output)
}

func (s *settings) printJSON(v any) error {
	e := json.NewEncoder(s.env.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// harmless keeps a spreadsheet from taking text for a formula.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func stampOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return stamp(*t)
}
