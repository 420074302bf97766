package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	klaviyo "github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/klaviyo/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

//go:embed demo/*.yaml
var demoFiles embed.FS

func newDemo(s *settings) *cobra.Command {
	var once bool
	f := serveFlags{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "The whole story on a database and a platform simulator of its own; --once checks itself and exits",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("data-dir") {
				dir, err := os.MkdirTemp("", "dispatch-ledger-demo-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				// PostgreSQL runs as another user than root, and has to be able to enter.
				if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // what is inside is closed on its own
					return err
				}
				s.dataDir = dir
			}
			if !cmd.Flags().Changed("log-level") {
				s.logLevel = "error"
			}
			return s.serving(cmd.Context(), func(ctx context.Context, st *store) error { return st.demo(ctx, f, once) })
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "exit 0 when everything came out as it should, 3 when not")
	f.addTo(cmd.Flags())
	f.listen = "127.0.0.1:0"
	cmd.Flags().Lookup("listen").DefValue = f.listen
	return cmd
}

// person of the demo, as the CRM knows them.
type demoPerson struct {
	id              uuid.UUID
	first, last     string
	email           string
	status          domain.ConsentStatus
	decided, method string
}

// demoFiring is one firing of the story and what has to come of it.
type demoFiring struct {
	title   string
	event   string // CloudEvents id
	person  demoPerson
	reward  string // JSON
	faults  []simulator.Fault
	times   int // how often the engine sends the same event
	outcome domain.Outcome
	tries   int
}

// demo tells the story of the seed: targets, people and their consent, firings and what became of each.
func (st *store) demo(ctx context.Context, f serveFlags, once bool) error {
	say := func(format string, args ...any) { fmt.Fprintf(st.settings.env.stdout, format+"\n", args...) }

	clock := &demoClock{}
	st.now, st.sleep = clock.now, clock.sleep
	platform, err := klaviyo.New(simulator.Options{Now: clock.now})
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: platform, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener) //nolint:errcheck // it ends with Close
	defer server.Close()

	if err := st.setSecret(ctx, "klaviyo_private_key", "demo-key"); err != nil {
		return err
	}
	f.roles, f.allowNetworks, f.bootstrapToken = []string{"api", "worker"}, append(f.allowNetworks, "127.0.0.0/8"), demoToken(f.bootstrapToken)
	f.variables = map[string]string{"klaviyo_host": listener.Addr().String()}
	ctx, cancel := context.WithCancel(ctx)
	ready, served := make(chan string, 1), make(chan error, 1)
	go func() { served <- st.serve(ctx, f, func(address string) { ready <- address }) }()
	stop := func() error { cancel(); return <-served }
	var address string
	select {
	case address = <-ready:
	case err := <-served:
		cancel()
		return err
	}
	d := demonstration{st: st, api: "http://" + address, token: f.bootstrapToken, platform: platform, host: listener.Addr().String(), clock: clock}

	say("A private PostgreSQL is up, the API listens on %s, a simulated Klaviyo on http://%s.\n", d.api, listener.Addr())
	file, err := demoFiles.ReadFile("demo/klaviyo-reward-earned.yaml")
	if err != nil {
		return errors.Join(err, stop())
	}
	target, err := domain.ParseTargetFile(file)
	if err != nil {
		return errors.Join(err, stop())
	}
	if err := st.applyTarget(ctx, target); err != nil {
		return errors.Join(err, stop())
	}
	say("Target %s applied. Its key is a secret by name; nothing prints it.\n", target.Handle)

	problems, err := d.tell(ctx, say)
	if err != nil {
		return errors.Join(err, stop())
	}
	report, err := st.engine.Verify(ctx)
	if err != nil {
		return errors.Join(err, stop())
	}
	for _, p := range report.Problems {
		problems = append(problems, p.String())
	}
	say("The ledger verifies: %d events, every leaf and every projection follows from them.", report.Head)
	for _, p := range problems {
		say("NOT AS IT SHOULD BE: %s", p)
	}
	if once {
		err := stop()
		if err == nil && len(problems) > 0 {
			return errUntrue
		}
		return err
	}
	say("\nStill serving. Try, in another terminal:\n")
	say("  curl -s -H 'Authorization: Bearer %s' %s/v1/deliveries", d.token, d.api)
	say("  open %s/        the console; sign in with that token\n  open %[1]s/docs    the API\n\nCtrl-C ends it.", d.api)
	select {
	case <-ctx.Done():
		return stop()
	case err := <-served:
		cancel()
		return err
	}
}

