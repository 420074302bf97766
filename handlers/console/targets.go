package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

func decimal[T ~int | ~int64](n T) string { return strconv.FormatInt(int64(n), 10) }

// title is a code as the beginning of a sentence.
func title(code string) string {
	text := strings.ReplaceAll(code, "_", " ")
	for i, r := range text {
		return string(unicode.ToUpper(r)) + text[i+len(string(r)):]
	}
	return text
}

type targetsPage struct {
	Items   []api.Target
	Next    *string
	MayEdit bool
}

func (c *console) listTargets(v *visit) error {
	in := api.ListTargets.In()
	in.Cursor, in.Limit = v.value("cursor"), pageSize
	out, err := api.ListTargets.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	return c.page(v, "targets", "Targets", targetsPage{out.Body.Items, out.Body.Next, v.may(api.PutTarget.ID)})
}

type targetPage struct {
	api.Target
	Versions  []targetVersion
	Shown     *targetVersion // whose change is shown in full
	MayEdit   bool
	MaySwitch bool
	MayDelete bool
	MayList   bool
}

// targetVersion is one version: what it changed, and what was sent by it.
type targetVersion struct {
	api.Target
	Diff []diffLine
	Sent deliveries.Outcomes
}

func (c *console) showTarget(v *visit) error {
	handle := v.r.PathValue("handle")
	get := api.GetTarget.In()
	get.Handle = handle
	now, err := api.GetTarget.Call(v.r.Context(), c.Service, v.who, get)
	if err != nil {
		return err
	}
	in := api.ListTargetVersions.In()
	in.Handle, in.Limit = handle, 200
	versions, err := api.ListTargetVersions.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	counts := api.AuditOutcomes.In()
	counts.Target, counts.By = handle, string(deliveries.ByVersion)
	sent, err := api.AuditOutcomes.Call(v.r.Context(), c.Service, v.who, counts)
	if err != nil {
		return err
	}
	p := targetPage{Target: now.Body, MayEdit: v.may(api.PutTarget.ID), MaySwitch: v.may(api.DisableTarget.ID), MayDelete: v.may(api.DeleteTarget.ID), MayList: v.may(api.ListDeliveries.ID)}
	items := versions.Body.Items
	for i, t := range items {
		tv := targetVersion{Target: t}
		before := ""
		if i+1 < len(items) {
			before = asFile(items[i+1])
		}
		tv.Diff = diff(before, asFile(t))
		for _, s := range sent.Body.Items {
			if s.Version == t.Version {
				tv.Sent = s.Outcomes
			}
		}
		p.Versions = append(p.Versions, tv)
	}
	return c.page(v, "target", now.Body.Handle, p)
}

// asFile is a target as a file of 'targets apply' has it.
func asFile(t api.Target) string {
	text, err := yaml.MarshalWithOptions(t.Target, yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

type editPage struct {
	Handle   string
	New      bool
	Revision int64
	Text     string // the file as it is edited
	Reason   string
	Problem  *api.Problem
	Context  string
	Preview  *preview
	Source   string // the body's template, for the preview's marks
}

// preview is what a firing would send.
type preview struct {
	api.Preview
	Source string // the body's template
}

const newTarget = `name: ""
platform: webhook
url: https://
headers:
  Content-Type: application/json
body: |
  {
    "email": "{{ profile.email }}"
  }
consent: {channel: email, purpose: promo, mode: enforce}
retry: {max_attempts: 8, timeout: 10s}
limits: {rate: 50/s, concurrency: 16}
`

const sampleContext = `{
  "profile": {"first_name": "Ada", "email": "ada@example.com"},
  "reward": {"amount": 10}
}`

func (c *console) editTarget(v *visit) error {
	handle := v.r.PathValue("handle")
	p := editPage{Handle: handle, Context: sampleContext}
	get := api.GetTarget.In()
	get.Handle = handle
	now, err := api.GetTarget.Call(v.r.Context(), c.Service, v.who, get)
	switch {
	case err == nil:
		p.Revision, p.Text = now.Body.Revision, withoutHandle(asFile(now.Body))
	case isNotFound(err):
		p.New, p.Text = true, newTarget
		if p.Handle == "new" {
			p.Handle = v.value("handle")
		}
	default:
		return err
	}
	return c.page(v, "target_edit", "Edit "+p.Handle, p)
}

// withoutHandle leaves out of a file what the address says already.
func withoutHandle(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "handle:") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func isNotFound(err error) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Status == http.StatusNotFound
}

// asJSON turns an edited file into what the API takes.
func asJSON(text, reason string) ([]byte, error) {
	var object map[string]any
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		return nil, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The file cannot be read", Detail: yaml.FormatError(err, false, false), NextStep: "Correct it; indentation counts in YAML."}
	}
	if reason != "" {
		object["reason"] = reason
	}
	return json.Marshal(object)
}

