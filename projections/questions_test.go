package projections_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// questioned is a ledger of some hundred deliveries of every kind, over several blocks, with its projections at the head.
func questioned(t *testing.T) (world, []domain.Recorded) {
	t.Helper()
	w := newWorld(t, all...)
	people := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	reasons := []string{"consent", "condition", "erased"}
	for i := range 400 {
		f := domain.Firing{
			FiringID: uuid.New(), Reaction: fmt.Sprintf("r%d", i%3), Cause: "reaction", Target: fmt.Sprintf("t%d", i%5%2), TargetVersion: int64(1 + i/200),
			Platform: []string{"klaviyo", "webhook"}[i%7%2], ProfileID: people[i%11%3],
		}
		id := domain.DeliveryID(f.FiringID, f.Target)
		var events []domain.Payload
		switch i % 6 {
		case 0:
			events = append(events, domain.DeliveryWithheld{DeliveryID: id, Firing: f, Reason: reasons[i%9%3], Detail: "no"})
		case 1:
			events = append(events, domain.DeliveryRejected{DeliveryID: id, Firing: f, Reason: "unresolved", Detail: "no"})
		case 2:
			events = append(events, domain.DeliveryPlanned{DeliveryID: id, Firing: f, BodySHA256: "00", MaxAttempts: 3})
		default:
			decision := domain.Decision{Decision: domain.DecisionAllowed, Reason: "opted_in"}
			if i%4 == 0 {
				decision = domain.Decision{Decision: domain.DecisionFlagged, Reason: []string{"opted_out", "never_asked"}[i%8/4]}
			}
			a := domain.DeliveryAttempted{DeliveryID: id, Target: f.Target, ProfileID: f.ProfileID, Attempt: 1, StartedAt: time.Unix(int64(i), 0), Verdict: domain.Accepted, Outcome: domain.Succeeded, DurationMS: 3}
			if i%12 == 3 {
				a.Verdict, a.Outcome = domain.Timeout, domain.Failed
			}
			events = append(events, domain.DeliveryPlanned{DeliveryID: id, Firing: f, BodySHA256: "00", MaxAttempts: 3, Consent: decision}, a)
		}
		if i%37 == 0 {
			events = append(events, domain.TokenCreated{Name: fmt.Sprintf("token-%d", i), Role: "analyst"})
		}
		if i%5 == 0 {
			events = append(events, domain.ConsentChanged{ProfileID: f.ProfileID, DecidedBy: []string{"customer", "import"}[i%10/5], Method: "pos", DecidedAt: time.Unix(int64(i), 0), Changes: []domain.ConsentChange{
				{Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedOut}, {Channel: domain.SMS, Purpose: domain.PurposeAll, Status: domain.OptedIn},
			}})
		}
		if err := w.append(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
	}
	spread(t, w)
	for _, live := range w.engine.Live(1) {
		n := int64(10_000)
		if live.Subscription.Name == audit.Definition.SubscriptionName() {
			n = 500 // it stays behind: what it has not seen is found all the same
		}
		if _, err := w.move(t.Context(), live, n); err != nil {
			t.Fatal(err)
		}
	}
	var events []domain.Recorded
	for e, err := range schema.Events(t.Context(), w.ledger.DB(), schema.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return w, events
}

// spread lays the events of a ledger over some months, several to a quarter of an hour here and there, and nothing for days.
func spread(t *testing.T, w world) {
	t.Helper()
	tx, err := w.ledger.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, s := range []string{
		`SET LOCAL ROLE NONE`, `ALTER TABLE events_1 DISABLE TRIGGER append_only`, `ALTER TABLE events DISABLE TRIGGER events_append_only`, // as nobody else may
		`UPDATE events SET recorded_at = '2026-01-01Z'::timestamptz + position / 16 * interval '5 minutes' + position / 40 * interval '4 hours' + position / 300 * interval '9 days'`,
		`ALTER TABLE events_1 ENABLE TRIGGER append_only`, `ALTER TABLE events ENABLE TRIGGER events_append_only`,
	} {
		if _, err := tx.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// Every filter, page by page, gives what going through all gives.
func TestFilteredListsAreWhatGoingThroughAllGives(t *testing.T) {
	t.Parallel()
	w, events := questioned(t)
	db := w.ledger.DB()
	everything, err := deliveries.List(t.Context(), db, deliveries.Filter{Limit: 1000})
	if err != nil || len(everything) != 400 {
		t.Fatalf("%d deliveries, %v", len(everything), err)
	}
	maybe := func(rt *rapid.T, name string, values ...string) string {
		return rapid.SampledFrom(append(values, "", "")).Draw(rt, name)
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := deliveries.Filter{
			Target: maybe(rt, "target", "t0", "t1"), Reaction: maybe(rt, "reaction", "r0", "r1"), Platform: maybe(rt, "platform", "klaviyo"),
			Reason: maybe(rt, "reason", "erased", "unresolved", "", ""), Limit: rapid.IntRange(1, 40).Draw(rt, "limit"),
			Outcomes: rapid.SliceOfNDistinct(rapid.SampledFrom([]domain.Outcome{domain.Pending, domain.Succeeded, domain.Withheld, domain.Failed, domain.Sending, domain.Cancelled}), 0, 3, rapid.ID).Draw(rt, "outcomes"),
		}
		if rapid.Bool().Draw(rt, "one person's") {
			f.Profile = everything[rapid.IntRange(0, 5).Draw(rt, "person")].Firing.ProfileID
		}
		if rapid.Bool().Draw(rt, "against") {
			f.Against = deliveries.AgainstOptOut
		}
		if rapid.Bool().Draw(rt, "period") {
			f.From, f.To = everything[300].PlannedAt, everything[100].PlannedAt
		}
		f.Version = int64(rapid.IntRange(0, 2).Draw(rt, "version"))
		var want []uuid.UUID
		for _, d := range everything {
			if (f.Target == "" || d.Firing.Target == f.Target) && (f.Reaction == "" || d.Firing.Reaction == f.Reaction) && (f.Platform == "" || d.Firing.Platform == f.Platform) &&
				(f.Reason == "" || d.Reason == f.Reason) && (len(f.Outcomes) == 0 || slices.Contains(f.Outcomes, d.Outcome)) && (f.Profile == uuid.Nil || d.Firing.ProfileID == f.Profile) &&
				(f.Against == nil || slices.Contains(f.Against, d.Against)) && (f.From.IsZero() || !d.PlannedAt.Before(f.From) && d.PlannedAt.Before(f.To)) && (f.Version == 0 || d.Firing.TargetVersion == f.Version) {
				want = append(want, d.ID)
			}
		}
		var got []uuid.UUID
		for {
			page, err := deliveries.List(t.Context(), db, f)
			if err != nil {
				rt.Fatal(err)
			}
			for _, d := range page {
				got = append(got, d.ID)
			}
			if len(page) < f.Limit {
				break
			}
			f.Before = page[len(page)-1].Position
		}
		if !slices.Equal(got, want) {
			rt.Errorf("%+v: %d deliveries, want %d", f, len(got), len(want))
		}
	})

	rapid.Check(t, func(rt *rapid.T) {
		f := schema.Filter{
			Target: maybe(rt, "target", "t0", "nobody"), Actor: maybe(rt, "actor", "test", "nobody"), Limit: rapid.IntRange(1, 60).Draw(rt, "limit"), Descending: rapid.Bool().Draw(rt, "descending"),
			Types: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"token.created", "delivery.attempted", "consent.changed"}), 0, 2, rapid.ID).Draw(rt, "types"),
			After: int64(rapid.IntRange(0, 300).Draw(rt, "after")), UpTo: int64(rapid.SampledFrom([]int{0, 450, len(events)}).Draw(rt, "up to")),
		}
		if rapid.Bool().Draw(rt, "period") {
			f.From, f.To = events[100].RecordedAt, events[600].RecordedAt
		}
		var want []int64
		for _, e := range events {
			if (f.Target == "" || e.Target == f.Target) && (f.Actor == "" || e.Actor == f.Actor) && (len(f.Types) == 0 || slices.Contains(f.Types, e.Type)) &&
				e.Position > f.After && (f.UpTo == 0 || e.Position <= f.UpTo) && (f.From.IsZero() || !e.RecordedAt.Before(f.From) && e.RecordedAt.Before(f.To)) {
				want = append(want, e.Position)
			}
		}
		if f.Descending {
			slices.Reverse(want)
		}
		want = want[:min(len(want), f.Limit)]
		found, err := audit.Events(t.Context(), db, f)
		if err != nil {
			rt.Fatal(err)
		}
		var got []int64
		for _, e := range found {
			got = append(got, e.Position)
		}
		if !slices.Equal(got, want) {
			rt.Errorf("%+v: positions %v, want %v", f, got, want)
		}
	})
}

