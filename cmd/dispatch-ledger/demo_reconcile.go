package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

// demoClock is that of the simulated platform and of the reconciler. While the story is told, whoever waits for the platform
// moves it on instead: Klaviyo is given half a minute before what was written there is read back.
type demoClock struct {
	ahead atomic.Int64 // nanoseconds
	told  atomic.Bool  // the story is over, and waiting is waiting
}

func (c *demoClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *demoClock) sleep(ctx context.Context, d time.Duration) error {
	if !c.told.Load() {
		c.ahead.Add(int64(d))
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// demoPolicy connects the simulated Klaviyo. Its cap is low, so that the first run shows what it would change and waits.
const demoPolicy = `{"platform":"klaviyo","url":"http://%s","credentials":{"key":"klaviyo_private_key"},"channels":["email"],"cap":1,"cap_from":1}`

// reconcile tells how two lists that drifted apart come together: what the service finds when Klaviyo is connected, what it
// does once somebody has approved that, and that it finds nothing more.
func (d demonstration) reconcile(ctx context.Context, omar, mei demoPerson, say func(string, ...any)) (problems []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	defer d.clock.told.Store(true)
	now := d.clock.now()
	for _, f := range []simulator.Fact{
		{Address: omar.email, What: simulator.Known, At: now.Add(-90 * 24 * time.Hour)},
		{Address: mei.email, What: simulator.Known, At: now.Add(-90 * 24 * time.Hour)},
		{Address: mei.email, What: simulator.Unsubscribed, At: now.Add(-time.Hour)},
		{Address: "somebody.else@example.com", What: simulator.Unsubscribed, At: now.Add(-48 * time.Hour)},
	} {
		f.Account, f.Channel = "demo", "email"
		if err := d.platform.Happen(f); err != nil {
			return nil, err
		}
	}
	say("── two lists: ours, and the one that Klaviyo keeps")
	if err := d.call(ctx, http.MethodPut, "/v1/platforms/klaviyo", "application/json", []byte(fmt.Sprintf(demoPolicy, d.host)), http.StatusOK, nil); err != nil {
		return nil, err
	}
	say("Klaviyo is connected. It would send to Omar, who opted out here; Mei opted out there, an hour ago.")
	first, err := d.await(ctx, func(r suppressions.Run) bool { return r.Held != nil })
	if err != nil {
		return nil, err
	}
	say("The first run finds this, and has changed nothing yet:")
	found, err := suppressions.Differences(ctx, d.st.db, first.ID, "", 0, 10)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		say("  %-16s to %s", f.Class, f.Action)
	}
	say("  It waits: %s.", first.Held.Explain)
	if first.FinishedAt != nil || d.suppressed(omar) {
		problems = append(problems, "a run that waits for a person changed something")
	}
	if err := d.call(ctx, http.MethodPost, "/v1/reconciliations/"+first.ID.String()+"/approval", "application/json", []byte(`{"reason":"both are what the people said"}`), http.StatusNoContent, nil); err != nil {
		return nil, err
	}
	if first, err = d.await(ctx, func(r suppressions.Run) bool { return r.ID == first.ID && r.FinishedAt != nil }); err != nil {
		return nil, err
	}
	say("Approved, with the reason. The run ended %s:", first.State)
	for _, class := range slices.Sorted(maps.Keys(first.Counts.Differences)) {
		say("  %-16s %d", class, first.Counts.Differences[class])
	}
	known, err := consent.Look(ctx, d.st.db, []uuid.UUID{mei.id})
	if err != nil {
		return nil, err
	}
	answer := known.View(mei.id, domain.Email).Purposes[domain.PurposeAll]
	say("  Omar is suppressed there, and was read back. Mei %s of email here too: by %s, at %s (event %d).",
		strings.ReplaceAll(string(answer.Status), "_", " "), answer.Method, answer.DecidedAt.UTC().Format(time.RFC3339), answer.Position)
	want := map[string]int64{domain.MissingThere: 1, domain.MissingHere: 1, domain.UnknownContact: 1}
	if first.State != domain.RunDone || !maps.Equal(first.Counts.Differences, want) || !d.suppressed(omar) || answer.Status != domain.OptedOut || first.Counts.Unconfirmed != 0 {
		problems = append(problems, fmt.Sprintf("the run ended %s, found %v and left Omar suppressed there: %v, and Mei here %q", first.State, first.Counts.Differences, d.suppressed(omar), answer.Status))
	}

	var started struct{ ID uuid.UUID }
	if err := d.call(ctx, http.MethodPost, "/v1/reconciliations", "application/json", []byte(`{"platform":"klaviyo","mode":"full"}`), http.StatusAccepted, &started); err != nil {
		return nil, err
	}
	second, err := d.await(ctx, func(r suppressions.Run) bool { return r.ID == started.ID && r.FinishedAt != nil })
	if err != nil {
		return nil, err
	}
	say("A second run read all %d of the list again and found %d differences.\n", second.Counts.Read, len(second.Counts.Differences))
	if second.State != domain.RunDone || len(second.Counts.Differences) > 0 {
		problems = append(problems, fmt.Sprintf("the second run ended %s and found %v", second.State, second.Counts.Differences))
	}
	return problems, nil
}

func (d demonstration) suppressed(p demoPerson) bool {
	_, yes := d.platform.Suppressed("demo", "email")[p.email]
	return yes
}

// await waits for one of Klaviyo's runs to be as it should.
func (d demonstration) await(ctx context.Context, as func(suppressions.Run) bool) (suppressions.Run, error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		runs, err := suppressions.Runs(ctx, d.st.db, suppressions.RunFilter{Platform: "klaviyo"})
		if err != nil {
			return suppressions.Run{}, err
		}
		if i := slices.IndexFunc(runs, as); i >= 0 {
			return runs[i], nil
		}
		if i := slices.IndexFunc(runs, func(r suppressions.Run) bool { return r.State == domain.RunFailed }); i >= 0 && runs[i].Error != nil {
			return suppressions.Run{}, fmt.Errorf("%w: the reconciliation failed: %s", reconciler.ErrNotConnected, *runs[i].Error)
		}
		select {
		case <-ctx.Done():
			return suppressions.Run{}, fmt.Errorf("waiting for a reconciliation of Klaviyo: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}
