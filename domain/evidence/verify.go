package evidence

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// ErrStory is a bundle whose events are all genuine and do not tell what a delivery's events must: one is left out, or they
// do not fit together. It wraps ErrUnproven.
var ErrStory = fmt.Errorf("%w: story", ErrUnproven)

// ParseKeys reads public keys, C2SP signed-note "vkey"s, as `dispatch-ledger checkpoint` prints them. A key of a witness is read
// as one too; its cosignatures are then told with their time.
func ParseKeys(keys ...string) (note.Verifiers, error) {
	var all []note.Verifier
	for _, k := range keys {
		k = strings.TrimSpace(k)
		v, err := note.NewVerifier(k)
		if err != nil {
			v, err = fnote.NewVerifierForCosignatureV1(k)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %.100q is no public key; it looks like NAME+HASH+KEY: %w", ErrFormat, k, err)
		}
		all = append(all, v)
	}
	return note.VerifierList(all...), nil
}

// Report says what a bundle proves.
type Report struct {
	DeliveryID uuid.UUID        `json:"delivery_id"`
	Origin     string           `json:"origin"`  // the log that signed
	Size       int64            `json:"size"`    // events that its checkpoint covers
	Signed     []string         `json:"signed"`  // the keys, of the log and of witnesses, whose signatures hold
	Outcome    domain.Outcome   `json:"outcome"` // of the delivery, by its last event
	Consent    []ConsentFinding `json:"consent,omitempty"`
	Events     []Described      `json:"events"`
	Proven     []string         `json:"proven"`             // sentences
	Unproven   []string         `json:"unproven,omitempty"` // what it does not prove, sentences
}

// Described is an event of the bundle, told.
type Described struct {
	Position   int64     `json:"position"`
	RecordedAt time.Time `json:"recorded_at"`
	Type       string    `json:"type"`
	Part       string    `json:"part"` // in the story: firing, target, consent, policy, delivery or other
}

// ConsentFinding is a decision of the ledger on consent, and whether the person's own decisions give it.
type ConsentFinding struct {
	At         int64           `json:"at"` // position of the delivery's event that states it
	Decision   domain.Decision `json:"decision"`
	Recomputed bool            `json:"recomputed"` // the rule of the target's version, asked of the person's events, answers the same
}

// Verify reads a bundle and checks all that can be checked offline: the signature, each event's place in the ledger, and that the
// events tell one story without a gap. known are the public keys that are trusted, from somewhere other than the bundle.
//
// An error says what does not hold: ErrSignature, ErrLeaf and ErrTree for the proofs, ErrStory for what they are about, ErrFormat.
func Verify(b Bundle, known note.Verifiers) (Report, error) {
	r := Report{DeliveryID: b.DeliveryID}
	c, n, err := OpenCheckpoint([]byte(b.Checkpoint), known)
	if err != nil {
		return r, err
	}
	r.Origin, r.Size = c.Origin, c.Size
	for _, s := range n.Sigs {
		r.Signed = append(r.Signed, fmt.Sprintf("%s+%08x", s.Name, s.Hash))
	}
	if err := verifyEvents(b, c); err != nil {
		return r, err
	}
	s, err := readStory(b)
	if err != nil {
		return r, err
	}
	r.prove("each of the %d events stands in the ledger %s as it is written here, among the %d that it has signed", len(b.Events), c.Origin, c.Size)
	if err := s.tell(&r); err != nil {
		return r, err
	}
	for _, e := range s.all {
		r.Events = append(r.Events, Described{Position: e.Position, RecordedAt: e.RecordedAt, Type: e.Type, Part: s.part(e)})
	}
	return r, nil
}

func (r *Report) prove(format string, args ...any) {
	r.Proven = append(r.Proven, fmt.Sprintf(format, args...))
}

func (r *Report) limit(format string, args ...any) {
	r.Unproven = append(r.Unproven, fmt.Sprintf(format, args...))
}

// verifyEvents checks each event's leaf against the checkpoint.
func verifyEvents(b Bundle, c Checkpoint) error {
	last := int64(0)
	for i := range b.Events {
		e := &b.Events[i]
		if e.Position <= last {
			return fmt.Errorf("%w: the events are not in the order of their positions, at %d", ErrFormat, e.Position)
		}
		last = e.Position
		leaf, err := e.Leaf()
		if err != nil {
			return err
		}
		if err := b.Proof(*e).in(c, leaf); err != nil {
			return err
		}
	}
	return nil
}

