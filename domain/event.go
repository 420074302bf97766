package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Errors that decoding an event can end in. ErrMalformed and ErrUnknownEvent wrap ErrInvalid.
var (
	// ErrInvalid is the parent of everything that is wrong with what somebody gave us.
	ErrInvalid = errors.New("invalid")
	// ErrMalformed is a payload that its declaration does not allow.
	ErrMalformed = fmt.Errorf("%w: malformed", ErrInvalid)
	// ErrUnknownEvent is an event type that nothing declares.
	ErrUnknownEvent = fmt.Errorf("%w: unknown event type", ErrInvalid)
)

// Event is one fact on its way into the ledger. New makes one from a declared payload.
type Event struct {
	ID     uuid.UUID // the producer's; a repeat of it is recognised
	Type   string    // wire name of a declared type, such as "reaction.fired"
	Stream string    // what the event is about, such as "target-welcome"; versions count within it
	Keys             // what projections select and join on

	OccurredAt    time.Time // the producer's clock, microseconds; zero when it gave none
	Actor         string    // who: the name of a token, or a part of the service
	Source        string    // from where: a CloudEvents source, or "/planner" and its like
	CorrelationID uuid.UUID // the event that started it all; zero for none
	CausationID   uuid.UUID // the event that caused this one; zero for none

	Data   []byte // JSON kept for ever, byte for byte
	Sealed []byte // personal data, encrypted under the subject's key; nil for none

	// Expected is the stream's version that the writer decided on; nil appends whatever the version is.
	Expected *int64
}

// Recorded is an event as the ledger holds it.
type Recorded struct {
	Event
	Position   int64     // 1, 2, 3, … in the order of commits
	Version    int64     // 1, 2, 3, … within the stream
	RecordedAt time.Time // the ledger's clock, never decreasing
	Leaf       []byte    // 32 bytes, the event's leaf in the Merkle tree
}

// Keys are the columns that projections key on. An empty one is null in the ledger.
type Keys struct {
	Subject    uuid.UUID // the person concerned, by the CRM's pseudonym for them
	Channel    string    // email, sms, push, phone, post
	Purpose    string    // all, promo or a category
	State      string    // the value that the event sets: a consent status, a delivery outcome
	Target     string    // handle of a target
	DeliveryID uuid.UUID
}

// Payload is what an event says. Its JSON is the wire shape; a field tagged `sealed:"true"` is personal data
// and is stored encrypted under the subject's key, apart from the rest.
type Payload interface {
	// Stream names the stream that the event belongs to.
	Stream() string
	// Keys gives the columns that projections key on.
	Keys() Keys
	// Validate reports what is wrong with the payload as an *InvalidError, or nil.
	Validate() error
}

// Declaration is all there is to know about one event type. Payload, wire name, sealed fields, decoder, catalogue
// row and fuzz seed come from the one call of declare beside the payload's type.
type Declaration struct {
	Type    string // wire name
	Version int    // of the payload's shape; raised when an upcaster is needed
	Summary string // one sentence: when it is appended
	Origin  Origin // who may append it
	Example Payload

	payload reflect.Type // the payload struct
	open    reflect.Type // the same struct, its sealed fields hidden from JSON
	secret  reflect.Type // the same struct, only its sealed fields visible; nil when none are
}

// Seals reports whether a payload of the type has parts that are stored encrypted under the person's key.
func (d Declaration) Seals() bool { return d.secret != nil }

// Origin says who may append an event of a type.
type Origin string

const (
	// FromOutside is a type that producers send to POST /v1/events.
	FromOutside Origin = "outside"
	// FromLedger is a type that only the service itself records.
	FromLedger Origin = "ledger"
)

var declarations = map[string]*Declaration{}

// declare registers the event type whose payload is T. It panics on a mistake in a declaration, at start.
func declare[T Payload](eventType string, version int, origin Origin, summary string, example T) *Declaration {
	t := reflect.TypeFor[T]()
	d := &Declaration{Type: eventType, Version: version, Summary: summary, Origin: origin, Example: example, payload: t}
	d.open, d.secret = split(t)
	checkUpcasts(d)
	if _, twice := declarations[eventType]; twice {
		panic("event type declared twice: " + eventType)
	}
	declarations[eventType] = d
	byPayload[t] = d
	return d
}

var byPayload = map[reflect.Type]*Declaration{}

