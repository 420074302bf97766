package platforms

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
	"unicode"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Columns says how a platform's own export names what an import needs. Each lists the headings in use, in any case
// and with any punctuation: "Email Address", "email_address" and "EMAIL ADDRESS" are one.
type Columns struct {
	Email     []string
	Phone     []string
	NativeKey []string
	Reason    []string // of the suppression, or the status
	At        []string // when it was suppressed
	Region    string   // ISO 3166 country that a phone number without a + is read in; empty: international numbers only

	// Read maps the reason column's text. It is called with empty text for a file without such a column, where being
	// on the list says it all; a blank cell of such a column is no suppression, and is not asked about.
	Read func(native string) (State, Reason)
	Zone *time.Location // of times without a zone; nil: UTC
}

// ErrImport says that a file, or one of its rows, cannot be read as an export of the platform.
var ErrImport = errors.New("import")

// Import reads a platform's export row by row. A row that cannot be read is yielded as an error that names its line,
// and reading goes on: one bad address must not keep a thousand opt-outs out. A file without a heading for an
// address yields one error and ends.
func (c Columns) Import(r io.Reader, now func() time.Time) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		lines := csv.NewReader(skipBOM(r))
		lines.FieldsPerRecord = -1
		lines.ReuseRecord = true
		heading, err := lines.Read()
		if err != nil {
			yield(Record{}, fmt.Errorf("%w: the file has no heading row: %w", ErrImport, err))
			return
		}
		at := map[string]int{}
		for i, name := range heading {
			if _, taken := at[fold(name)]; !taken {
				at[fold(name)] = i
			}
		}
		email, phone := find(at, c.Email), find(at, c.Phone)
		if email < 0 && phone < 0 {
			yield(Record{}, fmt.Errorf("%w: no column is called %s; the file has: %s", ErrImport,
				strings.Join(append(append([]string{}, c.Email...), c.Phone...), ", "), strings.Join(heading, ", ")))
			return
		}
		places := places{email: email, phone: phone, key: find(at, c.NativeKey), reasons: all(at, c.Reason), times: all(at, c.At)}
		for {
			row, err := lines.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				var syntax *csv.ParseError // names its line; without one the reader itself failed, and there is no next
				if !yield(Record{}, fmt.Errorf("%w: %w", ErrImport, err)) || !errors.As(err, &syntax) {
					return
				}
				continue
			}
			line, _ := lines.FieldPos(0)
			records, err := c.row(row, places, now())
			if err != nil && !yield(Record{}, fmt.Errorf("%w: line %d: %w", ErrImport, line, err)) {
				return
			}
			for _, record := range records {
				if !yield(record, nil) {
					return
				}
			}
		}
	}
}

// places are the columns of one file; -1 or empty: it has none.
type places struct {
	email, phone, key int
	reasons, times    []int
}

// row makes a record for each address of a row.
func (c Columns) row(row []string, p places, now time.Time) ([]Record, error) {
	cell := func(i int) string {
		if i < 0 || i >= len(row) {
			return ""
		}
		return strings.TrimSpace(row[i])
	}
	zone := c.Zone
	if zone == nil {
		zone = time.UTC
	}
	filled := func(columns []int) string {
		for _, i := range columns {
			if text := cell(i); text != "" && text != "[]" {
				return strings.Clone(text)
			}
		}
		return ""
	}
	native := filled(p.reasons)
	state, why := NoConsent, NeverAsked
	if native != "" || len(p.reasons) == 0 {
		state, why = c.Read(native)
	}
	at, precision := ParseTime(filled(p.times), zone)
	base := Record{
		NativeKey: strings.Clone(cell(p.key)), State: state, Scope: Scope{Kind: Global}, ObservedAt: now,
		Facts: []Fact{{Reason: why, Native: native, At: at, Precision: precision}},
	}
	var records []Record
	var errs []error
	if text := cell(p.email); text != "" {
		value, err := domain.NormalizeEmail(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("email: %w", err))
		} else {
			base.Addr = Address{Channel: domain.Email, Value: value}
			records = append(records, base)
		}
	}
	if text := cell(p.phone); text != "" && p.email < 0 { // a suppressed email says nothing about the phone beside it
		value, err := domain.NormalizePhone(text, c.Region)
		if err != nil {
			errs = append(errs, fmt.Errorf("phone: %w", err))
		} else {
			base.Addr = Address{Channel: domain.SMS, Value: value}
			records = append(records, base)
		}
	}
	if len(records) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("the row has no address"))
	}
	return records, errors.Join(errs...)
}

func find(at map[string]int, names []string) int {
	for _, name := range names {
		if i, ok := at[fold(name)]; ok {
			return i
		}
	}
	return -1
}

// all are the columns that a file has of those named, in the order named.
func all(at map[string]int, names []string) []int {
	var columns []int
	for _, name := range names {
		if i, ok := at[fold(name)]; ok {
			columns = append(columns, i)
		}
	}
	return columns
}

// fold keeps letters and digits, in lower case.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, name)
}

// skipBOM drops the byte order mark that spreadsheets write.
func skipBOM(r io.Reader) io.Reader {
	b := bufio.NewReader(r)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" {
		_, _ = b.Discard(3) // just peeked at
	}
	return b
}