// story is a bundle's events by the part that they play. Which one that is follows from the events themselves.
type story struct {
	id       uuid.UUID
	all      []Event
	delivery []Event // its stream
	firing   *Event
	target   *Event
	people   map[uuid.UUID][]Event // the streams of the person, of profiles merged with theirs, of whoever a decision rests on
	policies []Event               // the stream of the policy for legacy consent
	about    domain.Firing
}

func readStory(b Bundle) (*story, error) {
	s := &story{id: b.DeliveryID, all: b.Events, people: map[uuid.UUID][]Event{}}
	for _, e := range b.Events {
		if e.Stream == domain.DeliveryStream(b.DeliveryID) {
			s.delivery = append(s.delivery, e)
		}
	}
	if err := gapless(s.delivery, "the delivery"); err != nil {
		return nil, err
	}
	first, err := decode(s.delivery[0])
	if err != nil {
		return nil, err
	}
	switch p := first.(type) {
	case domain.DeliveryPlanned:
		s.about = p.Firing
	case domain.DeliveryWithheld:
		s.about = p.Firing
	case domain.DeliveryRejected:
		s.about = p.Firing
	default:
		return nil, fmt.Errorf("%w: the delivery begins with %s, which begins none", ErrStory, s.delivery[0].Type)
	}
	for i := range b.Events {
		e := &b.Events[i]
		switch {
		case e.Position == s.about.FiringPosition:
			s.firing = e
		case e.Stream == domain.TargetStream(s.about.Target) && e.Type == "target.changed" && e.Version <= s.about.TargetVersion:
			s.target = e
		case e.Stream == domain.ConsentPolicyStream:
			s.policies = append(s.policies, *e)
		default:
			if profile, ok := domain.ProfileOfStream(e.Stream); ok {
				s.people[profile] = append(s.people[profile], *e)
			}
		}
	}
	return s, nil
}

// part names an event's part in the story.
func (s *story) part(e Event) string {
	switch {
	case e.Stream == domain.DeliveryStream(s.id):
		return "delivery"
	case s.firing != nil && e.Position == s.firing.Position:
		return "firing"
	case s.target != nil && e.Position == s.target.Position:
		return "target"
	case e.Stream == domain.ConsentPolicyStream:
		return "policy"
	}
	if profile, ok := domain.ProfileOfStream(e.Stream); ok && len(s.people[profile]) > 0 {
		return "consent"
	}
	return "other"
}

// gapless checks that events are the versions 1, 2, 3, … of their stream.
func gapless(events []Event, of string) error {
	for i, e := range events {
		if e.Version != int64(i+1) {
			return fmt.Errorf("%w: of %s the event with version %d is left out", ErrStory, of, i+1)
		}
	}
	if len(events) == 0 {
		return fmt.Errorf("%w: of %s there is no event", ErrStory, of)
	}
	return nil
}

func decode(e Event) (domain.Payload, error) {
	if e.Data == "" {
		return nil, fmt.Errorf("%w: the data of the %s event at position %d is left out, and the story needs it", ErrStory, e.Type, e.Position)
	}
	var opened []byte
	if e.Opened != "" {
		opened = []byte(e.Opened)
	}
	p, err := domain.Decode(e.Type, []byte(e.Data), opened)
	if err != nil {
		return nil, fmt.Errorf("%w: event %d: %w", ErrStory, e.Position, err)
	}
	return p, nil
}

// tell checks that the events fit together and says what they show.
func (s *story) tell(r *Report) error {
	if err := s.tellFiring(r); err != nil {
		return err
	}
	rule, err := s.tellTarget(r)
	if err != nil {
		return err
	}
	for _, e := range s.delivery {
		p, err := decode(e)
		if err != nil {
			return err
		}
		if e.DeliveryID != s.id {
			return fmt.Errorf("%w: event %d is about delivery %s", ErrStory, e.Position, e.DeliveryID)
		}
		r.Outcome = domain.Outcome(e.State)
		var decision *domain.Decision
		moments := []time.Time{s.firing.RecordedAt, e.RecordedAt} // at one of which the rule was asked
		switch p := p.(type) {
		case domain.DeliveryPlanned:
			decision = &p.Consent
			if err := tellBody(r, e, p); err != nil {
				return err
			}
		case domain.DeliveryWithheld:
			decision = &p.Consent
		case domain.DeliveryAttempted:
			decision, moments = p.Consent, append(moments, p.StartedAt)
		}
		if decision != nil && decision.Decision != "" {
			if err := s.tellConsent(r, e, *decision, rule, moments); err != nil {
				return err
			}
		}
	}
	r.prove("the delivery's %d events are all that were recorded of it up to position %d, none between them left out", len(s.delivery), s.delivery[len(s.delivery)-1].Position)
	r.limit("whether more was recorded of the delivery after that: ask for evidence with a newer checkpoint")
	s.limits(r)
	return nil
}

