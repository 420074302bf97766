package planner_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/planner"
	_ "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/all"
	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/contacts"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/queue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

var jane = uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313")

// desk is a ledger with a planner at work.
type desk struct {
	ledger  *schema.Ledger
	vault   *schema.Vault
	planner *planner.Planner
	engine  *projections.Engine
	live    []projections.Live
}

func newDesk(t *testing.T) desk {
	t.Helper()
	definitions := []projections.Definition{targets.Definition, consent.Definition, contacts.Definition, deliveries.Definition, queue.Definition}
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service", Paths: projections.Paths("", definitions...)})
	if err != nil {
		t.Fatal(err)
	}
	engine := projections.NewEngine(db, "", nil, definitions...)
	if _, err := engine.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	key, err := schema.LoadOrCreateMasterKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	vault, err := schema.OpenVault(t.Context(), db, key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ledger := schema.OpenLedger(db, nil, nil)
	t.Cleanup(func() {
		ledger.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	p, err := planner.New(ledger, vault, time.Now, map[string]any{"constant": "from the environment"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return desk{ledger: ledger, vault: vault, planner: p, engine: engine, live: engine.Live(100)}
}

// record appends an event and brings the projections along; what the planner answers to a firing is returned.
func (d desk) record(t *testing.T, p domain.Payload) domain.Payload {
	t.Helper()
	e, secret, err := domain.New(uuid.New(), p)
	if err != nil {
		t.Fatal(err)
	}
	e.Actor, e.Source = "test", "/test"
	switch p := p.(type) {
	case domain.ConsentChanged:
		e.OccurredAt = p.DecidedAt
	case domain.ProfileObserved:
		e.OccurredAt = p.ObservedAt
	}
	events := []domain.Event{e}
	if err := d.vault.SealEvents(t.Context(), events, [][]byte{secret}); err != nil {
		t.Fatal(err)
	}
	at, err := d.ledger.Append(t.Context(), events...)
	if err != nil {
		t.Fatal(err)
	}
	d.apply(t, schema.Slice{From: at[0].Position - 1, To: at[0].Position})
	for rec, err := range schema.Events(t.Context(), d.ledger.DB(), schema.Filter{After: at[0].Position}) {
		if err != nil {
			t.Fatal(err)
		}
		opened, err := d.vault.OpenEvents(t.Context(), []domain.Recorded{rec})
		if err != nil {
			t.Fatal(err)
		}
		if rec.CausationID != e.ID || rec.CorrelationID != e.ID {
			t.Errorf("%s does not say what caused it", rec.Type)
		}
		return opened[0].Payload
	}
	return nil
}

// apply shows a slice to the projections and then to the planner.
func (d desk) apply(t *testing.T, slice schema.Slice) {
	t.Helper()
	handlers := make([]schema.SliceHandler, 0, len(d.live)+1)
	for _, live := range d.live {
		handlers = append(handlers, live.Handle)
	}
	for _, handle := range append(handlers, d.planner.Handle) {
		tx, err := d.ledger.DB().BeginTx(context.WithoutCancel(t.Context()), nil)
		if err != nil {
			t.Fatal(err)
		}
		if failure, err := schema.Attempt(t.Context(), tx, slice, handle); failure != nil || err != nil {
			t.Fatalf("slice %s: %+v, %v", slice, failure, err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

func (d desk) target(t *testing.T, handle string, change func(*domain.Target)) {
	t.Helper()
	x := domain.Target{Handle: handle, URL: "https://example.com/{{ n }}", Body: `{"name": "{{ profile.first_name }}", "n": {{ n }}, "c": "{{ constant }}"}`, Headers: map[string]string{"Authorization": "Bearer {{ secret('key') }}"}}
	if change != nil {
		change(&x)
	}
	x.Normalize()
	d.record(t, domain.TargetChanged{Target: x})
}

func (d desk) fire(t *testing.T, target, context string, person uuid.UUID) domain.Payload {
	t.Helper()
	return d.record(t, domain.ReactionFired{Reaction: "r", Target: target, ProfileID: person, Cause: "reaction", Context: json.RawMessage(context)})
}

func TestEachFiringIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.target(t, "plain", nil)
	d.target(t, "promo", func(x *domain.Target) { x.Consent = &domain.ConsentRule{Channel: domain.Email, Purpose: domain.Promo} })
	d.target(t, "gold-only", func(x *domain.Target) { x.Condition = json.RawMessage(`{"===":[{"var":"tier"},"gold"]}`) })
	d.target(t, "strict", func(x *domain.Target) { x.Unresolved = domain.UnresolvedError })
	d.target(t, "klaviyo", func(x *domain.Target) { x.Platform = "klaviyo" })
	d.target(t, "off", nil)
	d.record(t, domain.TargetDisabled{Handle: "off", Reason: "the season is over"})
	d.target(t, "gone", nil)
	d.record(t, domain.TargetDeleted{Handle: "gone"})
	opted := uuid.New()
	d.record(t, domain.ConsentChanged{ProfileID: opted, DecidedBy: "customer", DecidedAt: time.Unix(1, 0), Changes: []domain.ConsentChange{{Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedIn}}})
	erased := uuid.New()
	d.fire(t, "plain", `{"n":1}`, erased)
	tx, err := d.ledger.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.vault.Erase(t.Context(), tx, erased, "test", "asked for"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}

	for name, tc := range map[string]struct {
		target, context string
		person          uuid.UUID
		want            string // planned, or the reason of the event that says why not
		detail          string
	}{
		"a target without a rule":           {"plain", `{"n":1,"profile":{"first_name":"J\"n"}}`, jane, "planned", ""},
		"about nobody":                      {"plain", `{"n":1}`, uuid.Nil, "planned", ""},
		"somebody who agreed":               {"promo", `{"n":1}`, opted, "planned", ""},
		"somebody who never did":            {"promo", `{"n":1}`, jane, "consent", "not having been asked is not consent"},
		"a rule and nobody to ask":          {"promo", `{"n":1}`, uuid.Nil, "consent", "names no person"},
		"a condition that holds":            {"gold-only", `{"n":1,"tier":"gold"}`, jane, "planned", ""},
		"a condition that does not":         {"gold-only", `{"n":1,"tier":"tin"}`, jane, "condition", "condition"},
		"no such target":                    {"nowhere", `{"n":1}`, jane, "unknown_target", "PUT /v1/targets/nowhere"},
		"a target that was withdrawn":       {"gone", `{"n":1}`, jane, "unknown_target", ""},
		"a target that is off":              {"off", `{"n":1}`, jane, "target_disabled", "the season is over"},
		"a variable that has to be there":   {"strict", `{"n":1}`, jane, "unresolved", "profile.first_name"},
		"a body that the platform refuses":  {"klaviyo", `{"n":1}`, jane, "invalid_body", ""},
		"an erased person":                  {"plain", `{"n":1}`, erased, "erased", "erased"},
		"a value that breaks out of JSON":   {"plain", `{"n":"1}, \"x\": {"}`, jane, "planned", ""},
		"a URL that the context leads away": {"plain", `{"n":"\u0001"}`, jane, "invalid_url", ""},
	} {
		t.Run(name, func(t *testing.T) {
			switch got := d.fire(t, tc.target, tc.context, tc.person).(type) {
			case domain.DeliveryPlanned:
				if tc.want != "planned" {
					t.Fatalf("planned, want %s", tc.want)
				}
				if !json.Valid([]byte(got.Body)) || got.BodySHA256 == "" || !strings.Contains(got.Headers["Authorization"], got.Placeholder+"key") {
					t.Errorf("planned %+v", got)
				}
			case domain.DeliveryWithheld:
				if got.Reason != tc.want || !strings.Contains(got.Detail, tc.detail) {
					t.Errorf("withheld because %s: %s", got.Reason, got.Detail)
				}
			case domain.DeliveryRejected:
				if got.Reason != tc.want || !strings.Contains(got.Detail, tc.detail) {
					t.Errorf("rejected because %s: %s", got.Reason, got.Detail)
				}
			default:
				t.Fatalf("answered by %T", got)
			}
		})
	}
}

// Which constants a request was rendered with is part of the evidence, and that a context stood in for one is said.
func TestConstantsAreEvidence(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.target(t, "constants", func(x *domain.Target) { x.Variables = map[string]any{"store": "seven"} })
	fire := func(context string) *domain.ConstantsUsed {
		t.Helper()
		planned, ok := d.record(t, domain.ReactionFired{Reaction: "r", Target: "constants", Cause: "reaction", Context: json.RawMessage(context)}).(domain.DeliveryPlanned)
		if !ok || planned.Constants == nil {
			t.Fatalf("planned %+v, want it with its constants", planned)
		}
		return planned.Constants
	}
	plain, shadowed := fire(`{"n":1,"profile":{"first_name":"Ada"}}`), fire(`{"n":1,"profile":{"first_name":"Ada"},"store":"mine","constant":null}`)
	sum := sha256.Sum256([]byte(`{"constant":"from the environment","store":"seven"}`))
	if plain.SHA256 != hex.EncodeToString(sum[:]) || shadowed.SHA256 != plain.SHA256 || plain.Shadowed != nil {
		t.Errorf("constants = %+v and %+v, want the hash %x in both", plain, shadowed, sum)
	}
	if !slices.Equal(shadowed.Shadowed, []string{"constant", "store"}) {
		t.Errorf("shadowed are %v, want both constants", shadowed.Shadowed)
	}

	d.planner.Environment = "production"
	d.target(t, "constants", func(x *domain.Target) {
		x.Variables = map[string]any{"store": "seven"}
		x.Environments = map[string]map[string]any{"production": {"store": "one"}}
	})
	sum = sha256.Sum256([]byte(`{"constant":"from the environment","store":"one"}`))
	if got := fire(`{"n":1,"profile":{"first_name":"Ada"}}`); got.Environment != "production" || got.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("in production the constants are %+v, want those of production with the hash %x", got, sum)
	}
}