// demoToken is the token that the demonstration talks to its own API with.
func demoToken(given string) string {
	if given != "" {
		return given
	}
	return "demo-" + uuid.NewString()
}

// demonstration speaks to the service as a reaction engine does: over HTTP.
type demonstration struct {
	st       *store
	api      string
	token    string
	platform *klaviyo.Simulator
	host     string // the platform's
	clock    *demoClock
}

// tell runs the story and reports what did not come out as it should.
func (d demonstration) tell(ctx context.Context, say func(string, ...any)) (problems []string, err error) {
	jane := demoPerson{uuid.MustParse("8fc344db-713e-4590-ab26-e82d77ba3313"), "Jane", "O\\\"Neil", "jane@example.com", domain.OptedIn, "2026-03-02T09:14:00Z", "join_form"}
	omar := demoPerson{uuid.MustParse("3f2b8a94-5d0c-4c58-9a6e-0a5a1b7c2d10"), "Omar", "Haddad", "omar@example.com", domain.OptedOut, "2026-10-19T21:40:12Z", "preference_centre"}
	mei := demoPerson{uuid.MustParse("c1d4a5f0-9b7e-4f6f-8d1c-6f0e2b3a4c5d"), "Mei", "Lindqvist", "mei@example.com", domain.OptedIn, "2026-06-30T12:00:00Z", "pos"}

	for _, p := range []demoPerson{jane, omar, mei} {
		body := fmt.Sprintf(`{"profile_id":%q,"changes":[{"channel":"email","purpose":"promo","status":%q}],"decided_at":%q,"decided_by":"customer","method":%q,"contact":{"email":%q}}`,
			p.id, p.status, p.decided, p.method, p.email)
		if _, err := d.send(ctx, "consent-"+p.email, "consent.changed", body); err != nil {
			return nil, err
		}
		say("%s %s on email/promo.", p.first, strings.ReplaceAll(string(p.status), "_", " "))
	}
	say("")

	const good = `{"amount":10,"expires_at":"2026-12-31T00:00:00Z"}`
	for _, firing := range []demoFiring{
		{title: "delivered", event: "reward-1001", person: jane, reward: good, times: 1, outcome: domain.Succeeded, tries: 1},
		{
			title: "retried after a 429 and a 503", event: "reward-1002", person: mei, reward: good, times: 1, outcome: domain.Succeeded, tries: 3,
			faults: []simulator.Fault{
				{Path: "/api/events", Status: http.StatusTooManyRequests, Header: map[string]string{"Retry-After": "1"}, Body: `{"errors":[{"id":"1","code":"throttled","title":"Throttled","detail":"Request was throttled."}]}`},
				{Path: "/api/events", Status: http.StatusServiceUnavailable, Body: `{"errors":[{"id":"2","code":"unavailable","title":"Unavailable","detail":"Try again."}]}`},
			},
		},
		{title: "withheld: Omar opted out", event: "reward-1003", person: omar, reward: good, times: 1, outcome: domain.Withheld},
		{title: "rejected: the template fails on this context", event: "reward-1004", person: jane, reward: `{"amount":10,"expires_at":"when pigs fly"}`, times: 1, outcome: domain.Rejected},
		{title: "fired three times, answered once", event: "reward-1005", person: mei, reward: good, times: 3, outcome: domain.Succeeded, tries: 1},
	} {
		got, err := d.fire(ctx, firing, say)
		if err != nil {
			return nil, err
		}
		if got.Outcome != firing.outcome || got.Attempts != firing.tries {
			problems = append(problems, fmt.Sprintf("%s: %s after %d attempts, not %s after %d", firing.title, got.Outcome, got.Attempts, firing.outcome, firing.tries))
		}
	}
	events := d.platform.Events("demo")
	say("Klaviyo received %d events and dropped %d as duplicates.\n", len(events), d.platform.Dropped("demo"))
	if len(events) != 3 || d.platform.Dropped("demo") != 0 {
		problems = append(problems, fmt.Sprintf("Klaviyo holds %d events and dropped %d, not 3 and 0", len(events), d.platform.Dropped("demo")))
	}
	apart, err := d.reconcile(ctx, omar, mei, say)
	return append(problems, apart...), err
}

