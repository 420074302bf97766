package portal

import (
	"mime"
	"net/http"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// showUnsubscribe asks whether to stop, or says that it has stopped. It changes nothing: mail scanners open links.
func (p *portal) showUnsubscribe(w http.ResponseWriter, r *http.Request) {
	link, ok := p.open(w, r, domain.LinkUnsubscribe)
	if !ok {
		return
	}
	answers, err := p.answers(r.Context(), link.ProfileID)
	if err != nil {
		p.failed(w, r, err)
		return
	}
	changes, err := p.recorded(r.Context(), link.ProfileID, r.URL.Query().Get("saved"))
	if err != nil {
		p.failed(w, r, err)
		return
	}
	view := p.view(r)
	one, whole := choice{link.Channel, link.Purpose}, choice{link.Channel, domain.PurposeAll}
	by := view.Channels[link.Channel].By
	all := view.Text("unsubscribe_all", "by", by)
	switch {
	case changes != nil:
		view.Title = view.Text("unsubscribed_title")
		view.Notice = view.notice("unsubscribed_title", "unsubscribed_text", changes)
	case !answers.on(whole):
		view.Title = view.Text("already_title")
		view.Message = &Message{Title: view.Title, Text: view.Text("already_text", "purpose", view.Purposes[link.Purpose].Name, "by", by)}
	case answers.refused(one):
		view.Title = view.Text("already_title")
		view.Leave = &Unsubscribe{
			Question: view.Title, Text: view.Text("already_text", "purpose", view.Purposes[link.Purpose].Name, "by", by),
			Button: all,
		}
	default:
		view.Title = view.Text("unsubscribe_title")
		view.Leave = &Unsubscribe{
			Question: view.Text("unsubscribe_question", "purpose", view.Purposes[link.Purpose].Name, "by", by),
			Text:     view.Text("unsubscribe_text"), Button: view.Text("unsubscribe_button"), All: all,
		}
	}
	p.show(w, r, http.StatusOK, view)
}

// refused reports whether the person said no, which is more than not having said yes.
func (s state) refused(c choice) bool { return s[c].Status == domain.OptedOut }

// unsubscribe stops what the link is about, or the whole channel. A mail program posts List-Unsubscribe=One-Click
// (RFC 8058) and shows nothing of the answer; the page's own form is led to what was recorded. Whatever else is posted
// changes nothing.
func (p *portal) unsubscribe(w http.ResponseWriter, r *http.Request) {
	link, ok := p.open(w, r, domain.LinkUnsubscribe)
	if !ok {
		return
	}
	if wait := p.people.wait(link.ProfileID.String()); wait > 0 {
		p.busy(w, r, wait)
		return
	}
	if err := parse(r); err != nil {
		p.message(w, r, http.StatusBadRequest, "invalid")
		return
	}
	view := p.view(r)
	d := decision{method: byPage}
	stop := choice{link.Channel, link.Purpose}
	oneClick := r.PostForm.Get("List-Unsubscribe") == "One-Click"
	switch {
	case oneClick:
		d.method, d.wording = byOneClick, map[string]string{stop.key(): "List-Unsubscribe: One-Click"}
	case r.PostForm.Get("stop") == "all":
		stop.Purpose = domain.PurposeAll
		d.wording = map[string]string{stop.key(): view.Text("unsubscribe_all", "by", view.Channels[stop.Channel].By)}
	case r.PostForm.Get("stop") == "one":
		d.wording = map[string]string{stop.key(): view.Text("unsubscribe_question", "purpose", view.Purposes[stop.Purpose].Name, "by", view.Channels[stop.Channel].By)}
	default:
		p.message(w, r, http.StatusBadRequest, "invalid")
		return
	}
	answers, err := p.answers(r.Context(), link.ProfileID)
	if err != nil {
		p.failed(w, r, err)
		return
	}
	position := int64(0)
	if !answers.refused(stop) { // a mail program that is unsure posts again
		d.changes = []domain.ConsentChange{{Channel: stop.Channel, Purpose: stop.Purpose, Status: domain.OptedOut}}
		if position, err = p.record(r, link, view.Locale, d); err != nil {
			p.failed(w, r, err)
			return
		}
	}
	if oneClick {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("unsubscribed\n"))
		return
	}
	p.back(w, r, view, position)
}

// parse reads a form in either of the two media types that RFC 8058 allows.
func parse(r *http.Request) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == "multipart/form-data" {
		if err := r.ParseMultipartForm(bodyMax); err != nil { //nolint:gosec // whoever calls has bounded the body
			return err
		}
		r.PostForm = r.MultipartForm.Value
		return nil
	}
	return r.ParseForm()
}
