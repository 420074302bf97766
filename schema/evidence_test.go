package schema_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// deliveryStory is a ledger in which Jane opted in, a target was changed twice, a firing was delivered on the second
// attempt, and Jane opted out afterwards.
type deliveryStory struct {
	*signedLedger
	jane, delivery uuid.UUID
}

const janesBody = `{"reward": 10}`

func newDeliveryStory(t *testing.T) *deliveryStory {
	t.Helper()
	s := &deliveryStory{signedLedger: newSignedLedger(t), jane: uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313")}
	target := domain.TargetChanged{Target: domain.Target{
		Handle: "welcome", URL: "https://hooks.example/in", Body: janesBody, Consent: &domain.ConsentRule{Channel: domain.Email, Purpose: domain.Promo},
	}}
	target.Normalize()
	s.record(t, target)
	s.append(t, 20)
	s.consent(t, domain.OptedOut, 1)
	s.consent(t, domain.OptedIn, 2)
	target.Name = "Welcome, again"
	used := s.record(t, target)
	fired := s.record(t, domain.ReactionFired{Reaction: "joined", Target: "welcome", ProfileID: s.jane, Cause: "reaction", Context: []byte(`{"name":"Jane"}`)})
	s.append(t, 20)

	firing := domain.Firing{
		FiringID: fired.ID, FiringPosition: fired.Position, Reaction: "joined", Cause: "reaction", Target: "welcome", TargetVersion: used.Version,
		Platform: "webhook", ProfileID: s.jane,
	}
	s.delivery = domain.DeliveryID(fired.ID, "welcome")
	decided := s.now.Add(2 * time.Hour)
	sum := sha256.Sum256([]byte(janesBody))
	s.record(t, domain.DeliveryPlanned{
		DeliveryID: s.delivery, Firing: firing, BodySHA256: hex.EncodeToString(sum[:]), BodyBytes: len(janesBody), MaxAttempts: 8,
		URL: "https://hooks.example/in", Body: janesBody,
		Consent: domain.Decision{
			Decision: domain.DecisionAllowed, Reason: "opted_in", Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedIn,
			DecidedAt: &decided, DecidedBy: "customer", Position: 23, AsOf: fired.Position,
		},
	})
	s.record(t, domain.DeliveryAttempted{DeliveryID: s.delivery, Target: "welcome", ProfileID: s.jane, Attempt: 1, Status: 503, Verdict: domain.RetryLater, Outcome: domain.Retrying})
	s.append(t, 300)
	s.record(t, domain.DeliveryAttempted{
		DeliveryID: s.delivery, Target: "welcome", ProfileID: s.jane, Attempt: 2, Status: 202, Verdict: domain.Accepted, Outcome: domain.Succeeded,
		ResponseBody: "welcome, jane@example.com",
	})
	s.consent(t, domain.OptedOut, 3)
	s.append(t, 50)
	s.grow(t, 0)
	s.sign(t)
	return s
}

// record seals and appends one event, as the service does.
func (s *deliveryStory) record(t *testing.T, p domain.Payload) schema.Appended {
	t.Helper()
	e, secret, err := domain.New(uuid.New(), p)
	if err != nil {
		t.Fatal(err)
	}
	e.Actor, e.Source, e.OccurredAt = "test", "/test", s.now
	if c, ok := p.(domain.ConsentChanged); ok {
		e.OccurredAt = c.DecidedAt
	}
	events := []domain.Event{e}
	if err := s.vault.SealEvents(t.Context(), events, [][]byte{secret}); err != nil {
		t.Fatal(err)
	}
	appended, err := s.ledger.Append(t.Context(), events...)
	if err != nil {
		t.Fatal(err)
	}
	return appended[0]
}

func (s *deliveryStory) consent(t *testing.T, status domain.ConsentStatus, hour int) {
	t.Helper()
	s.record(t, domain.ConsentChanged{
		ProfileID: s.jane, DecidedAt: s.now.Add(time.Duration(hour) * time.Hour), DecidedBy: "customer",
		Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.Promo, Status: status}}, Contact: &domain.Contact{Email: "jane@example.com"},
	})
}

