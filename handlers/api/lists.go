package api

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Page is the part of a list that was asked for.
type Page[T any] struct {
	Items []T     `json:"items" nullable:"false"`
	Next  *string `json:"next" doc:"Pass it as cursor, with the same filters, for what follows; null at the end."`
}

// Listed is what a list's operation answers.
type Listed[T any] struct{ Body Page[T] }

// pageOf cuts the one item too many that was read to learn whether more follows, and names the cursor of the rest.
func pageOf[T any](list string, items []T, limit int, key func(T) string) Page[T] {
	if items == nil {
		items = []T{}
	}
	if len(items) <= limit {
		return Page[T]{Items: items}
	}
	items = items[:limit]
	next := encodeCursor(list, key(items[limit-1]))
	return Page[T]{Items: items, Next: &next}
}

// Paging holds the parameters of every list.
type Paging struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"The most items to answer."`
	Cursor string `query:"cursor" maxLength:"1024" doc:"The value of next from the page before."`
}

// encodeCursor makes an opaque cursor of the last item's key. The list's name is in it, so that a cursor of another
// list is told apart instead of leading somewhere.
func encodeCursor(list, key string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(list + ":" + key))
}

// decodeCursor gives the key, "" for no cursor.
func decodeCursor(list, cursor string) (string, error) {
	if cursor == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	key, ok := strings.CutPrefix(string(text), list+":")
	if err != nil || !ok || key == "" {
		return "", errBadCursor
	}
	return key, nil
}

// positionCursor is decodeCursor for lists in the order of positions, 0 for no cursor.
func positionCursor(list, cursor string) (int64, error) {
	key, err := decodeCursor(list, cursor)
	if err != nil || key == "" {
		return 0, err
	}
	position, err := strconv.ParseInt(key, 10, 64)
	if err != nil || position < 0 {
		return 0, errBadCursor
	}
	return position, nil
}

// badParameter is a parameter that does not fit.
func badParameter(name, format string, args ...any) error {
	p := kindOf(domain.ErrInvalid).problem(nil)
	p.Errors = []ProblemField{{Parameter: name, Detail: fmt.Sprintf(format, args...)}}
	return p
}

// parseUUID reads a parameter that is one; empty is the zero UUID.
func parseUUID(parameter, value string) (uuid.UUID, error) {
	if value == "" {
		return uuid.Nil, nil
	}
	id, err := uuid.Parse(value)
	if err != nil || len(value) != 36 || id == uuid.Nil {
		return uuid.Nil, badParameter(parameter, "is not a UUID")
	}
	return id, nil
}

// parseTime reads a parameter that is a time; empty is the zero time.
func parseTime(parameter, value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil || t.Year() < 1 {
		return time.Time{}, badParameter(parameter, "is not a time as in RFC 3339, such as 2026-11-23T04:05:06Z")
	}
	return t, nil
}

// parsePeriod reads the parameters from and to.
func parsePeriod(from, to string) (f, t time.Time, err error) {
	if f, err = parseTime("query.from", from); err == nil {
		t, err = parseTime("query.to", to)
	}
	return f, t, err
}

// optional is nil for the zero value, which JSON shows as null.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// utc gives a time in UTC, nil for the zero time.
func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// utcOf is utc for a time that may be absent.
func utcOf(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return utc(*t)
}
