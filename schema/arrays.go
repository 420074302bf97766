package schema

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/google/uuid"
)

// array builds the text form of a PostgreSQL array. lib/pq's own goes through reflection and one allocation an
// element, which is a fifth of an append.
type array struct{ b []byte }

func (a *array) next() {
	if len(a.b) == 0 {
		a.b = append(a.b, '{')
		return
	}
	a.b = append(a.b, ',')
}

func (a *array) null() {
	a.next()
	a.b = append(a.b, "NULL"...)
}

// text adds a string; an empty one is null.
func (a *array) text(s string) {
	if s == "" {
		a.null()
		return
	}
	a.quoted(s)
}

// quoted adds a string, empty or not.
func (a *array) quoted(s string) {
	a.next()
	a.b = append(a.b, '"')
	for {
		i := strings.IndexAny(s, `"\`)
		if i < 0 {
			break
		}
		a.b = append(append(a.b, s[:i]...), '\\', s[i])
		s = s[i+1:]
	}
	a.b = append(append(a.b, s...), '"')
}

func (a *array) int(n int64) {
	a.next()
	a.b = strconv.AppendInt(a.b, n, 10)
}

func (a *array) uuid(u uuid.UUID) {
	if u == uuid.Nil {
		a.null()
		return
	}
	a.next()
	var text [36]byte
	hex.Encode(text[0:8], u[0:4])
	text[8] = '-'
	hex.Encode(text[9:13], u[4:6])
	text[13] = '-'
	hex.Encode(text[14:18], u[6:8])
	text[18] = '-'
	hex.Encode(text[19:23], u[8:10])
	text[23] = '-'
	hex.Encode(text[24:36], u[10:16])
	a.b = append(a.b, text[:]...)
}

// time adds a time in microseconds; a zero one is null.
func (a *array) time(t time.Time) {
	if t.IsZero() {
		a.null()
		return
	}
	a.next()
	a.b = append(a.b, '"')
	a.b = t.UTC().AppendFormat(a.b, "2006-01-02 15:04:05.999999Z07:00")
	a.b = append(a.b, '"')
}

// bytes adds a bytea; nil is null.
func (a *array) bytes(v []byte) {
	if v == nil {
		a.null()
		return
	}
	a.next()
	a.b = append(a.b, `"\\x`...)
	a.b = hex.AppendEncode(a.b, v)
	a.b = append(a.b, '"')
}

// String closes the array. It is good until the array is written again.
func (a *array) String() string {
	if len(a.b) == 0 {
		return "{}"
	}
	a.b = append(a.b, '}')
	return unsafe.String(unsafe.SliceData(a.b), len(a.b)) //nolint:gosec // a copy of each batch would be a tenth of an append
}
