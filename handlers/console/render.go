package console

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
)

//go:embed templates/*.html
var templateFiles embed.FS

// pages are the templates by name: each is its own file with the layout around it.
type pages map[string]*template.Template

func (c *console) loadPages() (pages, error) {
	layout, err := template.New("layout.html").Funcs(c.functions()).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, err
	}
	entries, err := templateFiles.ReadDir("templates")
	if err != nil {
		return nil, err
	}
	out := pages{}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".html")
		if name == "layout" || name == "parts" {
			continue
		}
		page, err := layout.Clone()
		if err != nil {
			return nil, err
		}
		if out[name], err = page.ParseFS(templateFiles, "templates/"+e.Name()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// functions are what templates may call besides what text/template has.
func (c *console) functions() template.FuncMap {
	return template.FuncMap{
		"asset": c.assets.url,
		"when":  c.when,
		"n":     grouped,
		"short": func(id any) string { return fmt.Sprint(id)[:8] },
		"json": func(v any) (string, error) {
			b, err := json.MarshalIndent(v, "", "  ")
			return string(b), err
		},
		"pretty":   pretty,
		"words":    func(code any) string { return strings.ReplaceAll(text(code), "_", " ") },
		"tone":     tone,
		"query":    query,
		"known":    func(id uuid.UUID) bool { return id != uuid.Nil },
		"explain":  func(d *domain.Decision) string { return d.Explain() },
		"duration": duration,
		"ms":       func(v *float64) string { return duration(time.Duration(*v * float64(time.Millisecond))) },
		"percent":  func(part, whole int64) string { return share(part, whole) },
		"share":    func(part, whole int) string { return share(int64(part), int64(whole)) },
		"title":    func(code any) string { return title(text(code)) },
		"markup":   highlight,
		"rfc":      rfc,
		"local":    local,
		"day": func(v any) string {
			switch v := v.(type) {
			case *time.Time:
				return v.UTC().Format(time.DateOnly)
			case time.Time:
				return v.UTC().Format(time.DateOnly)
			}
			return ""
		},
		"joined": func(list any) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ", "), "[]") },
		"field":  field,
		"deref":  func(b *bool) bool { return b != nil && *b },
		"dict": func(pairs ...any) (map[string]any, error) {
			out := map[string]any{}
			for i := 0; i+1 < len(pairs); i += 2 {
				key, ok := pairs[i].(string)
				if !ok {
					return nil, errors.New("dict: a key is not a string")
				}
				out[key] = pairs[i+1]
			}
			return out, nil
		},
	}
}

// pretty is JSON with indentation.
func pretty(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return string(raw)
	}
	return b.String()
}

// text is what a value says, also where it may be absent.
func text(v any) string {
	if r := reflect.ValueOf(v); r.Kind() == reflect.Pointer {
		if r.IsNil() {
			return ""
		}
		return fmt.Sprint(r.Elem().Interface())
	}
	return fmt.Sprint(v)
}

