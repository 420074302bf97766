package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// asFile is a target as a file of 'targets apply' has it, without its handle, which the page's address says.
func asFile(t domain.Target) string {
	file, err := t.File()
	if err != nil {
		return err.Error() // of a target that was read from JSON
	}
	return withoutHandle(string(file))
}

// editPage is the editor with all that is in its form. It is rendered anew by each of its buttons, and a script takes from that
// what it needs.
type editPage struct {
	Handle   string
	New      bool
	Revision int64
	Text     string // the file as it is edited
	Reason   string
	Problem  *api.Problem
	Approval bool // a change takes two people

	Context string       // what it is tried with
	Opened  *opened      // the past firing that Context is from
	Firings []firings    // that a context can be taken from
	Chosen  string       // the delivery whose context is asked for
	Why     string       // it is asked for
	Closed  *api.Problem // why it was not opened

	Preview *preview
	Changes []diffLine // from the recorded target to the file
	Test    *api.TestReport
	Untried *api.Problem // why nothing was sent to the inspector
	Bin     string       // of the inspector, that tests go to
}

// opened is a past firing whose context is shown.
type opened struct{ Delivery, Reaction string }

// firings are past ones to choose among.
type firings struct {
	Title string
	Items []api.DeliverySummary
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

// firingsMost is how many past firings of a kind the editor offers.
const firingsMost = 15

func (c *console) editTarget(v *visit) error {
	p := editPage{Handle: v.r.PathValue("handle"), Context: sampleContext}
	now, err := c.target(v, p.Handle)
	if err != nil {
		return err
	}
	if now != nil {
		p.Revision, p.Text = now.Revision, asFile(now.Target)
		if len(now.Sample) > 0 {
			p.Context = pretty(now.Sample)
		}
	} else {
		p.New, p.Text = true, newTarget
		if p.Handle == "new" {
			p.Handle = v.value("handle")
		}
		templates, err := platforms.Templates()
		if err != nil {
			return err
		}
		for _, t := range templates {
			if t.Name == v.value("like") {
				p.Text = withoutHandle(string(t.YAML))
			}
		}
	}
	return c.showEditor(v, http.StatusOK, p)
}

// target reads a target; nil when there is none.
func (c *console) target(v *visit, handle string) (*api.Target, error) {
	get := api.GetTarget.In()
	get.Handle = handle
	now, err := api.GetTarget.Call(v.r.Context(), c.Service, v.who, get)
	var p *api.Problem
	if errors.As(err, &p) && p.Status == http.StatusNotFound {
		return nil, nil //nolint:nilnil // that there is none is an answer
	}
	if err != nil {
		return nil, err
	}
	return &now.Body, nil
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

// edited reads the form.
func edited(v *visit) editPage {
	p := editPage{
		Handle: v.r.PathValue("handle"), Text: normal(v.r.PostFormValue("file")), Reason: v.value("reason"), Context: normal(v.r.PostFormValue("context")),
		Chosen: v.value("delivery"), Why: v.value("why"), Bin: v.value("bin"),
	}
	if p.Handle == "new" {
		p.Handle = v.value("handle")
	}
	p.Revision, _ = strconv.ParseInt(v.value("revision"), 10, 64)
	p.New = p.Revision == 0
	if reaction := v.value("opened_reaction"); reaction != "" {
		p.Opened = &opened{v.value("opened"), reaction}
	}
	return p
}

// normal is a form's text with the line ends that files have.
func normal(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }

// showEditor completes the page with what the ledger holds beside what is in the form.
func (c *console) showEditor(v *visit, status int, p editPage) error {
	now, err := c.target(v, p.Handle)
	if err != nil {
		return err
	}
	if now != nil {
		p.Approval = now.Approval == domain.ApprovalRequired
		if p.Preview != nil {
			p.Changes = diff(asFile(now.Target), p.Text)
		}
	}
	if v.may(api.OpenPastContext.ID) && v.may(api.ListDeliveries.ID) {
		own, others := firings{Title: "Of this target"}, firings{Title: "Of others"}
		for _, of := range []*firings{&own, &others} {
			in := api.ListDeliveries.In()
			in.Limit = firingsMost
			if of == &own {
				in.Target = p.Handle
			}
			out, err := api.ListDeliveries.Call(v.r.Context(), c.Service, v.who, in)
			if err != nil {
				return err
			}
			for _, d := range out.Body.Items {
				if of == &own || d.Target.Handle != p.Handle {
					of.Items = append(of.Items, d)
				}
			}
			if len(of.Items) > 0 {
				p.Firings = append(p.Firings, *of)
			}
		}
	}
	title := "Edit " + p.Handle
	if p.New {
		title = "New target " + p.Handle
	}
	c.show(v.w, v.r, v, status, "target_edit", title, p)
	return nil
}

// draft turns the edited file into what the API takes.
func (p editPage) draft() ([]byte, error) {
	raw, err := domain.TargetJSON([]byte(p.Text))
	if err != nil {
		return nil, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The file cannot be read", Detail: err.Error(), NextStep: "Correct it; indentation counts in YAML."}
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil || object == nil {
		return nil, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The file is not a target", Detail: "It is no list of fields and their values.", NextStep: "Begin with a line such as url: https://example.com/"}
	}
	if p.Reason != "" {
		if object["reason"], err = json.Marshal(p.Reason); err != nil {
			return nil, err
		}
	}
	return json.Marshal(object)
}

func (c *console) saveTarget(v *visit) error {
	p := edited(v)
	body, err := p.draft()
	if err == nil {
		in := api.PutTarget.In()
		in.Handle, in.RawBody = p.Handle, body
		if p.New {
			in.IfNoneMatch = "*"
		} else {
			in.IfMatch = `"` + decimal(p.Revision) + `"`
		}
		saved, problem := api.PutTarget.Call(v.r.Context(), c.Service, v.who, in)
		if err = problem; err == nil {
			return v.back("/targets/"+p.Handle, outcomeOf(saved.Body, p.Revision))
		}
	}
	if !errors.As(err, &p.Problem) {
		return err
	}
	return c.showEditor(v, p.Problem.Status, p)
}

// outcomeOf is the word for what came of a change of a target that had a revision.
func outcomeOf(after api.Target, before int64) string {
	switch {
	case after.Proposal != nil:
		return "proposed"
	case after.Revision == before:
		return "unchanged"
	}
	return "saved"
}

// previewTarget renders what is in the form, as a page of its own or as the part of one that a script asks for.
func (c *console) previewTarget(v *visit) error {
	p := edited(v)
	request, err := p.request()
	if err == nil {
		in := api.PreviewTarget.In()
		in.Handle = p.Handle
		if in.RawBody, err = json.Marshal(request); err != nil {
			return err
		}
		out, problem := api.PreviewTarget.Call(v.r.Context(), c.Service, v.who, in)
		if err = problem; err == nil {
			var draft struct {
				Body string `json:"body"`
			}
			_ = json.Unmarshal(request.Draft, &draft) // the API has read it
			p.Preview = &preview{out.Body, draft.Body}
		}
	}
	if err != nil && !errors.As(err, &p.Problem) {
		return err
	}
	return c.showEditor(v, http.StatusOK, p)
}

// request is what a preview and a test take: the file, and the context to render it with.
func (p editPage) request() (r api.TestRequest, err error) {
	p.Reason = ""
	if r.Draft, err = p.draft(); err != nil {
		return r, err
	}
	r.Context = json.RawMessage(strings.TrimSpace(p.Context))
	if len(r.Context) == 0 {
		r.Context = json.RawMessage("{}")
	}
	if !json.Valid(r.Context) {
		return r, &api.Problem{Status: http.StatusUnprocessableEntity, Title: "The context is not JSON", NextStep: "Correct it: a JSON object."}
	}
	return r, nil
}

// tryTarget sends what is in the form to the inspector and shows what arrived there.
func (c *console) tryTarget(v *visit) error {
	p := edited(v)
	request, err := p.request()
	if err == nil {
		request.Bin = p.Bin
		in := api.TestTarget.In()
		in.Handle = p.Handle
		if in.RawBody, err = json.Marshal(request); err != nil {
			return err
		}
		out, problem := api.TestTarget.Call(v.r.Context(), c.Service, v.who, in)
		if err = problem; err == nil {
			p.Test = &out.Body
			if at := out.Body.Inspector; at != nil {
				p.Bin = at.ID
			}
		}
	}
	if err != nil && !errors.As(err, &p.Untried) {
		return err
	}
	return c.showEditor(v, http.StatusOK, p)
}

// openContext puts a past firing's context into the form: once, so that it is recorded once however long somebody edits.
func (c *console) openContext(v *visit) error {
	p := edited(v)
	in := api.OpenPastContext.In()
	var err error
	if in.Body.Delivery, err = uuid.Parse(p.Chosen); err != nil {
		p.Closed = &api.Problem{Title: "Which firing?", NextStep: "Choose one of the list."}
		return c.showEditor(v, http.StatusOK, p)
	}
	if in.Body.Reason = p.Why; p.Why == "" {
		errors.As(needsReason(), &p.Closed)
		return c.showEditor(v, http.StatusOK, p)
	}
	out, err := api.OpenPastContext.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		if !errors.As(err, &p.Closed) {
			return err
		}
		return c.showEditor(v, http.StatusOK, p)
	}
	p.Context, p.Opened, p.Why = pretty(out.Body.Context), &opened{p.Chosen, out.Body.Reaction}, ""
	return c.showEditor(v, http.StatusOK, p)
}
