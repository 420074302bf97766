package domain_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// harmless are the event types after which a delivery that was decided on before stays right. A new type is put here, or says
// what it overtakes.
var harmless = []string{
	"checkpoint.timestamped", "consent.imported", "ledger.archived", "ledger.restored", "ledger.verified",
	"delivery.attempt_lost", "delivery.attempted", "delivery.deferred", "delivery.expired", "delivery.planned", "delivery.rejected", "delivery.requeued", "delivery.withheld",
	"finding.raised", "finding.resolved", "partial.changed", "partial.deleted", "platform.policy_changed", "reaction.fired", "reader.skipped",
	"reconciliation.approved", "reconciliation.finished", "reconciliation.held", "reconciliation.started", "replay.asked", "replay.ended", "retention.changed", "retention.ended", "sealed.revealed",
	"session.closed", "session.opened", "suppression.confirmed", "suppression.lifted", "suppression.ordered", "suppression.pushed",
	"target.approved", "target.declined", "target.enabled", "target.proposed", "target.resumed", "target.tested", "token.created", "token.revoked",
}

// Every event type has been thought about, and what it overtakes can be told from what is not sealed.
func TestEveryEventSaysWhatItOvertakes(t *testing.T) {
	t.Parallel()
	for _, d := range domain.Declarations() {
		if known := slices.Contains(harmless, d.Type); known == d.Overtakes() {
			t.Errorf("%s: overtakes = %v, in the table of those that do not = %v", d.Type, d.Overtakes(), known)
		}
		if !d.Overtakes() {
			continue
		}
		event, _, err := domain.New(uuid.New(), d.Example)
		if err != nil {
			t.Fatal(err)
		}
		open, err := domain.Decode(d.Type, event.Data, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, want := open.(domain.Overtaking).Overtakes(), d.Example.(domain.Overtaking).Overtakes()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s without its sealed part overtakes %v, with it %v", d.Type, got, want)
		}
		if reflect.DeepEqual(want, domain.Overtaken{}) {
			t.Errorf("%s overtakes nothing", d.Type)
		}
		// People are named in full: whichever field of the payload is a profile is one whose deliveries are overtaken.
		v := reflect.ValueOf(d.Example)
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			id, is := v.Field(i).Interface().(uuid.UUID)
			if is && id != uuid.Nil && want.Delivery == uuid.Nil && (strings.HasPrefix(name, "Profile") || name == "WinnerID" || name == "LoserID") && !slices.Contains(want.Profiles, id) {
				t.Errorf("%s names %s in %s and does not overtake their deliveries", d.Type, id, name)
			}
		}
	}
}
