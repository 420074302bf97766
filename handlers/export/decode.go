package export

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// lineMax bounds a line of NDJSON: an event is far below it.
const lineMax = 64 << 20

// ndjsonRows reads the rows of NDJSON.
func ndjsonRows(f *os.File) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		s := bufio.NewScanner(f)
		s.Buffer(nil, lineMax)
		for s.Scan() {
			var l line
			dec := json.NewDecoder(bytes.NewReader(s.Bytes()))
			dec.DisallowUnknownFields()
			err := dec.Decode(&l)
			if err == nil && dec.More() {
				err = errors.New("a line holds more than one row")
			}
			row := l.row()
			if !yield(&row, err) || err != nil {
				return
			}
		}
		if err := s.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// csvRows reads the rows of CSV.
func csvRows(f *os.File) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		r := csv.NewReader(bufio.NewReaderSize(f, 1<<20))
		r.ReuseRecord = true
		head, err := r.Read()
		if err == nil && !slices.Equal(head, columns) {
			err = fmt.Errorf("its columns are %q", head)
		}
		for err == nil {
			var cells []string
			if cells, err = r.Read(); errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				var row Row
				if row, err = rowOfCells(cells); !yield(&row, err) || err != nil {
					return
				}
			}
		}
		yield(nil, err)
	}
}

// rowOfCells reads a row of CSV; it has as many cells as there are columns.
func rowOfCells(cells []string) (Row, error) {
	var l line
	var errs []error
	whole := func(i int) int64 {
		n, err := strconv.ParseInt(cells[i], 10, 64)
		errs = append(errs, err)
		return n
	}
	id := func(i int) (id uuid.UUID) {
		if cells[i] != "" {
			var err error
			id, err = uuid.Parse(cells[i])
			errs = append(errs, err)
		}
		return id
	}
	at := func(i int) (t time.Time) {
		if cells[i] != "" {
			var err error
			t, err = time.Parse(time.RFC3339Nano, cells[i])
			errs = append(errs, err)
		}
		return t
	}
	raw := func(i int) []byte {
		if cells[i] == "" {
			return nil
		}
		b, err := base64.StdEncoding.DecodeString(cells[i])
		errs = append(errs, err)
		return b
	}
	text := func(i int) string { return strings.TrimPrefix(cells[i], "'") }
	l.Position, l.ID, l.Type, l.Stream, l.Version, l.Subject = whole(0), id(1), text(2), text(3), whole(4), id(5)
	l.Channel, l.Purpose, l.State, l.Target, l.DeliveryID = text(6), text(7), text(8), text(9), id(10)
	l.OccurredAt, l.RecordedAt, l.Actor, l.Source, l.CorrelationID, l.CausationID = at(11), at(12), text(13), text(14), id(15), id(16)
	l.Data, l.Sealed, l.SealedSHA256, l.Leaf = []byte(text(17)), raw(18), raw(19), raw(20)
	return l.row(), errors.Join(errs...)
}