// fire sends a firing, waits for what becomes of it, and prints the delivery's story.
func (d demonstration) fire(ctx context.Context, f demoFiring, say func(string, ...any)) (deliveries.Delivery, error) {
	for _, fault := range f.faults {
		d.platform.Break(fault)
	}
	body := fmt.Sprintf(`{"reaction":"reward-earned","target":"klaviyo-reward-earned","profile_id":%q,"trigger":"reward.created","cause":"reaction","context":{"profile":{"email":%q,"first_name":%q,"last_name":"%s","reward_balance":25.0},"reward":%s}}`,
		f.person.id, f.person.email, f.person.first, f.person.last, f.reward)
	var duplicates int
	for range f.times {
		again, err := d.send(ctx, f.event, "reaction.fired", body)
		if err != nil {
			return deliveries.Delivery{}, err
		}
		if again {
			duplicates++
		}
	}
	say("── %s", f.title)
	if f.times > 1 {
		say("the engine sent the event %d times; %d were recognised as repeats", f.times, duplicates)
	}
	id := domain.DeliveryID(intake.EventID(demoSource, f.event), "klaviyo-reward-earned")
	waiting, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	got, err := d.st.settle(waiting, id)
	if err != nil {
		return got, err
	}
	say("%s", story(got))
	return got, nil
}

const demoSource = "/demo/reaction-engine"

// send posts one CloudEvent to the API, and says whether the ledger had it already.
func (d demonstration) send(ctx context.Context, id, eventType, data string) (duplicate bool, err error) {
	event, err := json.Marshal(map[string]any{"specversion": "1.0", "id": id, "source": demoSource, "type": eventType, "data": json.RawMessage(data)})
	if err != nil {
		return false, err
	}
	var body struct{ Accepted []intake.Accepted }
	if err := d.call(ctx, http.MethodPost, "/v1/events", intake.MediaTypeEvent, event, http.StatusAccepted, &body); err != nil {
		return false, err
	}
	return body.Accepted[0].Duplicate, nil
}

// call asks the API, and reads its answer into a value unless that is nil.
func (d demonstration) call(ctx context.Context, method, path, mediaType string, body []byte, want int, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, d.api+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	req.Header.Set("Authorization", "Bearer "+d.token)
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode != want {
		return fmt.Errorf("%s %s answered %s: %s", method, path, answer.Status, content)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(content, into)
}

// settle waits until nothing more happens to a delivery.
func (st *store) settle(ctx context.Context, id uuid.UUID) (deliveries.Delivery, error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		d, err := deliveries.Get(ctx, st.db, id)
		if err == nil && d.Outcome.Final() || err != nil && !errors.Is(err, schema.ErrNotFound) {
			return d, err
		}
		select {
		case <-ctx.Done():
			st.log.WarnContext(ctx, "stopped waiting", slog.String("delivery", id.String()))
			return d, fmt.Errorf("delivery %s is not settled; it goes on: dispatch-ledger audit delivery %[1]s", id)
		case <-ticker.C:
		}
	}
}
