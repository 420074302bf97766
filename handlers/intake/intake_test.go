package intake_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

var now = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

const jane = "8fc344db-713e-4590-ab26-e82d77ba3313"

const firedData = `{"reaction":"reward-earned","target":"klaviyo","profile_id":"` + jane + `","trigger":"reward.created","cause":"reaction","context":{"amount":10.0,"html":"<b>&</b>"}}`

const consentData = `{"profile_id":"` + jane + `","changes":[{"channel":"email","purpose":"promo","status":"opted_out"}],"decided_at":"2026-11-23T04:05:06Z","decided_by":"customer","contact":{"email":" Jane@Example.com ","mobile":"+61 491 570 156"}}`

// service is a ledger of its own with an intake before it.
func service(t *testing.T) *intake.Service {
	t.Helper()
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	clock := func() time.Time { return now }
	key := make([]byte, 32)
	rand.Read(key)
	master, err := schema.ParseMasterKey(base64.StdEncoding.EncodeToString(key))
	if err != nil {
		t.Fatal(err)
	}
	vault, err := schema.OpenVault(t.Context(), db, master, clock)
	if err != nil {
		t.Fatal(err)
	}
	ledger := schema.OpenLedger(db, slog.New(slog.DiscardHandler), nil)
	t.Cleanup(ledger.Close)
	return &intake.Service{Ledger: ledger, Vault: vault, Clock: clock}
}

func event(id, eventType, data string) intake.Event {
	return intake.Event{ID: id, Source: "/crm", Type: eventType, Data: []byte(data)}
}

func accept(t *testing.T, s *intake.Service, events ...intake.Event) []intake.Accepted {
	t.Helper()
	accepted, err := s.Accept(t.Context(), "engine", events)
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	return accepted
}