// when is a time for people, with all of it for machines and for whoever hovers over it. This year goes without saying.
func (c *console) when(v any) template.HTML {
	var t time.Time
	switch v := v.(type) {
	case time.Time:
		t = v
	case *time.Time:
		if v != nil {
			t = *v
		}
	}
	if t.IsZero() {
		return "–"
	}
	t = t.UTC()
	layout := "2 Jan 15:04:05"
	if t.Year() != c.Clock().UTC().Year() {
		layout = "2 Jan 2006 15:04:05"
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%[1]s">%s</time>`, t.Format(time.RFC3339Nano), t.Format(layout))) //nolint:gosec // made of a time alone
}

// field is one of an event's fields, empty where it has none.
func field(data json.RawMessage, name string) string {
	var fields map[string]json.RawMessage
	var value string
	if json.Unmarshal(data, &fields) != nil || json.Unmarshal(fields[name], &value) != nil {
		return ""
	}
	return value
}

// local is a time of an address as a form's field takes it.
func local(text string) string {
	t, err := parseMoment(text)
	if err != nil {
		return text
	}
	return t.Format("2006-01-02T15:04:05")
}

// rfc is a time for an address.
func rfc(v any) string {
	switch v := v.(type) {
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case *time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	}
	return ""
}

// grouped is a number with thin spaces between its thousands.
func grouped(v any) string {
	digits := fmt.Sprint(v)
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	var parts []string
	for len(digits) > 3 {
		parts = append(parts, digits[len(digits)-3:])
		digits = digits[:len(digits)-3]
	}
	parts = append(parts, digits)
	slices.Reverse(parts)
	return sign + strings.Join(parts, "\u202f")
}

func share(part, whole int64) string {
	if whole == 0 {
		return "–"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + " %"
}

func duration(v any) string {
	var d time.Duration
	switch v := v.(type) {
	case time.Duration:
		d = v
	case domain.Duration:
		d = time.Duration(v)
	case float64: // seconds
		d = time.Duration(v * float64(time.Second))
	case int64:
		d = time.Duration(v) * time.Second
	}
	two := func(large int, unit string, small int, rest string) string {
		if small == 0 {
			return fmt.Sprintf("%d %s", large, unit)
		}
		return fmt.Sprintf("%d %s %d %s", large, unit, small, rest)
	}
	switch {
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(d.Seconds()*1000, 'f', 1, 64) + " ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Hour:
		return two(int(d.Minutes()), "min", int(d.Seconds())%60, "s")
	case d <= 48*time.Hour:
		return two(int(d.Hours()), "h", int(d.Minutes())%60, "min")
	}
	return two(int(d.Hours())/24, "d", int(d.Hours())%24, "h")
}

// tone is the colour family of an outcome, a verdict, a decision or a state.
func tone(v any) string {
	switch text(v) {
	case "succeeded", "accepted", "duplicate", "allowed", "opted_in", "enabled", "running", "holds", "built", "done", "honoured", "approved":
		return "good"
	case "failed", "permanent", "refused", "rejected", "parked", "broken", "template_error", "overdue":
		return "bad"
	case "withheld", "partial", "opted_out", "flagged", "expired", "cancelled", "disabled", "lost", "timeout", "auth_expired", "network_error", "paused", "deleted", "late", "stopped", "declined":
		return "warn"
	case "pending", "sending", "retrying", "held", "retry", "asked", "open":
		return "busy"
	}
	return "calm"
}

// query gives an address with some of its parameters set anew: pairs of name and value, of which an empty value removes.
func query(at *url.URL, pairs ...any) string {
	q := at.Query()
	q.Del("done")
	for i := 0; i+1 < len(pairs); i += 2 {
		name, value := fmt.Sprint(pairs[i]), fmt.Sprint(pairs[i+1])
		if s, ok := pairs[i+1].(*string); ok {
			value = ""
			if s != nil {
				value = *s
			}
		}
		q.Del(name)
		if value != "" {
			q.Set(name, value)
		}
	}
	u := url.URL{Path: at.Path, RawQuery: q.Encode()}
	return u.String()
}

// frame is what every page has around it.
type frame struct {
	Title   string
	Page    string // the template's name
	Who     *api.Principal
	Head    int64
	Menu    []entry
	Done    string // what was just done
	At      *url.URL
	Main    any
	Version string
	OIDC    bool
}

// entry is a line of the menu.
type entry struct {
	Title, Path string
	Current     bool
}

// menu is the way around, for those who may go there.
var menu = []struct{ title, path, operation string }{
	{"Overview", "/", ""},
	{"Deliveries", "/deliveries", api.ListDeliveries.ID},
	{"Targets", "/targets", api.ListTargets.ID},
	{"People", "/people", api.GetConsent.ID},
	{"Reconciliation", "/reconciliation", api.ListReconciliations.ID},
	{"Opt-outs", "/opt-outs", api.SumOptOuts.ID},
	{"Ledger", "/ledger", api.ListEvents.ID},
	{"Projections", "/projections", api.ListProjections.ID},
	{"Policies", "/policies", api.GetConsentPolicy.ID},
	{"Settings", "/settings", ""},
}

// done are the words for what was done, by the code that a redirection carries: nothing from outside is shown.
var done = map[string]string{
	"saved":            "Saved. A new version is recorded, and the next firing uses it.",
	"unchanged":        "Nothing has changed, so nothing was recorded.",
	"proposed":         "Proposed. It holds once somebody else has approved it.",
	"approved":         "Approved. It is a version now, and the next firing uses it.",
	"declined":         "Declined. The target stays as it is.",
	"moved":            "It leads to the new address now. That is a version, and the next firing uses it.",
	"fired":            "The test was fired. It is recorded like every delivery.",
	"disabled":         "Switched off. Firings that name it are withheld from now on.",
	"enabled":          "Switched on. Firings go out through it again.",
	"deleted":          "Withdrawn. Its versions stay in the ledger.",
	"retried":          "Put back into the queue. Consent is asked again before the request leaves.",
	"cancelled":        "Cancelled. Nothing more is sent for it.",
	"rebuild":          "The rebuild was asked for. The live tables serve until it is done.",
	"revoked":          "Revoked. It, and sessions opened with it, are refused from now on.",
	"secret":           "Stored. Requests use the new value within seconds; nothing shows it.",
	"verify":           "The verification has begun.",
	"paused":           "Paused. What is queued for it waits.",
	"resumed":          "Resumed. What waited goes out.",
	"erased":           "Erased. What identified the person cannot be read any more; the opt-outs stay.",
	"reader_resumed":   "It tries again. It parks at the same event if that still cannot be read.",
	"skipped":          "Passed over. Who decided that, and why, is in the ledger.",
	"replay":           "Asked for. A worker puts them back; this page shows how far that has come.",
	"replay_cancelled": "Stopped. What was put back stays in the queue.",
	"answered":         "Recorded. It holds from the moment that it was decided.",
	"revealed":         "Shown to you this once. That you looked, and why, is in the ledger.",
	"resolved":         "Decided. The resolution is recorded.",
	"resolved_alike":   "Decided. Each resolution is recorded.",
	"resolved_some":    "Decided on the first thousand, each recorded. There are more.",
	"started":          "Started. A worker reads the platform's list now; this page follows it.",

	"run_approved": "Approved. The run goes on with what it would change.",
	"run_stopped":  "Stopped. What it had recorded stays; the rest is left.",
	"policy":       "Changed. Decisions from now on are made under it, and say so.",
	"retention":    "Set. Within the hour, the keys of what is older are destroyed.",
}

// show answers with a page.
func (c *console) show(w http.ResponseWriter, r *http.Request, v *visit, status int, page, title string, main any) {
	f := frame{Title: title, Page: page, At: r.URL, Main: main, Done: done[r.URL.Query().Get("done")], Version: c.Version}
	if v != nil {
		f.Who, f.Head = &v.who, v.head
		for _, m := range menu {
			if m.operation == "" || v.may(m.operation) {
				current := m.path == r.URL.Path || m.path != "/" && strings.HasPrefix(r.URL.Path, m.path)
				f.Menu = append(f.Menu, entry{m.title, m.path, current})
			}
		}
	}
	var out bytes.Buffer
	if err := c.pages[page].ExecuteTemplate(&out, "layout.html", f); err != nil {
		_ = c.Service.Problem(r.Context(), fmt.Errorf("page %s: %w", page, err)) // it logs what it cannot tell
		http.Error(w, "This page could not be shown; the log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = out.WriteTo(w) // a browser that is gone does not miss it
}

// page is show for a visit.
func (c *console) page(v *visit, name, title string, main any) error {
	c.show(v.w, v.r, v, http.StatusOK, name, title, main)
	return nil
}

// fail shows what went wrong, in the words that a program gets, too.
func (c *console) fail(w http.ResponseWriter, r *http.Request, v *visit, err error) {
	var p *api.Problem
	if !errors.As(err, &p) {
		p = c.Service.Problem(r.Context(), err)
	}
	c.show(w, r, v, p.Status, "problem", p.Title, p)
}

// back leads on after an act, so that reloading does not repeat it.
func (v *visit) back(path, done string) error {
	u, err := url.Parse(path)
	if err != nil {
		return err
	}
	q := u.Query()
	if done != "" {
		q.Set("done", done)
	}
	u.RawQuery = q.Encode()
	http.Redirect(v.w, v.r, u.String(), http.StatusSeeOther) //nolint:gosec // the path is of this console, see where u comes from
	return nil
}

// period reads the two ends of a period, which forms give as local times without a zone and permalinks as RFC 3339. They
// are UTC, as everything here.
func (v *visit) period() (from, to string, err error) {
	for _, end := range []struct {
		name string
		into *string
	}{{"from", &from}, {"to", &to}} {
		text := v.value(end.name)
		if text == "" {
			continue
		}
		t, err := parseMoment(text)
		if err != nil {
			return "", "", &api.Problem{Status: http.StatusUnprocessableEntity, Title: "A time cannot be read", Detail: end.name + " is not a time such as 2026-11-23T04:05.", NextStep: "Correct it and send the form again."}
		}
		*end.into = t.Format(time.RFC3339Nano)
	}
	return from, to, nil
}

func parseMoment(text string) (t time.Time, err error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err = time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return t, err
}

// one takes a choice from a form or query when it is one of those there are.
func one[T ~string](v *visit, name string, choices []T) string {
	if value := v.value(name); slices.Contains(choices, T(value)) {
		return value
	}
	return ""
}

// wantsCSV reports whether the page was asked for as a table for spreadsheets.
func (v *visit) wantsCSV() bool { return v.r.URL.Query().Get("format") == "csv" }

// csvMost bounds an export, in rows, and csvStep is how many of them are read at once.
const (
	csvMost = 100_000
	csvStep = 500
)

// export writes what a list's operation answers as CSV, page by page, the whole of it up to csvMost. at is where in reads
// from, and how much.
func export[I, T any](v *visit, c *console, name string, list api.Operation[I, api.Listed[T]], in *I, at *api.Paging) error {
	at.Cursor, at.Limit = "", csvStep
	for first, rows := true, 0; ; first = false {
		out, err := list.Call(v.r.Context(), c.Service, v.who, in)
		switch {
		case err != nil && first:
			return err
		case err != nil:
			panic(http.ErrAbortHandler) // half of it is out: a broken download says so, a short one would not
		case first:
			v.w.Header().Set("Content-Type", "text/csv; charset=utf-8")
			v.w.Header().Set("Content-Disposition", `attachment; filename="`+name+`.csv"`)
		}
		if err := api.WriteCSV(v.w, out.Body.Items, first); err != nil {
			return nil //nolint:nilerr // the browser has left
		}
		if rows += len(out.Body.Items); out.Body.Next == nil || rows >= csvMost {
			return nil
		}
		at.Cursor = *out.Body.Next
	}
}
