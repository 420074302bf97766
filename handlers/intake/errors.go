package intake

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Reasons to refuse a request. Those about one event of it are in a *RefusedError. Further ones come from the ledger:
// schema.ErrIDReused, schema.ErrTooLarge, schema.ErrBusy, schema.ErrUnavailable.
var (
	// ErrNotJSON is a body that is no JSON at all.
	ErrNotJSON = errors.New("the body is not JSON")
	// ErrMediaType is a content type, of the request or of an event's data, that is not taken.
	ErrMediaType = errors.New("unsupported media type")
	// ErrInvalidEvent is an event that CloudEvents or its type's declaration does not allow.
	ErrInvalidEvent = fmt.Errorf("%w event", domain.ErrInvalid)
	// ErrUnknownType is an event type that nothing declares.
	ErrUnknownType = fmt.Errorf("%w: %w", ErrInvalidEvent, domain.ErrUnknownEvent)
	// ErrInternalType is an event type that only the ledger itself records.
	ErrInternalType = fmt.Errorf("%w: recorded by the ledger itself", ErrInvalidEvent)
)

// Refusal says what is wrong with one event of a request.
type Refusal struct {
	Index   int    // of the event in the request, from 0
	Pointer string // RFC 6901 pointer into the event in its JSON form, in whichever mode it came; "" is the event
	Detail  string // what is wrong, to be read after the pointer; never what stood there
	Err     error  // the sentinel
}

// refusalsMax bounds how many refusals one answer lists.
const refusalsMax = 20

// RefusedError says why a request was refused: nothing of it was recorded. It unwraps to the first refusal's sentinel.
type RefusedError struct {
	Refusals []Refusal // in order of index; the first 20
}

func (e *RefusedError) Error() string {
	texts := make([]string, len(e.Refusals))
	for i, r := range e.Refusals {
		texts[i] = fmt.Sprintf("event %d: %s", r.Index, strings.TrimSpace(r.Pointer+" "+r.Detail))
	}
	return strings.Join(texts, "; ")
}

// Unwrap gives the sentinel of the first refusal.
func (e *RefusedError) Unwrap() error { return e.Refusals[0].Err }

// refusals collects what is wrong with the events of one request.
type refusals []Refusal

func (r *refusals) add(index int, sentinel error, pointer, format string, args ...any) {
	if len(*r) < refusalsMax {
		*r = append(*r, Refusal{Index: index, Pointer: pointer, Detail: fmt.Sprintf(format, args...), Err: sentinel})
	}
}

// payload adds what the domain says about an event's data.
func (r *refusals) payload(index int, pointer string, err error) {
	var invalid *domain.InvalidError
	if errors.As(err, &invalid) {
		r.add(index, ErrInvalidEvent, pointer+invalid.Pointer, "%s", invalid.Message)
		return
	}
	r.add(index, ErrInvalidEvent, pointer, "is not what its type declares")
}

func (r refusals) err() error {
	if len(r) == 0 {
		return nil
	}
	return &RefusedError{Refusals: r}
}