func TestConsentChangesByKindPageByPage(t *testing.T) {
	t.Parallel()
	w, events := questioned(t)
	for _, live := range w.engine.Live(1) {
		if _, err := w.move(t.Context(), live, 10_000); err != nil {
			t.Fatal(err)
		}
	}
	for name, kind := range map[string]audit.ConsentKind{
		"all": {}, "a status": {Status: domain.OptedIn}, "who and how": {DecidedBy: "import", Method: "pos"}, "one kind": {Channel: domain.SMS, Purpose: domain.PurposeAll, Status: domain.OptedIn, DecidedBy: "customer"}, "none": {Method: "seance"},
		"a source": {Source: "/test"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want, got []string
			for _, e := range slices.Backward(events) {
				if e.Type != "consent.changed" {
					continue
				}
				var c domain.ConsentChanged
				if err := json.Unmarshal(e.Data, &c); err != nil {
					t.Fatal(err)
				}
				for _, ch := range c.Changes { // email before sms, as the list orders them
					if (kind.Channel == "" || kind.Channel == ch.Channel) && (kind.Status == "" || kind.Status == ch.Status) && (kind.DecidedBy == "" || kind.DecidedBy == c.DecidedBy) && (kind.Method == "" || kind.Method == c.Method) {
						want = append(want, fmt.Sprint(e.Position, ch.Channel, ch.Purpose, ch.Status))
					}
				}
			}
			f := audit.ConsentFilter{Kind: kind, Limit: 7}
			for {
				page, err := audit.ConsentChanges(t.Context(), w.ledger.DB(), f)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range page {
					got = append(got, fmt.Sprint(c.Position, c.Channel, c.Purpose, c.Status))
				}
				if len(page) < f.Limit {
					break
				}
				last := page[len(page)-1]
				f.Before = audit.Place{Position: last.Position, Channel: last.Channel, Purpose: last.Purpose}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %d changes, want %d\n%v\n%v", len(got), len(want), got, want)
			}
		})
	}
}