func (s *story) tellFiring(r *Report) error {
	if s.firing == nil {
		return fmt.Errorf("%w: the firing at position %d is left out", ErrStory, s.about.FiringPosition)
	}
	if s.firing.ID != s.about.FiringID || s.firing.Type != "reaction.fired" || domain.DeliveryID(s.firing.ID, s.about.Target) != s.id {
		return fmt.Errorf("%w: the delivery does not follow from the event at position %d", ErrStory, s.firing.Position)
	}
	r.prove("the delivery answers the firing of %q at %s (event %d) and no other", s.about.Reaction, s.firing.RecordedAt.Format(time.RFC3339), s.firing.Position)
	return nil
}

// tellTarget returns the consent rule of the version that was used; nil when it has none, or there was no such target.
func (s *story) tellTarget(r *Report) (*domain.ConsentRule, error) {
	if s.about.TargetVersion == 0 {
		r.prove("there was no target %q to send through", s.about.Target)
		return nil, nil
	}
	if s.target == nil {
		return nil, fmt.Errorf("%w: version %d of target %q is left out", ErrStory, s.about.TargetVersion, s.about.Target)
	}
	p, err := decode(*s.target)
	if err != nil {
		return nil, err
	}
	changed, ok := p.(domain.TargetChanged)
	if !ok || changed.Handle != s.about.Target || s.target.Position > s.delivery[0].Position {
		return nil, fmt.Errorf("%w: event %d is not the version of target %q that was used", ErrStory, s.target.Position, s.about.Target)
	}
	r.prove("it was rendered from version %d of target %q (event %d)", s.target.Version, s.about.Target, s.target.Position)
	if s.target.Version != s.about.TargetVersion {
		r.limit("whether target %q was changed between its versions %d and %d", s.about.Target, s.target.Version, s.about.TargetVersion)
	}
	return changed.Consent, nil
}

// tellBody compares the body that was opened with the hash of it that is under the proof.
func tellBody(r *Report, e Event, p domain.DeliveryPlanned) error {
	if e.Opened == "" {
		return nil
	}
	if hexSHA256([]byte(p.Body)) != p.BodySHA256 {
		return fmt.Errorf("%w: the body that is shown opened is not the one whose hash was recorded at position %d", ErrStory, e.Position)
	}
	r.prove("the body shown is the one that was recorded to be sent (SHA-256 %s)", p.BodySHA256)
	return nil
}

// limits says what is in the file and not under the proof.
func (s *story) limits(r *Report) {
	for _, e := range s.all {
		switch {
		case e.Opened == "":
		case e.Type == "delivery.planned":
			r.limit("the URL and headers shown opened of the event at position %d: only their encrypted form is under the proof", e.Position)
		default:
			r.limit("what is shown opened of the event at position %d: only its encrypted form is under the proof", e.Position)
		}
	}
}

// String tells the report to people.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Delivery %s: %s\nSigned by %s\n\nProven:\n", r.DeliveryID, r.Outcome, strings.Join(r.Signed, ", "))
	for _, p := range r.Proven {
		fmt.Fprintf(&b, "- %s\n", p)
	}
	if len(r.Unproven) > 0 {
		b.WriteString("\nNot proven by this file:\n")
	}
	for _, p := range r.Unproven {
		fmt.Fprintf(&b, "- %s\n", p)
	}
	b.WriteString("\nEvents:\n")
	for _, e := range r.Events {
		fmt.Fprintf(&b, "%8d  %s  %-8s  %s\n", e.Position, e.RecordedAt.UTC().Format(time.RFC3339), e.Part, e.Type)
	}
	return b.String()
}

// IsUnproven reports whether an error says that something does not hold, as against one that kept it from being checked.
func IsUnproven(err error) bool { return errors.Is(err, ErrUnproven) }