// split makes two views of a payload struct that differ from it in tags alone: one whose sealed fields JSON does not see, one
// where it sees nothing else.
func split(t reflect.Type) (open, secret reflect.Type) {
	var opened, sealed []reflect.StructField
	any := false
	for i := range t.NumField() {
		f := t.Field(i)
		o, s := f, f
		if f.Tag.Get("sealed") == "true" {
			any = true
			o.Tag = `json:"-"`
		} else {
			s.Tag = `json:"-"`
		}
		opened, sealed = append(opened, o), append(sealed, s)
	}
	if !any {
		return t, nil
	}
	return reflect.StructOf(opened), reflect.StructOf(sealed)
}

// seenAs gives a pointer to a payload as a pointer to one of its views. The views are made of the payload's own fields, so that
// they lie in memory as it does; reflect's conversion would compare them field by field each time, which takes longer than the
// JSON of a small event.
func seenAs(payload reflect.Value, view reflect.Type) any {
	return reflect.NewAt(view, payload.UnsafePointer()).Interface()
}

// Declarations lists every event type, by name.
func Declarations() []*Declaration {
	all := make([]*Declaration, 0, len(declarations))
	for _, d := range declarations {
		all = append(all, d)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Type < all[j].Type })
	return all
}

// Declared returns the declaration of a type, or ErrUnknownEvent.
func Declared(eventType string) (*Declaration, error) {
	d, ok := declarations[eventType]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknownEvent, eventType)
	}
	return d, nil
}

// TypeOf returns the wire name of a payload's event type.
func TypeOf(p Payload) string {
	if d, ok := byPayload[payloadType(p)]; ok {
		return d.Type
	}
	return ""
}

func payloadType(p Payload) reflect.Type {
	t := reflect.TypeOf(p)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// Fields describes the payload's fields for the catalogue, in the order of the struct.
func (d *Declaration) Fields() []Field {
	var fields []Field
	for _, f := range reflect.VisibleFields(d.payload) {
		if f.Anonymous || len(f.Index) > 2 {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields = append(fields, Field{Name: name, Type: f.Type.String(), Sealed: f.Tag.Get("sealed") == "true", Doc: f.Tag.Get("doc")})
	}
	return fields
}

// Field is one field of a payload, as the catalogue shows it.
type Field struct {
	Name   string // in JSON
	Type   string // in Go
	Sealed bool   // stored encrypted under the subject's key
	Doc    string
}

// NewID is an id for an event that nobody named: a UUID in order of time, whose place in the ledger's index of ids is beside the
// one before it. An id at random has the index read and written all over.
func NewID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// New makes an event of a payload: its type, stream, keys and the two halves of its JSON. The secret half is
// returned apart, for the vault to seal under the event's id; it is nil when the payload has no sealed part, or
// an empty one.
func New(id uuid.UUID, p Payload) (event Event, secret []byte, err error) {
	d, ok := byPayload[payloadType(p)]
	if !ok {
		return Event{}, nil, fmt.Errorf("%w: payload %T", ErrUnknownEvent, p)
	}
	if err := p.Validate(); err != nil {
		return Event{}, nil, err
	}
	v := reflect.ValueOf(p)
	if v.Kind() != reflect.Pointer {
		v = reflect.New(d.payload)
		v.Elem().Set(reflect.ValueOf(p))
	}
	data, err := marshal(seenAs(v, d.open))
	if err != nil {
		return Event{}, nil, fmt.Errorf("%w: %s: %w", ErrMalformed, d.Type, err)
	}
	if d.Origin == FromOutside {
		if err := refuseNUL(data); err != nil {
			return Event{}, nil, err
		}
	}
	data = stampVersion(data, d.Version)
	data = replaceNUL(data) // in the ledger's own events it comes from a platform's words
	if d.secret != nil {
		secret, err = marshal(seenAs(v, d.secret))
		if err != nil {
			return Event{}, nil, fmt.Errorf("%w: %s: %w", ErrMalformed, d.Type, err)
		}
		if string(secret) == "{}" {
			secret = nil
		}
	}
	return Event{ID: id, Type: d.Type, Stream: p.Stream(), Keys: p.Keys(), Data: data}, secret, nil
}

// marshal is json.Marshal without the escapes for HTML, which would rewrite what a producer wrote.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode reads a recorded payload of an earlier or the current version. secret is the opened sealed half; nil
// leaves the sealed fields empty, which is what an erased or unrevealed event looks like.
//
// Unknown fields are ignored: a later version of the program may have written them.
func Decode(eventType string, data, secret []byte) (Payload, error) {
	d, err := Declared(eventType)
	if err != nil {
		return nil, err
	}
	if data, secret, err = current(d, data, secret); err != nil {
		return nil, err
	}
	v := reflect.New(d.payload)
	if err := json.Unmarshal(data, seenAs(v, d.open)); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, eventType, err)
	}
	if secret != nil && d.secret != nil {
		if err := json.Unmarshal(secret, seenAs(v, d.secret)); err != nil {
			return nil, fmt.Errorf("%w: %s: sealed part: %w", ErrMalformed, eventType, err)
		}
	}
	return v.Elem().Interface().(Payload), nil
}