func TestCountsAreWhatCountingGives(t *testing.T) {
	t.Parallel()
	w, _ := questioned(t)
	db := w.ledger.DB()
	everything, err := deliveries.List(t.Context(), db, deliveries.Filter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []deliveries.By{deliveries.Together, deliveries.ByReaction, deliveries.ByTarget, deliveries.ByVersion, deliveries.ByPeriod, deliveries.ByDay} {
		want, got := map[string]int64{}, map[string]int64{}
		for _, d := range everything {
			key := map[deliveries.By]string{
				deliveries.ByReaction: d.Firing.Reaction, deliveries.ByTarget: d.Firing.Target, deliveries.ByVersion: fmt.Sprint(d.Firing.Target, d.Firing.TargetVersion),
				deliveries.ByPeriod: d.PlannedAt.UTC().Truncate(deliveries.Bucket).String(), deliveries.ByDay: d.PlannedAt.UTC().Truncate(24 * time.Hour).String(),
			}[by]
			want[key+" "+string(d.Outcome)]++
		}
		counts, err := deliveries.Counts(t.Context(), db, deliveries.CountFilter{}, by)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range counts {
			key := map[deliveries.By]string{
				deliveries.ByReaction: c.Reaction, deliveries.ByTarget: c.Target, deliveries.ByVersion: fmt.Sprint(c.Target, c.Version), deliveries.ByPeriod: c.Bucket.String(), deliveries.ByDay: c.Bucket.String(),
			}[by]
			for _, o := range domain.Outcomes {
				if n := c.Outcomes.Of(o); n != 0 {
					got[key+" "+string(o)] = n
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("by %s: %v, want %v", by, got, want)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		moment := rapid.Custom(func(rt *rapid.T) time.Time {
			at := everything[rapid.IntRange(0, 399).Draw(rt, "of")].PlannedAt.UTC()
			return rapid.SampledFrom([]time.Time{{}, at, at.Truncate(24 * time.Hour), at.Truncate(24 * time.Hour).Add(deliveries.Bucket)}).Draw(rt, "at")
		})
		f := deliveries.CountFilter{
			From: moment.Draw(rt, "from"), To: moment.Draw(rt, "to"), Target: rapid.SampledFrom([]string{"", "t0"}).Draw(rt, "target"), Reaction: rapid.SampledFrom([]string{"", "r1"}).Draw(rt, "reaction"),
			Platform: rapid.SampledFrom([]string{"", "webhook"}).Draw(rt, "platform"), Version: rapid.Int64Range(0, 2).Draw(rt, "version"),
		}
		width := rapid.SampledFrom([]time.Duration{deliveries.Bucket, 24 * time.Hour}).Draw(rt, "width")
		by := map[time.Duration][]deliveries.By{deliveries.Bucket: {deliveries.Together, deliveries.ByPeriod, deliveries.ByVersion}, 24 * time.Hour: {deliveries.ByDay}}[width]
		var want int64
		for _, d := range everything {
			if bucket := d.PlannedAt.UTC().Truncate(width); (f.From.IsZero() || !bucket.Before(f.From.Truncate(width))) && (f.To.IsZero() || bucket.Before(f.To)) && (f.Target == "" || d.Firing.Target == f.Target) &&
				(f.Reaction == "" || d.Firing.Reaction == f.Reaction) && (f.Platform == "" || d.Firing.Platform == f.Platform) && (f.Version == 0 || d.Firing.TargetVersion == f.Version) {
				want++
			}
		}
		counts, err := deliveries.Counts(t.Context(), db, f, rapid.SampledFrom(by).Draw(rt, "by"))
		if err != nil {
			rt.Fatal(err)
		}
		var got int64
		for _, c := range counts {
			got += c.Outcomes.Total()
		}
		if got != want {
			rt.Errorf("%+v: %d, want %d", f, got, want)
		}
	})

	from, to := everything[399].PlannedAt.Truncate(deliveries.Bucket), everything[0].PlannedAt.Add(time.Hour)
	latencies, err := deliveries.Latencies(t.Context(), db, from, to)
	if err != nil || len(latencies) == 0 || latencies[0].P50 < 3*time.Millisecond || latencies[0].P99 > 6*time.Millisecond {
		t.Errorf("latencies = %+v, %v; each attempt took 3 ms", latencies, err)
	}
	answers, err := deliveries.Answers(t.Context(), db, from, to)
	n := int64(0)
	for _, a := range answers {
		n += a.N
	}
	if err != nil || n != 199 {
		t.Errorf("%d answers, %v; want 199", n, err)
	}
	unknown, err := deliveries.Unknown(t.Context(), db, 0, true, 100)
	if err != nil || len(unknown) != 34 || unknown[0].Verdict != domain.Timeout || unknown[0].Delivery.Outcome != domain.Failed {
		t.Errorf("%d requests without a known outcome, %v; want 34", len(unknown), err)
	}
}
