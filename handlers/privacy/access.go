package privacy

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Access is everything that the ledger holds on a person: what the GDPR's article 15 and its relatives ask for.
type Access struct {
	ProfileID   uuid.UUID       `json:"profile_id"`
	GeneratedAt time.Time       `json:"generated_at"`
	UpTo        int64           `json:"up_to" doc:"The position up to which the ledger was read."`
	Erased      *Tombstone      `json:"erased" doc:"When and why the person was erased; null when they were not."`
	Consent     []consent.Entry `json:"consent" nullable:"false" doc:"The answers that hold now."`
	History     []consent.Entry `json:"history" nullable:"false" doc:"Every answer, in the order in which the ledger heard of them."`
	Merges      []consent.Merge `json:"merges" nullable:"false" doc:"Other profiles that the CRM found to be the same person. What is held on them is asked for by their ids."`
	Messages    []Message       `json:"messages" nullable:"false" doc:"What was sent to them, or was not, oldest first."`
	Events      []Held          `json:"events" nullable:"false" doc:"Every event about them, with its sealed part opened, oldest first."`
}

// Tombstone is what is left of a person's key.
type Tombstone struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
}

// Message is a delivery to the person.
type Message struct {
	DeliveryID uuid.UUID      `json:"delivery_id"`
	PlannedAt  time.Time      `json:"planned_at"`
	Reaction   string         `json:"reaction"`
	Target     string         `json:"target"`
	Platform   string         `json:"platform,omitempty"`
	Outcome    domain.Outcome `json:"outcome"`
	Detail     string         `json:"detail,omitempty"`
	FinishedAt *time.Time     `json:"finished_at"`
}

// Held is one event about the person.
type Held struct {
	Position   int64           `json:"position"`
	ID         uuid.UUID       `json:"id"`
	Type       string          `json:"type"`
	Summary    string          `json:"summary" doc:"What an event of the type says."`
	OccurredAt *time.Time      `json:"occurred_at"`
	RecordedAt time.Time       `json:"recorded_at"`
	Actor      string          `json:"actor"`
	Source     string          `json:"source"`
	Data       json.RawMessage `json:"data"`
	Seal       schema.Seal     `json:"seal,omitempty" enum:"sealed,erased,expired" doc:"Of its sealed part: sealed (opened below), erased or expired; absent when it has none."`
	Sealed     json.RawMessage `json:"sealed,omitempty" doc:"The sealed part, opened."`
}

// Access collects everything that is held on a person, after recording who asks for it and why. It works for whoever
// was erased too: what is left is what there is.
func (s *Service) Access(ctx context.Context, profile uuid.UUID, by By) (Access, error) {
	if err := requireProfile(profile); err != nil {
		return Access{}, err
	}
	if err := by.check(); err != nil {
		return Access{}, err
	}
	at, err := s.record(ctx, by, domain.SealedRevealed{ProfileID: profile, What: "access", Reason: by.Reason})
	if err != nil {
		return Access{}, err
	}
	out := Access{ProfileID: profile, GeneratedAt: s.Clock().UTC(), UpTo: at.Position, Consent: []consent.Entry{}, Messages: []Message{}, Events: []Held{}}
	stone, erased, err := s.Vault.Erasure(ctx, profile)
	if err != nil {
		return Access{}, err
	}
	if erased {
		out.Erased = &Tombstone{At: stone.At.UTC(), By: stone.By, Reason: stone.Reason}
	}
	dossier, err := consent.Read(ctx, s.DB, profile, consent.AsOf{})
	if err != nil {
		return Access{}, err
	}
	out.Consent, out.History, out.Merges = append(out.Consent, dossier.Held()...), dossier.Answers, dossier.Merges
	if out.Messages, err = s.messages(ctx, profile); err != nil {
		return Access{}, err
	}
	events, err := s.about(ctx, profile)
	if err != nil {
		return Access{}, err
	}
	parts, err := s.Vault.Open(ctx, events)
	if err != nil {
		return Access{}, err
	}
	for i, e := range events {
		out.Events = append(out.Events, held(e, parts[i]))
	}
	return out, nil
}

func held(e domain.Recorded, part schema.Part) Held {
	h := Held{
		Position: e.Position, ID: e.ID, Type: e.Type, RecordedAt: e.RecordedAt.UTC(), Actor: e.Actor, Source: e.Source,
		Data: e.Data, Seal: part.Seal, Sealed: withoutPlaceholder(part.Secret),
	}
	if d, err := domain.Declared(e.Type); err == nil {
		h.Summary = d.Summary
	}
	if !e.OccurredAt.IsZero() {
		at := e.OccurredAt.UTC()
		h.OccurredAt = &at
	}
	return h
}

// messagesPage is how many deliveries are read at a time.
const messagesPage = 500

// messages lists a person's deliveries, oldest first.
func (s *Service) messages(ctx context.Context, profile uuid.UUID) ([]Message, error) {
	all := []Message{}
	for before := int64(0); ; {
		page, err := deliveries.List(ctx, s.DB, deliveries.Filter{Profile: profile, Before: before, Limit: messagesPage})
		if err != nil {
			return nil, err
		}
		for _, d := range page {
			all = append(all, Message{
				DeliveryID: d.ID, PlannedAt: d.PlannedAt.UTC(), Reaction: d.Firing.Reaction, Target: d.Firing.Target, Platform: d.Firing.Platform,
				Outcome: d.Outcome, Detail: d.Detail, FinishedAt: d.FinishedAt,
			})
			before = d.Position
		}
		if len(page) < messagesPage {
			break
		}
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all, nil
}

//go:embed access.html
var accessPage string

var accessTemplate = template.Must(template.New("access").Funcs(template.FuncMap{
	"stamp": func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04:05 UTC") },
	"pretty": func(raw json.RawMessage) (string, error) {
		var value any
		if err := json.Unmarshal(raw, &value); err != nil {
			return "", err
		}
		pretty, err := json.MarshalIndent(value, "", "  ")
		return string(pretty), err
	},
}).Parse(accessPage))

// WriteHTML writes what is held as one page for people: no scripts, nothing loaded from anywhere, good on paper.
func (a Access) WriteHTML(w io.Writer) error {
	if err := accessTemplate.Execute(w, a); err != nil {
		return fmt.Errorf("access: %w", err)
	}
	return nil
}

// WriteJSON writes the same for programs.
func (a Access) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(a)
}