func (c *console) saveTarget(v *visit) error {
	p := editPage{Handle: v.r.PathValue("handle"), Text: normal(v.r.PostFormValue("file")), Reason: v.value("reason"), Context: normal(v.r.PostFormValue("context"))}
	if p.Handle == "new" {
		p.Handle = v.value("handle")
	}
	revision, _ := strconv.ParseInt(v.value("revision"), 10, 64)
	p.Revision, p.New = revision, revision == 0
	body, err := asJSON(p.Text, p.Reason)
	if err == nil {
		in := api.PutTarget.In()
		in.Handle, in.RawBody = p.Handle, body
		if p.New {
			in.IfNoneMatch = "*"
		} else {
			in.IfMatch = `"` + decimal(revision) + `"`
		}
		saved, problem := api.PutTarget.Call(v.r.Context(), c.Service, v.who, in)
		if err = problem; err == nil {
			word := "saved"
			if saved.Body.Revision == revision {
				word = "unchanged"
			}
			return v.back("/targets/"+p.Handle, word)
		}
	}
	if !errors.As(err, &p.Problem) {
		return err
	}
	c.show(v.w, v.r, v, p.Problem.Status, "target_edit", "Edit "+p.Handle, p)
	return nil
}

// normal is a form's text with the line ends that files have.
func normal(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }

// previewTarget renders what is in the form, as a page of its own or as the part of one that a script asks for.
func (c *console) previewTarget(v *visit) error {
	p := editPage{Handle: v.r.PathValue("handle"), Text: normal(v.r.PostFormValue("file")), Reason: v.value("reason"), Context: normal(v.r.PostFormValue("context"))}
	p.Revision, _ = strconv.ParseInt(v.value("revision"), 10, 64)
	p.New = p.Revision == 0
	body, err := asJSON(p.Text, "")
	if err == nil {
		var draft struct {
			Body string `json:"body"`
		}
		_ = json.Unmarshal(body, &draft) // the API says what is wrong with it
		request, problem := json.Marshal(map[string]json.RawMessage{"context": rawOr(p.Context), "draft": body})
		if problem != nil {
			err = &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The context is not JSON", NextStep: "Correct it: a JSON object."}
		} else {
			in := api.PreviewTarget.In()
			in.Handle, in.RawBody = p.Handle, request
			out, problem := api.PreviewTarget.Call(v.r.Context(), c.Service, v.who, in)
			if err = problem; err == nil {
				p.Preview = &preview{out.Body, draft.Body}
			}
		}
	}
	if err != nil && !errors.As(err, &p.Problem) {
		return err
	}
	return c.page(v, "target_edit", "Edit "+p.Handle, p)
}

func rawOr(text string) json.RawMessage {
	if strings.TrimSpace(text) == "" {
		return json.RawMessage("{}")
	}
	return json.RawMessage(text)
}

func (c *console) switchTarget(v *visit) error {
	handle, op, word := v.r.PathValue("handle"), api.DisableTarget, "disabled"
	if v.value("to") == "enabled" {
		op, word = api.EnableTarget, "enabled"
	}
	in := op.In()
	in.Handle = handle
	in.Body = &api.SwitchReason{Reason: v.value("reason")}
	if _, err := op.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/targets/"+handle, word)
}

func (c *console) deleteTarget(v *visit) error {
	in := api.DeleteTarget.In()
	in.Handle, in.Reason = v.r.PathValue("handle"), v.value("reason")
	if v.value("confirm") != in.Handle {
		return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The handle does not match", Detail: "To withdraw a target, type its handle.", NextStep: "Go back and type " + in.Handle + "."}
	}
	if _, err := api.DeleteTarget.Call(v.r.Context(), c.Service, v.who, in); err != nil {
		return err
	}
	return v.back("/targets", "deleted")
}