func at(t *testing.T, s *intake.Service, position int64) domain.Recorded {
	t.Helper()
	r, err := schema.EventAt(t.Context(), s.Ledger.DB(), position)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func opened(t *testing.T, s *intake.Service, position int64) schema.Opened {
	t.Helper()
	o, err := s.Vault.OpenEvents(t.Context(), []domain.Recorded{at(t, s, position)})
	if err != nil {
		t.Fatal(err)
	}
	return o[0]
}

func erase(t *testing.T, s *intake.Service, subject string) {
	t.Helper()
	tx, err := s.Ledger.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := s.Vault.Erase(t.Context(), tx, uuid.MustParse(subject), "privacy-desk", "request 17"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestAFiringIsRecordedAsItCame(t *testing.T) {
	t.Parallel()
	s := service(t)
	e := event("firing-1", "reaction.fired", firedData)
	e.Time = now.Add(-time.Minute)
	e.CorrelationID = uuid.New()
	got := accept(t, s, e)[0]
	want := intake.Accepted{ID: "firing-1", EventID: intake.EventID("/crm", "firing-1"), Position: 1}
	if got != want {
		t.Errorf("Accept = %+v, want %+v", got, want)
	}
	o := opened(t, s, 1)
	if o.Actor != "engine" || o.Source != "/crm" || !o.OccurredAt.Equal(e.Time) || o.CorrelationID != e.CorrelationID || o.Subject.String() != jane {
		t.Errorf("recorded %+v", o.Event)
	}
	fired := o.Payload.(domain.ReactionFired)
	if string(fired.Context) != `{"amount":10.0,"html":"<b>&</b>"}` {
		t.Errorf("context = %s, want the producer's bytes", fired.Context)
	}
	if bytes.Contains(o.Data, []byte("amount")) {
		t.Errorf("data = %s: the context stands in the open", o.Data)
	}
}

func TestADecisionIsRecordedWithTheHashesOfItsAddresses(t *testing.T) {
	t.Parallel()
	s := service(t)
	e := event("consent-1", "consent.changed", consentData)
	e.Time = now
	accept(t, s, e)
	o := opened(t, s, 1)
	decided := time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)
	if !o.OccurredAt.Equal(decided) {
		t.Errorf("occurred at %s, want when the person decided, %s", o.OccurredAt, decided)
	}
	c := o.Payload.(domain.ConsentChanged)
	if len(c.ContactHashes) != 2 ||
		c.ContactHashes[0].Hash != fmt.Sprintf("%x", s.Vault.ContactHash("email", "jane@example.com")) ||
		c.ContactHashes[1].Hash != fmt.Sprintf("%x", s.Vault.ContactHash("sms", "+61491570156")) {
		t.Errorf("contact hashes = %+v, want those of the normalised addresses", c.ContactHashes)
	}
	if c.Contact.Email != " Jane@Example.com " {
		t.Errorf("contact = %+v, want it as it was given", c.Contact)
	}
	for _, text := range []string{"ane@", "491570156"} {
		if bytes.Contains(o.Data, []byte(text)) {
			t.Errorf("data = %s: an address stands in the open", o.Data)
		}
	}
}

func TestAMobileIsHashedForCallsWhenTheDecisionIsAboutThem(t *testing.T) {
	t.Parallel()
	s := service(t)
	accept(t, s, event("c", "consent.changed", strings.Replace(consentData, `"channel":"email"`, `"channel":"phone"`, 1)))
	c := opened(t, s, 1).Payload.(domain.ConsentChanged)
	if len(c.ContactHashes) != 3 || c.ContactHashes[2].Channel != domain.Phone {
		t.Errorf("contact hashes = %+v, want email, sms and phone", c.ContactHashes)
	}
}

func TestAFiringAboutNobodyIsSealedToo(t *testing.T) {
	t.Parallel()
	s := service(t)
	accept(t, s, event("f", "reaction.fired", `{"reaction":"r","target":"t","cause":"manual","context":{"note":"hello"}}`))
	o := opened(t, s, 1)
	if o.Subject != uuid.Nil || o.Sealed == nil || string(o.Payload.(domain.ReactionFired).Context) != `{"note":"hello"}` {
		t.Errorf("recorded %+v, sealed %x", o.Payload, o.Sealed)
	}
}

func TestARepeatIsAnsweredWithItsFirstPosition(t *testing.T) {
	t.Parallel()
	s := service(t)
	a, b := event("a", "reaction.fired", firedData), event("b", "consent.changed", consentData)
	first := accept(t, s, a, b)
	again := accept(t, s, b, a, b)
	for i, want := range []intake.Accepted{first[1], first[0], first[1]} {
		want.Duplicate = true
		if again[i] != want {
			t.Errorf("item %d again = %+v, want %+v", i, again[i], want)
		}
	}
	if head, err := s.Ledger.Head(t.Context()); err != nil || head != 2 {
		t.Errorf("head = %d, %v, want 2", head, err)
	}
}

func TestAnErasedPersonsEventsAreRecordedWithoutWhatIsSealed(t *testing.T) {
	t.Parallel()
	s := service(t)
	before := accept(t, s, event("before", "consent.changed", consentData))[0]
	erase(t, s, jane)
	after := accept(t, s, event("after", "reaction.fired", firedData))[0]
	if r := at(t, s, after.Position); r.Sealed != nil || r.Subject.String() != jane {
		t.Errorf("after the erasure: subject %s, sealed %x, want the subject and nothing sealed", r.Subject, r.Sealed)
	}
	again := accept(t, s, event("before", "consent.changed", consentData), event("after", "reaction.fired", firedData))
	if again[0].Position != before.Position || !again[0].Duplicate || again[1].Position != after.Position || !again[1].Duplicate {
		t.Errorf("repeats after the erasure = %+v, want positions %d and %d", again, before.Position, after.Position)
	}
	_, err := s.Accept(t.Context(), "engine", []intake.Event{event("before", "consent.changed", strings.Replace(consentData, "opted_out", "opted_in", 1))})
	if !errors.Is(err, schema.ErrIDReused) {
		t.Errorf("other content under the same id = %v, want ErrIDReused", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := service(t)
	accept(t, s, event("taken", "reaction.fired", firedData))
	edit := func(data, old, replacement string) string {
		if !strings.Contains(data, old) {
			t.Fatalf("%q is not in %s", old, data)
		}
		return strings.Replace(data, old, replacement, 1)
	}
	for name, tc := range map[string]struct {
		event   intake.Event
		want    error
		pointer string
	}{
		"an unknown type":              {event("x", "reaction.teleported", firedData), intake.ErrUnknownType, "/type"},
		"a type of the ledger's own":   {event("x", "delivery.planned", `{}`), intake.ErrInternalType, "/type"},
		"a context that is a list":     {event("x", "reaction.fired", edit(firedData, `{"amount":10.0,"html":"<b>&</b>"}`, `[]`)), intake.ErrInvalidEvent, "/data/context"},
		"a context that is a string":   {event("x", "reaction.fired", edit(firedData, `{"amount":10.0,"html":"<b>&</b>"}`, `"{}"`)), intake.ErrInvalidEvent, "/data/context"},
		"no context":                   {event("x", "reaction.fired", edit(firedData, `,"context":{"amount":10.0,"html":"<b>&</b>"}`, ``)), intake.ErrInvalidEvent, "/data/context"},
		"data that is null":            {event("x", "reaction.fired", `null`), intake.ErrInvalidEvent, "/data/reaction"},
		"data that is a string":        {event("x", "reaction.fired", `"{}"`), intake.ErrInvalidEvent, "/data"},
		"a field too many":             {event("x", "reaction.fired", edit(firedData, `"trigger"`, `"tigger"`)), intake.ErrInvalidEvent, "/data/tigger"},
		"a profile that is no UUID":    {event("x", "reaction.fired", edit(firedData, jane, "jane@example.com")), intake.ErrInvalidEvent, "/data/profile_id"},
		"a NUL in the open half":       {event("x", "reaction.fired", edit(firedData, "reward.created", `reward\u0000`)), intake.ErrInvalidEvent, "/data/trigger"},
		"an address that is none":      {event("x", "consent.changed", edit(consentData, " Jane@Example.com ", "jane at example")), intake.ErrInvalidEvent, "/data/contact/email"},
		"a number without a country":   {event("x", "consent.changed", edit(consentData, "+61 491 570 156", "0491 570 156")), intake.ErrInvalidEvent, "/data/contact/mobile"},
		"a number that is a number":    {event("x", "consent.changed", edit(consentData, `"+61 491 570 156"`, "61491570156")), intake.ErrInvalidEvent, "/data/contact/mobile"},
		"hashes from outside":          {event("x", "consent.changed", edit(consentData, `"contact"`, `"contact_hashes":[],"contact"`)), intake.ErrInvalidEvent, "/data/contact_hashes"},
		"a decision from the future":   {event("x", "consent.changed", edit(consentData, "2026-11-23", "2036-11-23")), intake.ErrInvalidEvent, "/data/decided_at"},
		"a decision before the CRM":    {event("x", "consent.changed", edit(consentData, "2026-11-23", "0000-11-23")), intake.ErrInvalidEvent, "/data/decided_at"},
		"a decision at no time":        {event("x", "consent.changed", edit(consentData, "2026-11-23T04:05:06Z", "jane@example.com")), intake.ErrInvalidEvent, "/data/decided_at"},
		"an unknown status":            {event("x", "consent.changed", edit(consentData, "opted_out", "maybe")), intake.ErrInvalidEvent, "/data/changes/0/status"},
		"an id with other content":     {event("taken", "reaction.fired", edit(firedData, "10.0", "11")), schema.ErrIDReused, "/id"},
		"an id with another type's":    {event("taken", "consent.changed", consentData), schema.ErrIDReused, "/id"},
		"a decision by nobody we know": {event("x", "consent.changed", edit(consentData, `"customer"`, `"dog"`)), intake.ErrInvalidEvent, "/data/decided_by"},
		"a reaction that is no handle": {event("x", "reaction.fired", edit(firedData, "reward-earned", "reward earned")), intake.ErrInvalidEvent, "/data/reaction"},
		"a cause that there is not":    {event("x", "reaction.fired", edit(firedData, `"cause":"reaction"`, `"cause":"luck"`)), intake.ErrInvalidEvent, "/data/cause"},
		"two payloads in one":          {event("x", "reaction.fired", firedData+firedData), intake.ErrInvalidEvent, "/data"},
		"a payload that breaks off":    {event("x", "reaction.fired", firedData[:40]), intake.ErrInvalidEvent, "/data"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Among good ones, so that the index counts and nothing of the request may stay.
			good := event(uuid.NewString(), "reaction.fired", firedData)
			_, err := s.Accept(t.Context(), "engine", []intake.Event{good, tc.event})
			var refused *intake.RefusedError
			if !errors.Is(err, tc.want) || !errors.As(err, &refused) {
				t.Fatalf("Accept = %v, want a refusal for %v", err, tc.want)
			}
			r := refused.Refusals[0]
			if r.Index != 1 || r.Pointer != tc.pointer {
				t.Errorf("refused event %d at %q (%s), want 1 at %q", r.Index, r.Pointer, r.Detail, tc.pointer)
			}
			for _, private := range []string{"jane", "491"} {
				if strings.Contains(err.Error(), private) {
					t.Errorf("%q repeats personal data", err)
				}
			}
			if _, err := schema.EventByID(t.Context(), s.Ledger.DB(), intake.EventID("/crm", good.ID)); !errors.Is(err, schema.ErrNotFound) {
				t.Errorf("the good event of the refused request: %v, want it not recorded", err)
			}
		})
	}
}

func TestEveryBadEventOfABatchIsNamed(t *testing.T) {
	t.Parallel()
	s := service(t)
	events := []intake.Event{event("a", "x", `{}`), event("b", "reaction.fired", firedData), event("c", "reaction.fired", `{}`)}
	_, err := s.Accept(t.Context(), "engine", events)
	var refused *intake.RefusedError
	if !errors.As(err, &refused) || len(refused.Refusals) != 2 || refused.Refusals[0].Index != 0 || refused.Refusals[1].Index != 2 {
		t.Errorf("Accept = %v, want events 0 and 2 refused", err)
	}
}

func TestADatabaseThatIsGoneIsSaidToBe(t *testing.T) {
	t.Parallel()
	s := service(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Accept(ctx, "engine", []intake.Event{event("a", "reaction.fired", firedData)}); !schema.Transient(err) {
		t.Errorf("Accept = %v, want an error that says try again", err)
	}
}

func TestEventID(t *testing.T) {
	t.Parallel()
	const id = "018f6b7e-8c5a-7d43-9b62-4f5f3a9d1c11"
	if got := intake.EventID("/crm", id); got.String() != id {
		t.Errorf("a UUID becomes %s, want itself", got)
	}
	if intake.EventID("/crm", strings.ToUpper(id)) != intake.EventID("/other", id) {
		t.Error("a UUID in capitals, from elsewhere, is another event")
	}
	derived := uuid.NewSHA1(uuid.MustParse(id), []byte("planned"))
	for name, given := range map[string]string{
		"a word": "order-17", "the nil UUID": uuid.Nil.String(), "a UUID as the ledger derives them": derived.String(),
		"a UUID in braces": "{" + id + "}", "a UUID without hyphens": strings.ReplaceAll(id, "-", ""),
	} {
		got := intake.EventID("/crm", given)
		if got == uuid.Nil || got == derived || got.String() == id || got.Version() != 5 {
			t.Errorf("%s becomes %s, want a UUID derived from it", name, got)
		}
		if got != intake.EventID("/crm", given) || got == intake.EventID("/other", given) {
			t.Errorf("%s: the id must follow from source and id", name)
		}
	}
}

func structured(attributes string) string {
	return `{"specversion":"1.0","id":"1","source":"/crm","type":"reaction.fired"` + attributes + `}`
}

func TestParse(t *testing.T) {
	t.Parallel()
	const data = `{"amount": 10.0,  "e":1e21}`
	same := func(t *testing.T, e intake.Event) {
		t.Helper()
		if e.ID != "1" || e.Source != "/crm" || e.Type != "reaction.fired" || string(e.Data) != data {
			t.Errorf("parsed %+v with data %s, want data %s", e, e.Data, data)
		}
	}
	binary := http.Header{"Content-Type": {"application/json"}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/crm"}, "Ce-Type": {"reaction.fired"}}
	with := func(name string, values ...string) http.Header {
		h := binary.Clone()
		h[name] = values
		return h
	}
	ce := func(mediaType string) http.Header { return http.Header{"Content-Type": {mediaType}} }
	for name, tc := range map[string]struct {
		header http.Header
		body   string
		want   int
	}{
		"structured":                        {ce("application/cloudevents+json"), structured(`,"data":` + data), 1},
		"structured with a charset":         {ce("Application/CloudEvents+JSON; charset=UTF-8"), structured(`,"data":` + data), 1},
		"data before everything else":       {ce("application/cloudevents+json"), `{"data":` + data + `,"type":"reaction.fired","source":"/crm","id":"1","specversion":"1.0"}`, 1},
		"data in base64":                    {ce("application/cloudevents+json"), structured(`,"data_base64":"` + base64.StdEncoding.EncodeToString([]byte(data)) + `"`), 1},
		"attributes that are null":          {ce("application/cloudevents+json"), structured(`,"subject":null,"time":null,"data_base64":null,"data":` + data), 1},
		"extensions of every kind":          {ce("application/cloudevents+json"), structured(`,"traceparent":"00-0af7","sampled":true,"seq":-7,"data":` + data), 1},
		"data that says it is JSON":         {ce("application/cloudevents+json"), structured(`,"datacontenttype":"application/vnd.crm+json","data":` + data), 1},
		"a batch of none":                   {ce("application/cloudevents-batch+json"), ` [] `, 0},
		"a batch of two":                    {ce("application/cloudevents-batch+json"), `[` + structured(`,"data":`+data) + `,` + structured(`,"data":`+data) + `]`, 2},
		"binary":                            {binary, data, 1},
		"binary without a content type":     {with("Content-Type"), data, 1},
		"binary with a vendor's JSON":       {with("Content-Type", "application/vnd.crm+json"), data, 1},
		"binary with an encoded attribute":  {with("Ce-Source", "%2Fcrm"), data, 1},
		"binary with a quoted attribute":    {with("Ce-Source", `"\/crm"`), data, 1},
		"binary with a percent sign":        {with("Ce-Subject", "100% sure"), data, 1},
		"binary with an extension":          {with("Ce-Traceparent", "00-0af7"), data, 1},
		"a header that does not concern it": {with("X-Other", "a", "b"), data, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events, err := intake.Parse(tc.header, []byte(tc.body), intake.Limits{})
			if err != nil || len(events) != tc.want {
				t.Fatalf("Parse = %d events, %v, want %d", len(events), err, tc.want)
			}
			for _, e := range events {
				same(t, e)
			}
		})
	}
	for name, tc := range map[string]struct {
		header  http.Header
		body    string
		want    error
		pointer string
	}{
		"plain JSON":                        {ce("application/json"), structured(`,"data":{}`), intake.ErrMediaType, ""},
		"no content type":                   {http.Header{}, structured(`,"data":{}`), intake.ErrMediaType, ""},
		"CloudEvents in XML":                {ce("application/cloudevents+xml"), `<x/>`, intake.ErrMediaType, ""},
		"a content type that is none":       {ce("application/;;"), `{}`, intake.ErrMediaType, ""},
		"Latin-1":                           {ce("application/cloudevents+json; charset=iso-8859-1"), structured(`,"data":{}`), intake.ErrMediaType, ""},
		"a compressed body":                 {http.Header{"Content-Type": {"application/cloudevents+json"}, "Content-Encoding": {"gzip"}}, `{}`, intake.ErrMediaType, ""},
		"binary with XML":                   {with("Content-Type", "application/xml"), `<x/>`, intake.ErrMediaType, ""},
		"data that says it is XML":          {ce("application/cloudevents+json"), structured(`,"datacontenttype":"text/xml","data":"<x/>"`), intake.ErrMediaType, "/datacontenttype"},
		"half a body":                       {ce("application/cloudevents+json"), structured(``)[:20], intake.ErrNotJSON, ""},
		"an empty body":                     {ce("application/cloudevents+json"), ``, intake.ErrNotJSON, ""},
		"an empty batch body":               {ce("application/cloudevents-batch+json"), ` `, intake.ErrNotJSON, ""},
		"bytes that are not UTF-8":          {ce("application/cloudevents+json"), structured(",\"data\":\"\xff\""), intake.ErrNotJSON, ""},
		"two events without a batch":        {ce("application/cloudevents+json"), structured(`,"data":{}`) + structured(`,"data":{}`), intake.ErrNotJSON, ""},
		"binary with half a body":           {binary, `{"a":`, intake.ErrNotJSON, ""},
		"a batch that is an event":          {ce("application/cloudevents-batch+json"), structured(`,"data":{}`), intake.ErrInvalidEvent, ""},
		"an event that is a batch":          {ce("application/cloudevents+json"), `[` + structured(`,"data":{}`) + `]`, intake.ErrInvalidEvent, ""},
		"a batch of a number":               {ce("application/cloudevents-batch+json"), `[1]`, intake.ErrInvalidEvent, ""},
		"no data":                           {ce("application/cloudevents+json"), structured(``), intake.ErrInvalidEvent, "/data"},
		"data twice":                        {ce("application/cloudevents+json"), structured(`,"data":{},"data_base64":"e30="`), intake.ErrInvalidEvent, "/data_base64"},
		"base64 that is none":               {ce("application/cloudevents+json"), structured(`,"data_base64":"?"`), intake.ErrInvalidEvent, "/data_base64"},
		"an attribute twice":                {ce("application/cloudevents+json"), structured(`,"id":"2","data":{}`), intake.ErrInvalidEvent, "/id"},
		"a name that is no attribute's":     {ce("application/cloudevents+json"), structured(`,"trace/parent":"1","data":{}`), intake.ErrInvalidEvent, "/trace~1parent"},
		"an id that is a number":            {ce("application/cloudevents+json"), `{"specversion":"1.0","id":1,"source":"/crm","type":"t","data":{}}`, intake.ErrInvalidEvent, "/id"},
		"an empty id":                       {ce("application/cloudevents+json"), `{"specversion":"1.0","id":"","source":"/crm","type":"t","data":{}}`, intake.ErrInvalidEvent, "/id"},
		"a control character in the id":     {ce("application/cloudevents+json"), `{"specversion":"1.0","id":"a\u0000b","source":"/crm","type":"t","data":{}}`, intake.ErrInvalidEvent, "/id"},
		"no source":                         {ce("application/cloudevents+json"), `{"specversion":"1.0","id":"1","type":"t","data":{}}`, intake.ErrInvalidEvent, "/source"},
		"a source that is no reference":     {ce("application/cloudevents+json"), `{"specversion":"1.0","id":"1","source":"http://[::1","type":"t","data":{}}`, intake.ErrInvalidEvent, "/source"},
		"no type":                           {ce("application/cloudevents+json"), `{"specversion":"1.0","id":"1","source":"/crm","data":{}}`, intake.ErrInvalidEvent, "/type"},
		"another version of CloudEvents":    {ce("application/cloudevents+json"), `{"specversion":"0.3","id":"1","source":"/crm","type":"t","data":{}}`, intake.ErrInvalidEvent, "/specversion"},
		"a time that is none":               {ce("application/cloudevents+json"), structured(`,"time":"yesterday","data":{}`), intake.ErrInvalidEvent, "/time"},
		"a time before all CRMs":            {ce("application/cloudevents+json"), structured(`,"time":"0000-01-01T00:00:00Z","data":{}`), intake.ErrInvalidEvent, "/time"},
		"an extension that is an object":    {ce("application/cloudevents+json"), structured(`,"trace":{},"data":{}`), intake.ErrInvalidEvent, "/trace"},
		"an extension that is a fraction":   {ce("application/cloudevents+json"), structured(`,"trace":1.5,"data":{}`), intake.ErrInvalidEvent, "/trace"},
		"binary with a header twice":        {with("Ce-Id", "1", "2"), `{}`, intake.ErrInvalidEvent, "/id"},
		"binary that is not UTF-8":          {with("Ce-Id", "%ff"), `{}`, intake.ErrInvalidEvent, "/id"},
		"binary with a content type header": {with("Ce-Datacontenttype", "application/json"), `{}`, intake.ErrInvalidEvent, "/datacontenttype"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := intake.Parse(tc.header, []byte(tc.body), intake.Limits{})
			if !errors.Is(err, tc.want) {
				t.Fatalf("Parse = %v, want %v", err, tc.want)
			}
			var refused *intake.RefusedError
			if errors.As(err, &refused) != (errors.Is(tc.want, intake.ErrInvalidEvent) || tc.pointer != "") {
				t.Fatalf("Parse = %#v", err)
			}
			if refused != nil && refused.Refusals[0].Pointer != tc.pointer {
				t.Errorf("Parse points at %q, want %q", refused.Refusals[0].Pointer, tc.pointer)
			}
		})
	}
}

func TestParseRefusesWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	limits := intake.Limits{RequestBytes: 400, EventBytes: 150, Events: 2}
	small := structured(`,"data":{}`)
	large := structured(`,"data":{"a":"` + strings.Repeat("x", 100) + `"}`)
	binary := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/crm"}, "Ce-Type": {"t"}}
	batch := http.Header{"Content-Type": {intake.MediaTypeBatch}}
	for name, tc := range map[string]struct {
		header http.Header
		body   string
		index  int // of the event; -1 is the request
	}{
		"a body":               {batch, `[` + strings.Repeat(" ", 400) + `]`, -1},
		"too many events":      {batch, `[` + small + `,` + small + `,` + small + `]`, -1},
		"one event of a batch": {batch, `[` + small + `,` + large + `]`, 1},
		"a binary event":       {binary, `"` + strings.Repeat("x", 150) + `"`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := intake.Parse(tc.header, []byte(tc.body), limits)
			if !errors.Is(err, schema.ErrTooLarge) {
				t.Fatalf("Parse = %v, want ErrTooLarge", err)
			}
			index := -1
			var refused *intake.RefusedError
			if errors.As(err, &refused) {
				index = refused.Refusals[0].Index
			}
			if index != tc.index {
				t.Errorf("Parse blames event %d, want %d", index, tc.index)
			}
		})
	}
}

// FuzzParse holds: whatever arrives, Parse answers with one of its errors or with events that are whole, and what it
// read it reads again from its own JSON.
func FuzzParse(f *testing.F) {
	for _, d := range domain.Declarations() {
		data, err := json.Marshal(d.Example)
		if err != nil {
			f.Fatal(err)
		}
		body := `{"specversion":"1.0","id":"1","source":"/crm","time":"2026-11-23T04:05:06.5+10:00","type":"` + d.Type + `","data":` + string(data) + `}`
		f.Add(intake.MediaTypeEvent, "", "", []byte(body))
		f.Add(intake.MediaTypeBatch, "", "", []byte("["+body+","+body+"]"))
		f.Add("application/json", "1", d.Type, data)
	}
	f.Add(intake.MediaTypeEvent, "", "", []byte(`{"specversion":"1.0","id":"\ud800","source":"%","type":"t","data_base64":"e30="}`))
	f.Fuzz(func(t *testing.T, contentType, id, eventType string, body []byte) {
		header := http.Header{"Content-Type": {contentType}}
		if id != "" || eventType != "" {
			header["Ce-Specversion"], header["Ce-Id"], header["Ce-Source"], header["Ce-Type"] = []string{"1.0"}, []string{id}, []string{"/crm"}, []string{eventType}
		}
		events, err := intake.Parse(header, body, intake.Limits{})
		if err != nil {
			if !errors.Is(err, intake.ErrMediaType) && !errors.Is(err, intake.ErrNotJSON) && !errors.Is(err, intake.ErrInvalidEvent) && !errors.Is(err, schema.ErrTooLarge) {
				t.Fatalf("Parse: %v is none of its errors", err)
			}
			return
		}
		for _, e := range events {
			if e.ID == "" || e.Source == "" || e.Type == "" || !json.Valid(e.Data) {
				t.Fatalf("Parse accepted %+v", e)
			}
			attributes := map[string]any{"specversion": "1.0", "id": e.ID, "source": e.Source, "type": e.Type, "data_base64": e.Data}
			if !e.Time.IsZero() {
				attributes["time"] = e.Time.Format(time.RFC3339Nano)
			}
			again, err := json.Marshal(attributes)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := intake.Parse(http.Header{"Content-Type": {intake.MediaTypeEvent}}, again, intake.Limits{EventBytes: 8 << 20})
			if err != nil || len(parsed) != 1 {
				t.Fatalf("Parse of %s: %v", again, err)
			}
			p := parsed[0]
			if p.ID != e.ID || p.Source != e.Source || p.Type != e.Type || !p.Time.Equal(e.Time) || !bytes.Equal(p.Data, e.Data) {
				t.Fatalf("Parse of %s = %+v, want %+v", again, p, e)
			}
		}
	})
}