func (s *deliveryStory) collect(t *testing.T, o schema.EvidenceOptions) evidence.Bundle {
	t.Helper()
	b, err := schema.CollectEvidence(t.Context(), s.db.DB, s.delivery, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// throughFile writes a bundle and reads it again, with nothing but the public key as text.
func (s *deliveryStory) throughFile(t *testing.T, b evidence.Bundle) (evidence.Report, string, error) {
	t.Helper()
	var file bytes.Buffer
	if err := b.Write(&file); err != nil {
		t.Fatal(err)
	}
	text := file.String()
	read, err := evidence.Read(&file)
	if err != nil {
		t.Fatal(err)
	}
	known, err := evidence.ParseKeys(s.Keys.Public...)
	if err != nil {
		t.Fatal(err)
	}
	r, err := evidence.Verify(read, known)
	return r, text, err
}

func TestEvidence(t *testing.T) {
	t.Parallel()
	s := newDeliveryStory(t)
	r, text, err := s.throughFile(t, s.collect(t, schema.EvidenceOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, e := range r.Events {
		parts = append(parts, e.Part+" "+e.Type)
	}
	want := []string{
		"consent consent.changed", "consent consent.changed", "target target.changed", "firing reaction.fired",
		"delivery delivery.planned", "delivery delivery.attempted", "delivery delivery.attempted", "consent consent.changed",
	}
	if !slices.Equal(parts, want) {
		t.Errorf("events = %q, want %q", parts, want)
	}
	if r.Outcome != domain.Succeeded || len(r.Consent) != 1 || !r.Consent[0].Recomputed {
		t.Errorf("report = %+v, want succeeded, and the consent recomputed", r)
	}
	told := r.String()
	for _, sentence := range []string{
		`it was rendered from version 2 of target "welcome" (event 24)`,
		`allowed, because customer opted in to email/promo at 2026-11-23T06:05:06Z (event 23)`,
		`the delivery's 3 events are all that were recorded of it up to position`,
	} {
		if !strings.Contains(told, sentence) {
			t.Errorf("report does not say %q:\n%s", sentence, told)
		}
	}
	for _, secret := range []string{"jane@example.com", "Jane", "hooks.example/in\",\"headers"} {
		if strings.Contains(text, secret) {
			t.Errorf("the bundle without the sealed parts holds %q", secret)
		}
	}
}

// TestEvidenceOpened includes the sealed parts for who may see them; an erased person's stay closed.
func TestEvidenceOpened(t *testing.T) {
	t.Parallel()
	s := newDeliveryStory(t)
	r, text, err := s.throughFile(t, s.collect(t, schema.EvidenceOptions{Opener: s.vault}))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "jane@example.com") || !strings.Contains(r.String(), "the body shown is the one that was recorded to be sent") {
		t.Errorf("the opened bundle does not show what was sealed:\n%s", r)
	}
	b := s.collect(t, schema.EvidenceOptions{Opener: s.vault})
	i := slices.IndexFunc(b.Events, func(e evidence.Event) bool { return e.Type == "delivery.planned" })
	b.Events[i].Opened = strings.Replace(b.Events[i].Opened, "10", "99", 1)
	if _, _, err := s.throughFile(t, b); !errors.Is(err, evidence.ErrStory) || !strings.Contains(err.Error(), "not the one whose hash was recorded") {
		t.Errorf("another body = %v, want ErrStory", err)
	}

	tx, err := s.db.BeginTx(t.Context(), nil)
	if err == nil {
		err = errors.Join(s.vault.Erase(t.Context(), tx, s.jane, "privacy", "request 7"), tx.Commit())
	}
	if err != nil {
		t.Fatal(err)
	}
	_, text, err = s.throughFile(t, s.collect(t, schema.EvidenceOptions{Opener: s.vault}))
	if err != nil || strings.Contains(text, "jane@example.com") {
		t.Errorf("after erasure: %v, and the bundle must not show what was erased", err)
	}
}

// TestEvidenceDoesNotLie changes a bundle in every way that would tell another story.
func TestEvidenceDoesNotLie(t *testing.T) {
	t.Parallel()
	s := newDeliveryStory(t)
	whole := s.collect(t, schema.EvidenceOptions{})
	at := func(b *evidence.Bundle, eventType string) *evidence.Event {
		return &b.Events[slices.IndexFunc(b.Events, func(e evidence.Event) bool { return e.Type == eventType })]
	}
	drop := func(i int) func(*evidence.Bundle) {
		return func(b *evidence.Bundle) { b.Events = slices.Delete(slices.Clone(b.Events), i, i+1) }
	}
	for name, tc := range map[string]struct {
		change func(*evidence.Bundle)
		want   error
	}{
		"an event's data is edited": {func(b *evidence.Bundle) {
			e := at(b, "delivery.attempted")
			e.Data = strings.Replace(e.Data, "503", "202", 1)
		}, evidence.ErrTree},
		"an event's state is edited":          {func(b *evidence.Bundle) { at(b, "delivery.attempted").State = "failed" }, evidence.ErrTree},
		"an event's time is edited":           {func(b *evidence.Bundle) { e := at(b, "delivery.planned"); e.RecordedAt = e.RecordedAt.Add(time.Second) }, evidence.ErrTree},
		"an event's position is edited":       {func(b *evidence.Bundle) { at(b, "delivery.planned").Position++ }, evidence.ErrTree},
		"that it has a sealed part is hidden": {func(b *evidence.Bundle) { at(b, "delivery.planned").SealedSHA256 = "" }, evidence.ErrTree},
		"a hash of the proof is edited": {func(b *evidence.Bundle) {
			e := at(b, "delivery.planned")
			e.Path = slices.Clone(e.Path)
			e.Path[1][0] ^= 1
		}, evidence.ErrTree},
		"the proof is cut short":                {func(b *evidence.Bundle) { e := at(b, "delivery.planned"); e.Path = e.Path[1:] }, evidence.ErrTree},
		"the checkpoint is edited":              {func(b *evidence.Bundle) { b.Checkpoint = strings.Replace(b.Checkpoint, "\n39", "\n38", 1) }, evidence.ErrSignature},
		"the checkpoint is not signed":          {func(b *evidence.Bundle) { b.Checkpoint, _, _ = strings.Cut(b.Checkpoint, "—") }, evidence.ErrFormat},
		"the opt-out is left out":               {drop(0), evidence.ErrStory},
		"the opt-in is left out":                {drop(1), evidence.ErrStory},
		"both are":                              {func(b *evidence.Bundle) { drop(0)(b); drop(0)(b) }, evidence.ErrStory},
		"the target's version is left out":      {drop(2), evidence.ErrStory},
		"the firing is left out":                {drop(3), evidence.ErrStory},
		"the plan is left out":                  {drop(4), evidence.ErrStory},
		"an attempt is left out":                {drop(5), evidence.ErrStory},
		"nothing is left":                       {func(b *evidence.Bundle) { b.Events = nil }, evidence.ErrStory},
		"it is said to be another delivery":     {func(b *evidence.Bundle) { b.DeliveryID = uuid.New() }, evidence.ErrStory},
		"data that the story needs is left out": {func(b *evidence.Bundle) { at(b, "delivery.planned").Redact() }, evidence.ErrStory},
		"data and its hash":                     {func(b *evidence.Bundle) { at(b, "reaction.fired").DataSHA256 = strings.Repeat("00", 32) }, evidence.ErrFormat},
		"a hash that is none":                   {func(b *evidence.Bundle) { at(b, "reaction.fired").SealedSHA256 = "00" }, evidence.ErrFormat},
		"an event twice":                        {func(b *evidence.Bundle) { b.Events = append(b.Events, b.Events[len(b.Events)-1]) }, evidence.ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := whole
			b.Events = slices.Clone(whole.Events)
			tc.change(&b)
			if _, _, err := s.throughFile(t, b); !errors.Is(err, tc.want) || !evidence.IsUnproven(err) {
				t.Errorf("Verify = %v, want %v", err, tc.want)
			}
		})
	}
	_, other, err := note.GenerateKey(zeros{}, s.Origin)
	if err != nil {
		t.Fatal(err)
	}
	known, err := evidence.ParseKeys(other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := evidence.Verify(whole, known); !errors.Is(err, evidence.ErrSignature) {
		t.Errorf("Verify with another key = %v, want ErrSignature", err)
	}
}

// zeros is a source of a key that is always the same.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestEvidenceRedacted leaves out data that the story does without.
func TestEvidenceRedacted(t *testing.T) {
	t.Parallel()
	s := newDeliveryStory(t)
	b := s.collect(t, schema.EvidenceOptions{Opener: s.vault})
	i := slices.IndexFunc(b.Events, func(e evidence.Event) bool { return e.Type == "reaction.fired" })
	b.Events[i].Redact()
	if _, text, err := s.throughFile(t, b); err != nil || strings.Contains(text, `"name\":\"Jane`) {
		t.Errorf("redacted: %v, and the context must be gone", err)
	}
}

// TestEvidenceWaits for the checkpoint that covers the delivery.
func TestEvidenceWaits(t *testing.T) {
	t.Parallel()
	s := newDeliveryStory(t)
	if _, err := schema.CollectEvidence(t.Context(), s.db.DB, uuid.New(), schema.EvidenceOptions{}); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("of no delivery = %v, want ErrNotFound", err)
	}
	s.record(t, domain.DeliveryAttempted{DeliveryID: s.delivery, Target: "welcome", ProfileID: s.jane, Attempt: 3, Verdict: domain.Duplicate, Outcome: domain.Succeeded})
	if _, err := schema.CollectEvidence(t.Context(), s.db.DB, s.delivery, schema.EvidenceOptions{}); !errors.Is(err, schema.ErrTreeBehind) {
		t.Errorf("before it is signed = %v, want ErrTreeBehind", err)
	}
	s.grow(t, 0)
	s.sign(t)
	if r, _, err := s.throughFile(t, s.collect(t, schema.EvidenceOptions{})); err != nil || len(r.Events) != 9 {
		t.Errorf("signed: %+v, %v, want 9 events", r, err)
	}
}
