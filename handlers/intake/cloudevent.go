package intake

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// The media types of CloudEvents in JSON.
const (
	MediaTypeEvent = "application/cloudevents+json"
	MediaTypeBatch = "application/cloudevents-batch+json"
)

// Event is a CloudEvent 1.0 as a producer sent it.
type Event struct {
	ID     string // unique within Source
	Source string // a URI reference: from where
	Type   string
	Time   time.Time // when it happened; zero when the producer did not say

	// CorrelationID and CausationID are the extension attributes of these names: the events that started it all and
	// that caused this one. Zero when absent. Other extension attributes are allowed and not recorded.
	CorrelationID, CausationID uuid.UUID

	Data []byte // the JSON payload, byte for byte
}

// idNamespace is where ids are derived in; it never changes, or a repeat would no longer be recognised.
var idNamespace = uuid.MustParse("5b0c3f0e-7a53-4d0e-9c0b-2f7d9a1c64e8")

// EventID is the ledger's id of the event that a producer knows by source and id.
//
// An id in the canonical form of a UUID is taken as it is: UUIDs are unique wherever they come from, and an event that
// reaches the ledger over two relays, with two sources, is one event. Any other id becomes the version 5 UUID of
// source and id. So do UUIDs of version 5 themselves and the nil UUID, because the ledger derives the ids of its own
// events that way and no producer may occupy one.
func EventID(source, id string) uuid.UUID {
	const canonical = 36
	if len(id) == canonical {
		if u, err := uuid.Parse(id); err == nil && u != uuid.Nil && u.Version() != 5 {
			return u
		}
	}
	return uuid.NewSHA1(idNamespace, []byte(source+"\x00"+id))
}

// Limits bound what one request may hold. A zero field is its default.
type Limits struct {
	RequestBytes int // of the body; 8 MiB by default
	EventBytes   int // of one event; 1 MiB by default
	Events       int // in a batch; 10,000 by default
}

// The default limits.
const (
	DefaultRequestBytes = 8 << 20
	DefaultEventBytes   = 1 << 20
	DefaultEvents       = 10_000
)

// WithDefaults fills in what is zero.
func (l Limits) WithDefaults() Limits {
	if l.RequestBytes <= 0 {
		l.RequestBytes = DefaultRequestBytes
	}
	if l.EventBytes <= 0 {
		l.EventBytes = DefaultEventBytes
	}
	if l.Events <= 0 {
		l.Events = DefaultEvents
	}
	return l
}

// Parse reads the events of an HTTP request (or of a message with the same headers) in any mode of the CloudEvents
// HTTP binding: structured, batch or binary. Data keeps its bytes and may alias body.
//
// Errors: ErrMediaType, ErrNotJSON, schema.ErrTooLarge, and a *RefusedError that names each event and field.
func Parse(header http.Header, body []byte, l Limits) ([]Event, error) {
	l = l.WithDefaults()
	if len(body) > l.RequestBytes {
		return nil, fmt.Errorf("%w: the body is longer than %d bytes; send fewer events at a time", schema.ErrTooLarge, l.RequestBytes)
	}
	if enc := header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, fmt.Errorf("%w: Content-Encoding is not taken; send the body as it is", ErrMediaType)
	}
	mediaType, err := mediaTypeOf(header.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	binary := header.Get("Ce-Specversion") != "" || header.Get("Ce-Id") != "" || header.Get("Ce-Type") != ""
	switch {
	case mediaType == MediaTypeEvent:
		if !utf8.Valid(body) || !json.Valid(body) {
			return nil, notJSON(body)
		}
		return parseAll([]json.RawMessage{body}, l)
	case mediaType == MediaTypeBatch:
		return parseBatch(body, l)
	case binary && (mediaType == "" || isJSON(mediaType)):
		return parseBinary(header, body, l)
	case binary:
		return nil, fmt.Errorf("%w: the data of an event is JSON; send Content-Type: application/json", ErrMediaType)
	default:
		return nil, fmt.Errorf("%w: send %s, %s, or ce-* headers with application/json", ErrMediaType, MediaTypeEvent, MediaTypeBatch)
	}
}

// mediaTypeOf reads a content type, whose charset can only be UTF-8. An empty one is "".
func mediaTypeOf(contentType string) (string, error) {
	if contentType == "" {
		return "", nil
	}
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", fmt.Errorf("%w: the content type is malformed", ErrMediaType)
	}
	if c := params["charset"]; c != "" && !strings.EqualFold(c, "utf-8") && !strings.EqualFold(c, "us-ascii") {
		return "", fmt.Errorf("%w: JSON is UTF-8; no other charset is taken", ErrMediaType)
	}
	return mediaType, nil
}

