package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// planted is somebody whose every value can be told from anything else.
type planted struct {
	id                                                                 uuid.UUID
	email, mobile, name, identity, address, agent, note, answer, birth string
}

func newPlanted(n int) planted {
	return planted{
		id: uuid.New(), email: fmt.Sprintf("Planted-Mail%d@Example.com", n), mobile: fmt.Sprintf("+6149157%04d", n), name: fmt.Sprintf("Plantedname%d", n),
		identity: fmt.Sprintf("planted-identity-%d", n), address: fmt.Sprintf("203.0.113.%d", n), agent: fmt.Sprintf("PlantedAgent/%d", n),
		note: fmt.Sprintf("plantednote%d", n), answer: fmt.Sprintf("planted\"answer%d", n), birth: fmt.Sprintf("plantedbirth%d", n),
	}
}

// marks are what is looked for: the part of each value that no encoding of a URL, JSON or HTML changes, nor normalising.
func (p planted) marks() (marks []string) {
	for _, v := range []string{p.email, p.mobile, p.name, p.identity, p.address, p.agent, p.note, p.answer, p.birth} {
		v, _, _ = strings.Cut(strings.ToLower(v), "@")
		v = strings.TrimPrefix(v, "+61")
		if _, after, ok := strings.Cut(v, `"`); ok {
			v = after
		}
		marks = append(marks, strings.ReplaceAll(v, "plantedagent/", "plantedagent"))
	}
	return marks
}

// leaks says where a person's values stand in a text.
func (p planted) leaks(text string) (found []string) {
	low := strings.ToLower(text)
	low = strings.ReplaceAll(strings.ReplaceAll(low, "plantedagent/", "plantedagent"), "plantedagent%2f", "plantedagent")
	for _, mark := range p.marks() {
		if at := strings.Index(low, mark); at >= 0 {
			found = append(found, fmt.Sprintf("%s stands in …%s…", mark, low[max(0, at-160):min(len(low), at+80)]))
		}
	}
	return found
}

// consent, fired and profile are what a CRM sends about the person: a decision, a firing, a webhook's body.
func (p planted) consent() string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/crm","type":"consent.changed","data":{"profile_id":%q,
		"changes":[{"channel":"email","purpose":"promo","status":"opted_in"}],"decided_at":"2026-11-20T00:00:00Z","decided_by":"customer","method":"pos",
		"note":%q,"contact":{"email":%q,"mobile":%q},"evidence":{"ip":%q,"user_agent":%q}}}`,
		uuid.NewString(), p.id, p.note, p.email, p.mobile, p.address, p.agent)
}

func (p planted) fired(target string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/crm","type":"reaction.fired","data":{"reaction":"r","target":%q,"profile_id":%q,"cause":"reaction",
		"context":{"profile":{"email":%q,"mobile_phone":%q,"first_name":%q},"answer":%q}}}`, uuid.NewString(), target, p.id, p.email, p.mobile, p.name, p.answer)
}

func (p planted) profile(comms string) string {
	return fmt.Sprintf(`{"id":%q,"email":%q,"mobile_phone":%q,"first_name":%q,"birth_day":%q,"updated_at":%q,"identities":[{"handle":"loyalty-card","identifier":%q}],"attributes":{"comms":{%s}}}`,
		p.id, p.email, p.mobile, p.name, p.birth, time.Now().UTC().Format(time.DateTime), p.identity, comms)
}

// echo is a platform that quotes what it was sent in every way that platforms do, refuses some of it and breaks off some.
func echo(t *testing.T, took chan<- string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		select {
		case took <- string(body):
		default:
		}
		w.Header().Set("X-Echo", strings.ReplaceAll(string(body), "\n", " "))
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/refuse":
			w.WriteHeader(http.StatusUnprocessableEntity)
		case "/again":
			w.Header().Set("Retry-After", "0 "+string(body))
			w.WriteHeader(http.StatusTooManyRequests)
		case "/elsewhere":
			http.Redirect(w, r, "/take?again="+url.QueryEscape(r.URL.Query().Get("who")), http.StatusTemporaryRedirect)
			return
		case "/break":
			panic(http.ErrAbortHandler)
		}
		quoted, err := json.Marshal(string(body))
		if err != nil {
			return
		}
		fmt.Fprintf(w, `{"message":%s,"errors":[{"detail":%[1]s}]}`, quoted)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// collect is a collector of spans that keeps what it is sent as it comes.
