package domain_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

func TestEveryDeclaredEventSurvivesTheRoundTrip(t *testing.T) {
	t.Parallel()
	for _, d := range domain.Declarations() {
		t.Run(d.Type, func(t *testing.T) {
			t.Parallel()
			if d.Summary == "" || d.Version < 1 {
				t.Errorf("declaration of %s says too little: %+v", d.Type, d)
			}
			event, secret, err := domain.New(uuid.New(), d.Example)
			if err != nil {
				t.Fatalf("New: %v", err)
			}
			got, err := domain.Decode(event.Type, event.Data, secret)
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			if !reflect.DeepEqual(got, d.Example) {
				t.Errorf("round trip\n got %+v\nwant %+v", got, d.Example)
			}
		})
	}
}

func TestSealedFieldsNeverStandInTheOpenHalf(t *testing.T) {
	t.Parallel()
	for _, d := range domain.Declarations() {
		event, secret, err := domain.New(uuid.New(), d.Example)
		if err != nil {
			t.Fatal(err)
		}
		var open, sealed map[string]json.RawMessage
		if err := json.Unmarshal(event.Data, &open); err != nil {
			t.Fatal(err)
		}
		if secret != nil {
			if err := json.Unmarshal(secret, &sealed); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range d.Fields() {
			_, inOpen := open[f.Name]
			_, inSealed := sealed[f.Name]
			if f.Sealed && inOpen || !f.Sealed && inSealed {
				t.Errorf("%s: field %q stands in the wrong half (open %v, sealed %v)", d.Type, f.Name, inOpen, inSealed)
			}
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	const fired = `{"reaction":"r","target":"t","cause":"reaction","profile_id":"8fc344db-713e-4590-ab26-e82d77ba3313","context":`
	for name, tc := range map[string]struct {
		event, data string
		pointer     string
		want        error
	}{
		"a firing":                  {event: "reaction.fired", data: fired + `{"a":1.0}}`},
		"event from a later ledger": {event: "delivery.teleported", data: `{}`, want: domain.ErrUnknownEvent},
		"half a payload":            {event: "reaction.fired", data: `{"reaction":`, want: domain.ErrMalformed},
		"two payloads":              {event: "reaction.fired", data: fired + `{}} {}`, want: domain.ErrMalformed},
		"a context that is a list":  {event: "reaction.fired", data: fired + `[]}`, want: domain.ErrMalformed, pointer: "/context"},
		"a field too many":          {event: "reaction.fired", data: `{"reactoin":"r"}`, want: domain.ErrMalformed, pointer: "/reactoin"},
		"a number for a handle":     {event: "reaction.fired", data: `{"reaction":1}`, want: domain.ErrMalformed, pointer: "/reaction"},
		"no cause":                  {event: "reaction.fired", data: `{"reaction":"r","target":"t","context":{}}`, want: domain.ErrMalformed, pointer: "/cause"},
		"consent with a made-up channel": {
			event: "consent.changed", want: domain.ErrMalformed, pointer: "/changes/0/channel",
			data: `{"profile_id":"8fc344db-713e-4590-ab26-e82d77ba3313","changes":[{"channel":"fax","purpose":"promo","status":"opted_in"}],"decided_at":"2026-11-23T04:05:06Z","decided_by":"customer"}`,
		},
		"a time that is none": {
			event: "consent.changed", want: domain.ErrMalformed, pointer: "/decided_at",
			data: `{"profile_id":"8fc344db-713e-4590-ab26-e82d77ba3313","decided_at":"jane@example.com"}`,
		},
		"an id that is none": {
			event: "reaction.fired", want: domain.ErrMalformed, pointer: "/profile_id",
			data: `{"reaction":"r","profile_id":"jane@example.com"}`,
		},
		"consent by nobody": {
			event: "consent.changed", want: domain.ErrMalformed, pointer: "/decided_by",
			data: `{"profile_id":"8fc344db-713e-4590-ab26-e82d77ba3313","changes":[{"channel":"sms","purpose":"promo","status":"opted_in"}],"decided_at":"2026-11-23T04:05:06Z"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := domain.Parse(tc.event, []byte(tc.data))
			if !errors.Is(err, tc.want) {
				t.Fatalf("Parse = %v, want %v", err, tc.want)
			}
			var inv *domain.InvalidError
			if tc.pointer != "" && (!errors.As(err, &inv) || inv.Pointer != tc.pointer) {
				t.Errorf("Parse = %v, want it to point at %s", err, tc.pointer)
			}
			if err != nil && strings.Contains(err.Error(), "jane@") {
				t.Errorf("Parse = %v, which quotes what may be personal data", err)
			}
		})
	}
}

func TestTheContextKeepsItsBytes(t *testing.T) {
	t.Parallel()
	const context = `{"b":10.0,"a":1e21,"html":"<b>&</b>"}`
	p, err := domain.Parse("reaction.fired", []byte(`{"reaction":"r","target":"t","cause":"manual","context":`+context+`}`))
	if err != nil {
		t.Fatal(err)
	}
	_, secret, err := domain.New(uuid.New(), p)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"context":` + context + `}`; string(secret) != want {
		t.Errorf("sealed half = %s, want %s", secret, want)
	}
}

// FuzzParse holds: what Parse accepts, New and Decode carry unchanged, and what it does not is an error of ours.
func FuzzParse(f *testing.F) {
	for _, d := range domain.Declarations() {
		example, err := json.Marshal(d.Example)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(d.Type, example)
	}
	f.Fuzz(func(t *testing.T, eventType string, raw []byte) {
		p, err := domain.Parse(eventType, raw)
		if err != nil {
			if !errors.Is(err, domain.ErrInvalid) {
				t.Fatalf("Parse: %v is not ErrInvalid", err)
			}
			return
		}
		first, firstSecret, err := domain.New(uuid.Nil, p)
		if err != nil {
			if !errors.Is(err, domain.ErrInvalid) {
				t.Fatalf("New: %v is not ErrInvalid", err)
			}
			return
		}
		again, err := domain.Decode(eventType, first.Data, firstSecret)
		if err != nil {
			t.Fatalf("Decode of what New wrote: %v", err)
		}
		second, secondSecret, err := domain.New(uuid.Nil, again)
		if err != nil || !bytes.Equal(first.Data, second.Data) || !bytes.Equal(firstSecret, secondSecret) {
			t.Fatalf("not stable: %s %s, then %s %s (%v)", first.Data, firstSecret, second.Data, secondSecret, err)
		}
	})
}

func TestNoNULGetsIntoTheOpenHalf(t *testing.T) {
	t.Parallel()
	const nul = "a\x00b"
	var inv *domain.InvalidError
	fired := domain.ReactionFired{Reaction: "r", Target: "t", Cause: "manual", Trigger: nul, Context: json.RawMessage(`{}`)}
	if _, _, err := domain.New(uuid.New(), fired); !errors.As(err, &inv) || inv.Pointer != "/trigger" {
		t.Errorf("from outside: New = %v, want it to point at /trigger", err)
	}
	fired.Trigger, fired.Context = `a\u0000b`, json.RawMessage(`{"a":"\u0000"}`)
	event, secret, err := domain.New(uuid.New(), fired)
	if err != nil || !bytes.Contains(event.Data, []byte(`a\\u0000b`)) || string(secret) != `{"context":{"a":"\u0000"}}` {
		t.Errorf("a backslash before u0000 and a sealed NUL: New = %s %s, %v, want both as they are", event.Data, secret, err)
	}
	event, _, err = domain.New(uuid.New(), domain.DeliveryAttempted{DeliveryID: uuid.New(), Reason: nul + `\u0000`})
	if err != nil {
		t.Fatal(err)
	}
	got, err := domain.DecodeAs[domain.DeliveryAttempted](event.Data, nil)
	if err != nil || got.Reason != "a\ufffdb"+`\u0000` {
		t.Errorf("from a platform: reason = %q, %v, want the NUL replaced", got.Reason, err)
	}
	_, err = domain.ParseTarget([]byte(`{"handle":"t","headers":{"a/b":"\u0000"}}`), "t")
	if !errors.As(err, &inv) || inv.Pointer != "/headers/a~1b" {
		t.Errorf("a target: %v, want it to point at the header", err)
	}
}