// isJSON tells the media types of JSON, application/json and any with the +json suffix, except CloudEvents' own.
func isJSON(mediaType string) bool {
	return mediaType == "application/json" || mediaType == "text/json" ||
		strings.HasSuffix(mediaType, "+json") && mediaType != MediaTypeEvent && mediaType != MediaTypeBatch
}

// notJSON says where a body stops being JSON, without repeating it.
func notJSON(body []byte) error {
	if !utf8.Valid(body) {
		return fmt.Errorf("%w: it is not UTF-8", ErrNotJSON)
	}
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal(body, new(json.RawMessage)), &syntax) {
		return fmt.Errorf("%w: it breaks off or goes wrong at byte %d", ErrNotJSON, syntax.Offset)
	}
	return ErrNotJSON
}

func parseBatch(body []byte, l Limits) ([]Event, error) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, notJSON(body)
	}
	var raws []json.RawMessage
	if trimmed := bytes.TrimSpace(body); trimmed[0] != '[' {
		return nil, &RefusedError{Refusals: []Refusal{{Detail: "is not an array of events, which a batch is", Err: ErrInvalidEvent}}}
	}
	if err := json.Unmarshal(body, &raws); err != nil {
		return nil, notJSON(body)
	}
	if len(raws) > l.Events {
		return nil, fmt.Errorf("%w: the batch holds %d events, more than %d", schema.ErrTooLarge, len(raws), l.Events)
	}
	return parseAll(raws, l)
}

func parseAll(raws []json.RawMessage, l Limits) ([]Event, error) {
	events := make([]Event, len(raws))
	var bad refusals
	for i, raw := range raws {
		if len(raw) > l.EventBytes {
			bad.add(i, schema.ErrTooLarge, "", "is %d bytes long, more than %d", len(raw), l.EventBytes)
			continue
		}
		a := attributes{index: i, bad: &bad}
		events[i] = a.structured(raw)
	}
	return events, bad.err()
}

func parseBinary(header http.Header, body []byte, l Limits) ([]Event, error) {
	if len(body) > l.EventBytes {
		return nil, &RefusedError{Refusals: []Refusal{{Detail: fmt.Sprintf("is longer than %d bytes", l.EventBytes), Err: schema.ErrTooLarge}}}
	}
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, notJSON(body)
	}
	var bad refusals
	a := attributes{bad: &bad, given: map[string]string{}}
	for name, values := range header {
		attribute, ok := strings.CutPrefix(strings.ToLower(name), "ce-")
		if !ok {
			continue
		}
		value := decodeHeader(values[0])
		switch {
		case len(values) > 1:
			a.refuse(attribute, "is given %d times", len(values))
		case !utf8.ValidString(value):
			a.refuse(attribute, "is not UTF-8")
		case attribute == "datacontenttype" || attribute == "data" || attribute == "data_base64":
			a.refuse(attribute, "is no header of the binary mode: the content type is Content-Type, the data is the body")
		default:
			a.given[attribute] = value
		}
	}
	e := a.event()
	e.Data = body
	return []Event{e}, bad.err()
}

// decodeHeader undoes the double quotes and then the percent-encoding of a header value, as section 3.1.3.2 of the HTTP
// binding says. A value with a % that begins no escape was not encoded, which some SDKs do not do; it is taken as it is.
func decodeHeader(value string) string {
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = quotedPair.ReplaceAllString(value[1:len(value)-1], "$1")
	}
	if decoded, err := url.PathUnescape(value); err == nil {
		return decoded
	}
	return value
}

var quotedPair = regexp.MustCompile(`\\(.)`)

// attributes are the context attributes of one event, on their way into an Event. Mistakes go to bad.
type attributes struct {
	index int
	bad   *refusals
	given map[string]string // in their string form
}