func collect(t *testing.T) (endpoint string, spans func() string) {
	t.Helper()
	var mu sync.Mutex
	var all bytes.Buffer
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		all.Write(body)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
}

// told is everything that the program answered and printed to somebody who may not see what is sealed.
type told struct {
	t                    *testing.T
	databaseURL, dataDir string
	address              string
	all                  bytes.Buffer
}

// call makes a request as an administrator. What nobody answers is an answer too.
func (a *told) call(method, path, body string, with ...string) (int, string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, "http://"+a.address+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testToken)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(with); i += 2 {
		req.Header.Set(with[i], with[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(content)
}

// hears makes a request and keeps the answer to be looked through.
func (a *told) hears(method, path, body string, with ...string) int {
	a.t.Helper()
	status, content := a.call(method, path, body, with...)
	fmt.Fprintf(&a.all, "%s\n", content)
	return status
}

const cloudEvent = "application/cloudevents+json"

// sends sends one event, which must be taken.
func (a *told) sends(event string) {
	a.t.Helper()
	if status := a.hears("POST", "/v1/events", event, "Content-Type", cloudEvent); status != http.StatusAccepted {
		a.t.Fatalf("POST /v1/events = %d: %s", status, &a.all)
	}
}

// runs runs a command of the program and gives what it printed.
func (a *told) runs(stdin string, args ...string) (string, int) {
	a.t.Helper()
	var out bytes.Buffer
	env := environ{lookup: os.LookupEnv, stdin: strings.NewReader(stdin), stdout: &out, stderr: &out}
	code := run(a.t.Context(), env, append(args, "--database-url", a.databaseURL, "--data-dir", a.dataDir, "--log-level", "debug"))
	return out.String(), code
}

// prints runs a command and keeps what it printed to be looked through.
func (a *told) prints(want int, args ...string) {
	a.t.Helper()
	out, code := a.runs("", args...)
	if code != want {
		a.t.Errorf("%v = %d, want %d: %s", args, code, want, out)
	}
	a.all.WriteString(out)
}

// inTheClear finds people's values in everything that a database holds, in text and in bytes.
func inTheClear(t *testing.T, db *sql.DB, people ...planted) (found []string) {
	t.Helper()
	var patterns []string
	for _, p := range people {
		for _, mark := range p.marks() {
			patterns = append(patterns, regexp.QuoteMeta(mark), hex.EncodeToString([]byte(mark)))
		}
	}
	rows, err := db.QueryContext(t.Context(), `SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if len(tables) < 40 {
		t.Errorf("%d tables were looked through: %v", len(tables), tables)
	}
	for _, table := range tables {
		var hit string
		err := db.QueryRowContext(t.Context(), `SELECT left(r::text, 400) FROM `+table+` r WHERE replace(lower(r::text), 'plantedagent/', 'plantedagent') ~ ANY($1) LIMIT 1`, pq.Array(patterns)).Scan(&hit)
		if err == nil {
			found = append(found, table+": "+hit)
		} else if !errors.Is(err, sql.ErrNoRows) {
			t.Fatal(err)
		}
	}
	return found
}

func connect(t *testing.T, databaseURL string) *sql.DB {
	t.Helper()
	db, err := schema.Connect(databaseURL, schema.Options{Paths: projections.Paths("", builtIn...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// until waits for a query to answer true, over the database's restarts.
func until(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		var holds bool
		err := db.QueryRowContext(ctx, query, args...).Scan(&holds)
		if err == nil && holds {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("it never held: %s (%v)", query, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

const allSettled = `SELECT (SELECT count(*) FROM events WHERE type = 'reaction.fired') = (SELECT count(*) FROM deliveries WHERE finished_at IS NOT NULL)
	AND NOT EXISTS (SELECT FROM subscriptions WHERE position < (SELECT max(position) FROM events))`

func signed(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

// TestNothingPersonalLeavesTheSeal plants a person's values wherever they come in: firings, decisions, webhooks, files, the
// preference centre, platforms' answers, what is refused, and what cannot be recorded because PostgreSQL is dead. Then it
// looks for them in everything that the service writes: its tables, its log and PostgreSQL's, metrics, spans, answers to who
// may not see them, problems. It erases the person, rebuilds every projection, and looks again with all keys at hand.
func TestNothingPersonalLeavesTheSeal(t *testing.T) {
	server := schematest.NewServer(t)
	otlp, spans := collect(t)
	dataDir := t.TempDir()
	p := startProgram(t, server.URL, dataDir, "--log-level", "debug", "--otlp-endpoint", otlp, "--links-url", "https://prefs.example", "--trusted-proxy", "127.0.0.0/8")
	db := connect(t, server.URL)
	a := &told{t: t, databaseURL: server.URL, dataDir: dataDir, address: p.address}
	jane := newPlanted(17)
	took := make(chan string, 1)
	plantTargets(a, echo(t, took))

	// What comes in.
	const hookSecret = "between the CRM and us"
	for name, value := range map[string]string{"omneo_webhook_secret": hookSecret, "api_key": "plantedsecretvalue"} {
		if out, code := a.runs(value, "secret", "set", name); code != exitDone {
			t.Fatalf("secret set: %s", out)
		}
	}
	a.sends(jane.consent())
	body := jane.profile(`"email_promo":true,"email_consent_updated_at":"2026-11-21T00:00:00Z","sms_promo":false`)
	if status := a.hears("POST", "/v1/hooks/omneo?event=profile.updated", body, "X-Omneo-Hmac-SHA256", signed(hookSecret, body)); status != http.StatusOK {
		t.Fatalf("the webhook = %d: %s", status, &a.all)
	}
	file := filepath.Join(t.TempDir(), "members.csv")
	rows := fmt.Sprintf("profile_id,email,mobile,channel,purpose,status,decided_at,evidence.wording\n%[1]s,%[2]s,%[3]s,email,benefits,opted_in,2026-01-02T00:00:00Z,%[4]s\n%[5]s,%[2]s,%[3]s,%[5]s,promo,opted_in,%[5]s,x\n",
		jane.id, jane.email, jane.mobile, jane.note, jane.name)
	if err := os.WriteFile(file, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	a.prints(exitUntrue, "consent", "import", file)
	rejects, err := os.ReadFile(file + ".rejects.csv")
	if err != nil {
		t.Fatal(err)
	}
	a.all.Write(rejects)
	a.hears("POST", "/v1/consent/imports?format=csv", rows, "Content-Type", "text/csv")
	for _, target := range []string{"takes", "refuses", "again", "elsewhere", "breaks-off", "nobody", "cannot-render", "no-json", "takes"} {
		a.sends(jane.fired(target))
	}
	plantRefused(a, jane, hookSecret)
	until(t, db, allSettled)

	// The person's own pages.
	link := regexp.MustCompile(`https://prefs\.example(/preferences/[^"\\]+)`).FindStringSubmatch(<-took)
	if link == nil {
		t.Fatal("no link to the preference centre was sent")
	}
	browser := []string{"X-Forwarded-For", jane.address, "User-Agent", jane.agent, "Content-Type", "application/x-www-form-urlencoded"}
	if status := a.hears("GET", link[1], "", browser...); status != http.StatusOK {
		t.Errorf("the preference centre = %d", status)
	}
	form := url.Values{"offered": {"email/promo"}, "was": {"email/promo"}, "on": {jane.name}}.Encode()
	if status := a.hears("POST", link[1], form, browser...); status != http.StatusSeeOther {
		t.Errorf("saving preferences = %d", status)
	}
	a.hears("GET", link[1][:len(link[1])-3]+jane.name, "", browser...)
	a.sends(jane.fired("takes")) // and is withheld
	until(t, db, allSettled)
	until(t, db, `SELECT count(*) = 1 FROM deliveries WHERE outcome = 'withheld' AND reason = 'consent'`)

	// What is shown to those who may not see more.
	var planned uuid.UUID
	if err := db.QueryRowContext(t.Context(), `SELECT delivery_id FROM deliveries WHERE target = 'takes' AND outcome = 'succeeded' LIMIT 1`).Scan(&planned); err != nil {
		t.Fatal(err)
	}
	id := jane.id.String()
	for _, path := range []string{
		"/v1/events?limit=500", "/v1/deliveries?limit=500", "/v1/deliveries/" + planned.String(), "/v1/profiles/" + id + "/consent",
		"/v1/profiles/" + id + "/history", "/v1/profiles/" + id + "/addresses", "/v1/profiles/" + id + "/suppressions", "/v1/consent/opt-outs", "/v1/queue", "/v1/projections",
		"/v1/targets/takes", "/v1/audit/consent-changes", "/readyz", "/healthz",
	} {
		if status := a.hears("GET", path, ""); status != http.StatusOK {
			t.Errorf("GET %s = %d", path, status)
		}
	}
	for _, args := range [][]string{
		{"audit", "profile", id},
		{"audit", "events"},
		{"audit", "deliveries"},
		{"audit", "delivery", planned.String()},
		{"consent", "history", id},
		{"consent", "show", id},
		{"consent", "promptness", "--each"},
		{"evidence", planned.String()},
		{"targets", "history", "takes"},
		{"keys", "show"},
	} {
		a.prints(exitDone, args...)
	}
	if status, metrics := a.call("GET", "/metrics", ""); status != http.StatusOK || !strings.Contains(metrics, "ledger_http_request_seconds") {
		t.Errorf("/metrics = %d", status)
	} else {
		fmt.Fprintln(&a.all, metrics)
	}
	for _, found := range inTheClear(t, db, jane) {
		t.Errorf("in the clear, in the database: %s", found)
	}
	_, revealed := a.call("POST", "/v1/deliveries/"+planned.String()+"/reveal", `{"reason":"ticket 1"}`)
	if !strings.Contains(revealed, jane.email) || strings.Contains(revealed, "plantedsecretvalue") {
		t.Errorf("a revealed delivery shows the person, and no secret: %s", revealed)
	}

	// While PostgreSQL is dead.
	server.Kill()
	a.hears("POST", "/v1/events", jane.fired("takes"), "Content-Type", cloudEvent)
	a.hears("POST", "/v1/profiles/"+id+"/erasure", `{"reason":"ticket 2"}`)
	a.hears("POST", link[1], form, browser...)
	a.hears("POST", "/v1/hooks/omneo?event=profile.updated", body, "X-Omneo-Hmac-SHA256", signed(hookSecret, body))
	server.Restart()
	until(t, db, `SELECT true`)
	a.sends(jane.fired("refuses"))
	until(t, db, allSettled)

	held, code := a.runs("", "access", id, "--reason", "ticket 3")
	if shown := jane.leaks(held); len(shown) != len(jane.marks())-1 || code != exitDone { // nobody asked for the birthday, so it was not kept
		t.Errorf("what is held on the person (exit code %d) shows %d of %q; what it does not show was planted nowhere", code, len(shown), jane.marks())
	}
	proof := filepath.Join(t.TempDir(), "evidence")
	a.prints(exitDone, "evidence", planned.String(), "--out", proof)
	if status := a.hears("POST", "/v1/profiles/"+id+"/erasure", `{"reason":"ticket 4"}`); status != http.StatusOK {
		t.Fatalf("erasure = %d: %s", status, &a.all)
	}
	until(t, db, allSettled)
	for _, d := range builtIn {
		a.prints(exitDone, "rebuild", d.Name)
	}
	a.prints(exitDone, "access", id, "--reason", "ticket 5")
	a.prints(exitDone, "access", id, "--reason", "ticket 6", "--format", "html")
	a.hears("POST", "/v1/deliveries/"+planned.String()+"/reveal", `{"reason":"ticket 7"}`)
	for _, found := range inTheClear(t, db, jane) {
		t.Errorf("in the clear after the erasure: %s", found)
	}
	a.prints(exitDone, "verify")
	keys, _ := a.runs("", "checkpoint", "--keys")
	a.prints(exitDone, "evidence", "verify", proof, "--key", strings.Fields(keys)[0])
	a.sends(jane.fired("takes"))
	until(t, db, allSettled)
	until(t, db, `SELECT count(*) = 1 FROM deliveries WHERE outcome = 'withheld' AND reason = 'erased'`)

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil { // the last spans are sent when it ends
		t.Fatal(err)
	}
	<-p.done
	if !strings.Contains(spans(), "attempt") {
		t.Error("no spans of attempts were collected")
	}
	for where, text := range map[string]string{"an answer or output": a.all.String(), "the log": p.log.String(), "a span": spans(), "PostgreSQL's log": server.Log()} {
		for _, found := range jane.leaks(text) {
			t.Errorf("%s: %s", where, found)
		}
		if strings.Contains(text, "plantedsecretvalue") || strings.Contains(text, hookSecret) {
			t.Errorf("%s shows a secret", where)
		}
	}
}

// plantTargets sets up targets that send the person's values, in every part of a request, to a platform that quotes them.
func plantTargets(a *told, platform string) {
	a.t.Helper()
	const body = `{"email": "{{ profile.email }}", "name": "{{ profile.first_name }}", "mobile": {{ profile.mobile_phone|json_encode }}, "answer": {{ answer|json_encode }}, "more": "{{ preferences_url() }}"}`
	for handle, change := range map[string]map[string]any{
		"takes": {"url": platform + "/take"}, "refuses": {"url": platform + "/refuse"}, "again": {"url": platform + "/again?who={{ profile.email|url_encode }}"},
		"elsewhere": {"url": platform + "/elsewhere?who={{ profile.email|url_encode }}"}, "breaks-off": {"url": platform + "/break?who={{ profile.email|url_encode }}"},
		"nobody":        {"url": "http://127.0.0.1:1/{{ profile.email|url_encode }}?who={{ profile.mobile_phone|url_encode }}"},
		"cannot-render": {"url": platform + "/take", "body": `{"day": {{ answer|date("Y") }}}`}, "no-json": {"url": platform + "/take", "body": `{"answer": "{{ answer }}"}`},
	} {
		target := map[string]any{
			"handle": handle, "platform": "webhook", "body": body, "headers": map[string]string{"X-Person": "{{ profile.email }}", "Authorization": "Bearer {{ secret('api_key') }}"},
			"consent": map[string]string{"channel": "email", "purpose": "promo"}, "retry": map[string]any{"max_attempts": 2, "base": "10ms", "max": "20ms"},
		}
		for field, value := range change {
			target[field] = value
		}
		file, err := json.Marshal(target)
		if err != nil {
			a.t.Fatal(err)
		}
		if out, code := a.runs(string(file), "targets", "apply", "-"); code != exitDone {
			a.t.Fatalf("targets apply: %s", out)
		}
	}
}

// plantRefused sends what is refused. What is wrong is personal each time.
func plantRefused(a *told, p planted, hookSecret string) {
	a.t.Helper()
	refused := func(method, path, body string, with ...string) {
		a.t.Helper()
		if status := a.hears(method, path, body, with...); status < 400 || status >= 500 {
			a.t.Errorf("%s %s = %d, want it refused", method, path, status)
		}
	}
	q := url.QueryEscape(p.email)
	refused("POST", "/v1/events", strings.Replace(p.consent(), p.email, "not an address "+p.email+" at all", 1), "Content-Type", cloudEvent)
	refused("POST", "/v1/events", strings.Replace(p.consent(), p.mobile, p.mobile+p.name, 1), "Content-Type", cloudEvent)
	refused("POST", "/v1/events", strings.Replace(p.consent(), `"customer"`, `"`+p.name+`"`, 1), "Content-Type", cloudEvent)
	refused("POST", "/v1/events", strings.Replace(p.consent(), "2026-11-20T00:00:00Z", p.name, 1), "Content-Type", cloudEvent)
	refused("POST", "/v1/events", strings.Replace(p.fired("takes"), `"profile_id":"`, `"profile_id":"`+p.email, 1), "Content-Type", cloudEvent)
	refused("POST", "/v1/events", p.fired(p.email), "Content-Type", cloudEvent)
	refused("POST", "/v1/events", p.fired("takes")[:300], "Content-Type", cloudEvent)
	refused("POST", "/v1/events", p.fired("takes"), "Content-Type", "text/"+p.name)
	refused("POST", "/v1/hooks/omneo?event="+q, p.profile(""), "X-Omneo-Hmac-SHA256", p.name)
	odd := strings.Replace(p.profile(`"email_promo":"`+p.name+`","sms_consent_updated_at":"`+p.note+`"`), p.id.String(), p.email, 1)
	refused("POST", "/v1/hooks/omneo?event=profile.updated", odd, "X-Omneo-Hmac-SHA256", signed(hookSecret, odd))
	refused("GET", "/v1/deliveries?profile="+q+"&limit="+q+"&outcome="+q+"&from="+q+"&cursor="+q, "")
	refused("GET", "/v1/profiles/"+url.PathEscape(p.email)+"/consent", "")
	refused("GET", "/v1/profiles/"+p.id.String()+"/consent?as_of="+q, "")
	refused("GET", "/v1/"+url.PathEscape(p.email), "")
	refused("GET", "/v1/targets/"+url.PathEscape(p.email), "")
	refused("POST", "/v1/profiles/"+p.id.String()+"/erasure", `{"reason":"`+p.email+` wants to go"}`)
	refused("POST", "/v1/profiles/"+p.id.String()+"/erasure", `{"reason":1,"`+p.name+`":"`+p.email+`"}`)
	refused("POST", "/v1/events/1/reveal", `{"reason":"asked by `+p.email+`"}`)
	refused("POST", "/v1/targets/takes/preview", `{"context":{"profile":{"email":"`+p.email+`"},"answer":"`+p.name+`"},"strict":"`+p.name+`"}`)
	refused("GET", "/v1/deliveries", "", "Authorization", "Bearer "+p.email)
	refused("GET", "/preferences/"+url.PathEscape(p.email), "")
	refused("POST", "/unsubscribe/"+url.PathEscape(p.email), "List-Unsubscribe="+q, "Content-Type", "application/x-www-form-urlencoded")
	refused("POST", "/v1/hooks/klaviyo", p.profile(""))
	odd = p.profile("") // an answer names the fields that it did not read, and not what stood there
	odd = strings.Replace(odd, `"comms":{`, `"comms":{"email_promo":"`+p.name+`","sms_consent_updated_at":"`+p.note+`"`, 1)
	a.hears("POST", "/v1/hooks/omneo?event=profile.updated", odd, "X-Omneo-Hmac-SHA256", signed(hookSecret, odd))
	for _, args := range [][]string{{"consent", "show", p.email}, {"erase", p.email, "--reason", "x"}, {"erase", p.id.String(), "--reason", p.email}, {"audit", "profile", p.email}} {
		if out, code := a.runs("", args...); code == exitDone {
			a.t.Errorf("%v = %d: %s", args, code, out)
		} // what a command prints of its own arguments is on the screen already
	}
}