// DecodeAs is Decode for a caller that knows the type.
func DecodeAs[T Payload](data, secret []byte) (T, error) {
	var zero T
	d, ok := byPayload[reflect.TypeFor[T]()]
	if !ok {
		return zero, fmt.Errorf("%w: %T", ErrUnknownEvent, zero)
	}
	p, err := Decode(d.Type, data, secret)
	if err != nil {
		return zero, err
	}
	return p.(T), nil
}

// Parse reads a payload as a producer sends it: whole, sealed fields in the clear, and strictly. A field that the
// type does not have is an error, because dropping it would lose what the producer meant to record.
func Parse(eventType string, raw []byte) (Payload, error) {
	d, err := Declared(eventType)
	if err != nil {
		return nil, err
	}
	v := reflect.New(d.payload)
	if err := decodeStrict(raw, v.Interface()); err != nil {
		return nil, locate(err, raw, d.payload)
	}
	p := v.Elem().Interface().(Payload)
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}

// decodeStrict unmarshals exactly one JSON value and refuses unknown fields, saying where.
func decodeStrict(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return asInvalid(err)
	}
	if dec.More() {
		return Invalid("", "holds more than one JSON value")
	}
	return nil
}

func asInvalid(err error) error {
	var typeErr *json.UnmarshalTypeError
	var syntaxErr *json.SyntaxError
	switch {
	case errors.As(err, &typeErr):
		pointer := ""
		if typeErr.Field != "" {
			pointer = "/" + strings.ReplaceAll(typeErr.Field, ".", "/")
		}
		kind, _, _ := strings.Cut(typeErr.Value, " ") // "number 61491570156" names the value too
		return Invalid(pointer, "is a JSON %s, which does not fit", kind)
	case errors.As(err, &syntaxErr):
		return Invalid("", "is not JSON: %s (at byte %d)", syntaxErr.Error(), syntaxErr.Offset)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name = strings.Trim(name, `"`)
		return Invalid("/"+name, "is not a field of this event; see docs/events.md for the fields it has")
	}
	// What a field's own UnmarshalJSON or UnmarshalText says quotes the value, which may be personal data.
	return Invalid("", "holds a value that does not fit its field")
}

// locate points an error that names no place at the first field of t whose value does not fit, which
// encoding/json leaves open when the field's type reads itself (times, UUIDs).
func locate(err error, raw []byte, t reflect.Type) error {
	var inv *InvalidError
	var object map[string]json.RawMessage
	if !errors.As(err, &inv) || inv.Pointer != "" || json.Unmarshal(raw, &object) != nil {
		return err
	}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		value, given := object[name]
		if name == "" || name == "-" || !given {
			continue
		}
		into := reflect.New(f.Type)
		if json.Unmarshal(value, into.Interface()) == nil {
			continue
		}
		if what := describeType(into.Interface()); what != "" {
			return Invalid("/"+name, "is not %s", what)
		}
		if f.Type.Kind() == reflect.Struct {
			return within("/"+name, locate(Invalid("", "is not of the shape that this field has"), value, f.Type))
		}
		return Invalid("/"+name, "is not of the shape that this field has")
	}
	return err
}

func describeType(pointer any) string {
	switch pointer.(type) {
	case *time.Time:
		return "a time as in RFC 3339, such as 2026-11-23T04:05:06Z"
	case *uuid.UUID:
		return "a UUID"
	case *Duration:
		return "a duration such as 500ms, 10s or 2h"
	case *Rate:
		return "a rate such as 50/s, 750/m or 1000/h"
	}
	return ""
}

// InvalidError says what is wrong with a value from outside, and where. It wraps ErrMalformed.
type InvalidError struct {
	Pointer string // RFC 6901 JSON pointer into the value; "" is the value itself
	Message string // what is wrong, to be read after the pointer
}

// Invalid makes an *InvalidError.
func Invalid(pointer, format string, args ...any) error {
	return &InvalidError{Pointer: pointer, Message: fmt.Sprintf(format, args...)}
}

func (e *InvalidError) Error() string {
	if e.Pointer == "" {
		return e.Message
	}
	return e.Pointer + " " + e.Message
}

func (e *InvalidError) Unwrap() error { return ErrMalformed }

// within moves an *InvalidError below another pointer.
func within(pointer string, err error) error {
	var inv *InvalidError
	if errors.As(err, &inv) {
		return &InvalidError{Pointer: pointer + inv.Pointer, Message: inv.Message}
	}
	return err
}
