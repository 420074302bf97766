package importer

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// The formats of files.
const (
	CSV    = "csv"
	NDJSON = "ndjson"
)

// recordMax bounds one record, in bytes: with more, a quote was left open.
const recordMax = 64 << 10

// ErrFile is a file that cannot be read on: as against one of its records, which is rejected.
var ErrFile = fmt.Errorf("%w: the file cannot be imported", domain.ErrInvalid)

// rows reads a file record by record. A record that cannot be read is yielded as a *RejectedError with its line; an error
// that wraps ErrFile, or comes from the reader, ends the file.
func rows(r io.Reader, format string) iter.Seq2[Row, error] {
	b := bufio.NewReaderSize(r, 64<<10)
	start, _ := b.Peek(3)
	switch {
	case bytes.HasPrefix(start, []byte("\xff\xfe")) || bytes.HasPrefix(start, []byte("\xfe\xff")):
		return failed(fmt.Errorf("%w: it is UTF-16; save it as UTF-8", ErrFile))
	case bytes.HasPrefix(start, []byte("\x1f\x8b")) || bytes.HasPrefix(start, []byte("PK\x03")):
		return failed(fmt.Errorf("%w: it is compressed, or a spreadsheet; save it as CSV in UTF-8", ErrFile))
	case string(start) == "\xef\xbb\xbf":
		b.Discard(3) //nolint:errcheck // just peeked at
	}
	switch format {
	case CSV:
		return csvRows(b)
	case NDJSON:
		return jsonRows(b)
	}
	return failed(fmt.Errorf("%w: its format is %q; there are csv and ndjson", ErrFile, format))
}

func failed(err error) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) { yield(Row{}, err) }
}

// bounded fails when one record takes more than it may.
type bounded struct {
	r    io.Reader
	left int
}

var errTooLong = errors.New("record too long")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func csvRows(r io.Reader) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		limit := &bounded{r: r, left: recordMax}
		lines := csv.NewReader(limit)
		lines.FieldsPerRecord = -1
		heading, err := lines.Read()
		if err != nil {
			yield(Row{}, fmt.Errorf("%w: it has no line of column names: %w", ErrFile, err))
			return
		}
		names, err := header(heading)
		if err != nil {
			yield(Row{}, err)
			return
		}
		for last := int64(1); ; {
			limit.left = recordMax
			fields, err := lines.Read()
			var syntax *csv.ParseError
			switch {
			case errors.Is(err, io.EOF):
				return
			case errors.Is(err, errTooLong):
				yield(Row{Line: last + 1}, fmt.Errorf("%w: the record after line %d is longer than %d bytes; is a quote left open?", ErrFile, last, recordMax))
				return
			case errors.As(err, &syntax):
				last = int64(syntax.Line)
				if !yield(Row{Line: last}, reject("", "is no CSV: %s", syntax.Err)) {
					return
				}
				continue
			case err != nil:
				yield(Row{Line: last}, fmt.Errorf("read the file: %w", err))
				return
			}
			line, _ := lines.FieldPos(0)
			last = int64(line)
			row := Row{Line: last, Values: map[string]string{}}
			if len(fields) == 1 && strings.TrimSpace(fields[0]) == "" && len(names) > 1 {
				continue
			}
			if len(fields) != len(names) {
				if !yield(row, reject("", "has %d fields, and the heading %d", len(fields), len(names))) {
					return
				}
				continue
			}
			for i, name := range names {
				row.Values[name] = strings.TrimSpace(fields[i])
			}
			if !yield(row, row.clean()) {
				return
			}
		}
	}
}

// header names the columns. One that is not known ends the import before it begins: leaving it out would lose what it says.
func header(fields []string) ([]string, error) {
	names := make([]string, len(fields))
	seen := map[string]bool{}
	for i, field := range fields {
		if !utf8.ValidString(field) {
			return nil, fmt.Errorf("%w: it is not UTF-8", ErrFile)
		}
		names[i] = canonical(field)
		switch {
		case names[i] == "":
			return nil, fmt.Errorf("%w: column %d, %q, is not known; rename it, or take it out ('dispatch-ledger consent fields' lists the CRM's names, docs/consent.md the others)", ErrFile, i+1, clip(field))
		case seen[names[i]]:
			return nil, fmt.Errorf("%w: column %d, %q, is there twice", ErrFile, i+1, clip(field))
		}
		seen[names[i]] = true
	}
	if !seen["profile_id"] {
		return nil, fmt.Errorf("%w: it has no column profile_id", ErrFile)
	}
	return names, nil
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

func jsonRows(r *bufio.Reader) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		scan := bufio.NewScanner(r)
		scan.Buffer(make([]byte, 0, recordMax), recordMax)
		line := int64(0)
		for scan.Scan() {
			line++
			text := bytes.TrimSpace(scan.Bytes())
			if len(text) == 0 {
				continue
			}
			row := Row{Line: line, Values: map[string]string{}}
			err := row.object(text)
			if err == nil {
				err = row.clean()
			}
			if !yield(row, err) {
				return
			}
		}
		if err := scan.Err(); errors.Is(err, bufio.ErrTooLong) {
			yield(Row{Line: line + 1}, fmt.Errorf("%w: line %d is longer than %d bytes", ErrFile, line+1, recordMax))
		} else if err != nil {
			yield(Row{Line: line}, fmt.Errorf("read the file: %w", err))
		}
	}
}

// object takes the values of a JSON object: flat, or with attributes.comms and evidence as objects of their own.
func (r *Row) object(text []byte) error {
	var object map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&object); err != nil || object == nil || d.More() {
		return reject("", "is not one JSON object")
	}
	return r.take("", object)
}

func (r *Row) take(prefix string, object map[string]any) error {
	for name, value := range object {
		full := prefix + name
		switch v := value.(type) {
		case map[string]any:
			switch full {
			case "attributes", "comms", "attributes.comms", "evidence":
				if err := r.take(full+".", v); err != nil {
					return err
				}
				continue
			}
			return reject(clip(full), "is an object, which this field is not")
		case []any:
			return reject(clip(full), "is an array, which this field is not")
		case nil:
			value = ""
		}
		known := canonical(full)
		if known == "" {
			return reject(clip(full), "is no field that is known; rename it or leave it out")
		}
		if _, twice := r.Values[known]; twice {
			return reject(clip(full), "is given twice, under two names")
		}
		r.Values[known] = strings.TrimSpace(fmt.Sprint(value))
	}
	return nil
}

// clean refuses what no database takes.
func (r *Row) clean() error {
	for name, value := range r.Values {
		if !utf8.ValidString(value) {
			return reject(name, "is not UTF-8")
		}
		if strings.ContainsRune(value, 0) {
			return reject(name, "holds a NUL byte")
		}
	}
	return nil
}