func (a *attributes) refuse(attribute, format string, args ...any) {
	a.bad.add(a.index, ErrInvalidEvent, "/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(attribute), format, args...)
}

// structured reads an event in the JSON event format. raw is valid JSON.
func (a *attributes) structured(raw []byte) Event {
	a.given = map[string]string{}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		a.bad.add(a.index, ErrInvalidEvent, "", "is not a JSON object")
		return Event{}
	}
	var data, encoded json.RawMessage
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		var value json.RawMessage
		if err != nil || !ok || dec.Decode(&value) != nil {
			a.bad.add(a.index, ErrInvalidEvent, "", "is not a JSON object")
			return Event{}
		}
		if seen[name] {
			a.refuse(name, "is given twice")
			continue
		}
		seen[name] = true
		switch {
		case name == "data":
			data = value
		case string(value) == "null": // an attribute that is not set
		case name == "data_base64":
			encoded = value
		default:
			a.attribute(name, value)
		}
	}
	e := a.event()
	switch {
	case data != nil && encoded != nil:
		a.refuse("data_base64", "is given beside data; an event has one of them")
	case encoded != nil:
		e.Data = a.decode(encoded)
	case data == nil:
		a.refuse("data", "is missing")
	default:
		e.Data = data
	}
	return e
}

// decode reads data_base64, whose content is JSON all the same.
func (a *attributes) decode(encoded json.RawMessage) []byte {
	var text string
	if json.Unmarshal(encoded, &text) != nil {
		a.refuse("data_base64", "is not a string")
		return nil
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !utf8.Valid(data) || !json.Valid(data) {
		a.refuse("data_base64", "is not JSON in base64")
		return nil
	}
	return data
}

var attributeName = regexp.MustCompile(`^[a-z0-9]+$`)

// attribute takes one attribute of the JSON format: a string, or for an extension also a boolean or an integer.
func (a *attributes) attribute(name string, value json.RawMessage) {
	if !attributeName.MatchString(name) {
		a.refuse(name, "is no attribute: names are lower-case letters and digits")
		return
	}
	var text string
	switch {
	case json.Unmarshal(value, &text) == nil:
	case coreAttributes[name]:
		a.refuse(name, "is not a string")
		return
	case string(value) == "true" || string(value) == "false" || !bytes.ContainsAny(value, `.eE{["`):
		text = string(value)
	default:
		a.refuse(name, "is not a string, a boolean or an integer")
		return
	}
	a.given[name] = text
}

var coreAttributes = map[string]bool{
	"specversion": true, "id": true, "source": true, "type": true, "time": true,
	"subject": true, "datacontenttype": true, "dataschema": true,
}

// Bounds of the attributes, in bytes.
const (
	idMax     = 1024
	sourceMax = 2048
)

// event checks the attributes and makes an Event of them.
func (a *attributes) event() Event {
	for name, value := range a.given {
		if strings.ContainsFunc(value, isControl) {
			a.refuse(name, "holds a control character")
		}
	}
	if v, ok := a.given["specversion"]; !ok || v != "1.0" {
		a.refuse("specversion", `is not "1.0"`)
	}
	e := Event{ID: a.given["id"], Source: a.given["source"], Type: a.given["type"]}
	if e.ID == "" {
		a.refuse("id", "is missing or empty")
	} else if len(e.ID) > idMax {
		a.refuse("id", "is longer than %d bytes", idMax)
	}
	if e.Source == "" {
		a.refuse("source", "is missing or empty")
	} else if _, err := url.Parse(e.Source); err != nil || len(e.Source) > sourceMax {
		a.refuse("source", "is not a URI reference of at most %d bytes", sourceMax)
	}
	if e.Type == "" {
		a.refuse("type", "is missing or empty")
	}
	if text, ok := a.given["time"]; ok {
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || t.Before(earliest) {
			a.refuse("time", "is not a time as in RFC 3339, such as 2026-11-23T04:05:06Z")
		}
		e.Time = t
	}
	if text, ok := a.given["datacontenttype"]; ok {
		if mediaType, err := mediaTypeOf(text); err != nil || !isJSON(mediaType) {
			a.bad.add(a.index, ErrMediaType, "/datacontenttype", "is not application/json; the data of an event is JSON")
		}
	}
	for name, into := range map[string]*uuid.UUID{"correlationid": &e.CorrelationID, "causationid": &e.CausationID} {
		if text, ok := a.given[name]; ok && text != "" {
			*into = EventID(e.Source, text)
		}
	}
	return e
}

// earliest is before every time that a CRM knows, and after all that PostgreSQL and Go disagree about.
var earliest = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)

// isControl tells the characters that a CloudEvents string must not hold.
func isControl(r rune) bool {
	return r < 0x20 || r >= 0x7f && r <= 0x9f || r == utf8.RuneError || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef
}
