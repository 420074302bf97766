package schema

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/google/uuid"
)

// array builds a PostgreSQL array in its binary form (array_recv: dimensions, a flag, the elements' type, length and lower
// bound, then each element's length, or -1 for null, and its bytes). The text form costs the server a tenth of all that it
// does while dispatching: parsing braces and quotes, hexadecimal digits and uuids. lib/pq sends what is a []byte as binary.
type array struct {
	b     []byte
	count uint32
	nulls bool
}

// The types of elements, by their number in every PostgreSQL.
const (
	elementBytea       = 17
	elementBigint      = 20
	elementInt         = 23
	elementText        = 25
	elementJSON        = 114
	elementTimestamptz = 1184
	elementUUID        = 2950
)

const arrayHeader = 20 // bytes

// reset empties the array and keeps its buffer.
func (a *array) reset() {
	if cap(a.b) < arrayHeader {
		a.b = make([]byte, arrayHeader, 4096)
	}
	a.b, a.count, a.nulls = a.b[:arrayHeader], 0, false
}

// next begins an element of so many bytes.
func (a *array) next(size int) {
	if len(a.b) < arrayHeader {
		a.reset()
	}
	a.count++
	a.b = binary.BigEndian.AppendUint32(a.b, uint32(size)) //nolint:gosec // at most MaxEvent
}

func (a *array) null() {
	a.next(0)
	a.nulls = true
	binary.BigEndian.PutUint32(a.b[len(a.b)-4:], math.MaxUint32) // -1
}

// text adds a string; an empty one is null.
func (a *array) text(s string) {
	if s == "" {
		a.null()
		return
	}
	a.string(s)
}

// string adds a string, empty or not.
func (a *array) string(s string) {
	a.next(len(s))
	a.b = append(a.b, s...)
}

// int adds a 4-byte integer.
func (a *array) int(n int32) {
	a.next(4)
	a.b = binary.BigEndian.AppendUint32(a.b, uint32(n)) //nolint:gosec // two's complement
}

// bigint adds an 8-byte integer.
func (a *array) bigint(n int64) {
	a.next(8)
	a.b = binary.BigEndian.AppendUint64(a.b, uint64(n)) //nolint:gosec // two's complement
}

func (a *array) uuid(u uuid.UUID) {
	if u == uuid.Nil {
		a.null()
		return
	}
	a.next(len(u))
	a.b = append(a.b, u[:]...)
}

// time adds a time in microseconds; a zero one is null.
func (a *array) time(t time.Time) {
	if t.IsZero() {
		a.null()
		return
	}
	a.bigint(t.UnixMicro() - epoch)
}

// bytes adds a bytea; nil is null.
func (a *array) bytes(v []byte) {
	if v == nil {
		a.null()
		return
	}
	a.next(len(v))
	a.b = append(a.b, v...)
}

// of closes the array, whose elements are of that type. What it returns is good until the array is written again.
func (a *array) of(element uint32) []byte {
	if len(a.b) < arrayHeader {
		a.reset()
	}
	dimensions, flag := uint32(1), uint32(0)
	if a.nulls {
		flag = 1
	}
	if a.count == 0 {
		dimensions = 0
	}
	binary.BigEndian.PutUint32(a.b[0:], dimensions)
	binary.BigEndian.PutUint32(a.b[4:], flag)
	binary.BigEndian.PutUint32(a.b[8:], element)
	binary.BigEndian.PutUint32(a.b[12:], a.count)
	binary.BigEndian.PutUint32(a.b[16:], 1) // where PostgreSQL's arrays begin
	if a.count == 0 {
		return a.b[:12]
	}
	return a.b
}

// UUIDs is an argument for a parameter of type uuid[].
func UUIDs(ids []uuid.UUID) []byte {
	var a array
	a.b = make([]byte, arrayHeader, arrayHeader+20*len(ids))
	for _, id := range ids {
		a.next(len(id))
		a.b = append(a.b, id[:]...)
	}
	return a.of(elementUUID)
}

// byteas is an argument for a parameter of type bytea[].
func byteas(values [][]byte) []byte {
	var a array
	for _, v := range values {
		a.bytes(v)
	}
	return a.of(elementBytea)
}
