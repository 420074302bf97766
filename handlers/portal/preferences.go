package portal

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// showPreferences shows the answers that hold, and, right after a change, what was recorded. It changes nothing.
func (p *portal) showPreferences(w http.ResponseWriter, r *http.Request) {
	link, ok := p.open(w, r, domain.LinkPreferences)
	if !ok {
		return
	}
	answers, err := p.answers(r.Context(), link.ProfileID)
	if err != nil {
		p.failed(w, r, err)
		return
	}
	offered, err := p.offered(r.Context(), answers)
	if err != nil {
		p.failed(w, r, err)
		return
	}
	view := p.view(r)
	view.Title = view.Text("title")
	view.Form = view.form(offered, answers)
	switch saved := r.URL.Query().Get("saved"); saved {
	case "":
	case "0":
		view.Notice = view.notice("saved_title", "nothing_saved", nil)
	default:
		changes, err := p.recorded(r.Context(), link.ProfileID, saved)
		if err != nil {
			p.failed(w, r, err)
			return
		}
		if changes != nil {
			view.Notice = view.notice("saved_title", "saved_text", changes)
		}
	}
	if view.Notice != nil {
		view.Title = view.Notice.Title
	}
	p.show(w, r, http.StatusOK, view)
}

// form shows choices as they stand.
func (v View) form(offered []choice, answers state) *Form {
	form := &Form{}
	for _, channel := range domain.Channels {
		whole := choice{channel, domain.PurposeAll}
		c := ChannelView{
			ID: string(channel), Key: whole.key(), Name: v.Channels[channel].Name, On: answers.on(whole),
			Label: v.Text("channel_on", "by", v.Channels[channel].By), OffHint: v.Text("channel_off_hint", "by", v.Channels[channel].By),
		}
		groups := []Group{{Title: v.Text("news")}, {Title: v.Text("service")}}
		for _, o := range offered {
			if o.Channel != channel {
				continue
			}
			one := ChoiceView{ID: string(channel) + "-" + string(o.Purpose), Key: o.key(), Name: v.Purposes[o.Purpose].Name, Text: v.Purposes[o.Purpose].Text, On: answers.on(o)}
			if answer, asked := answers[o]; asked && answer.Status != domain.Unknown {
				one.Note = v.Text("changed", "date", answer.DecidedAt.UTC().Format(time.DateOnly))
			} else {
				one.Note = v.Text("not_chosen")
			}
			group := 1
			if o.Purpose.Promotional() {
				group = 0
			}
			groups[group].Choices = append(groups[group].Choices, one)
		}
		c.Groups = slices.DeleteFunc(groups, func(g Group) bool { return len(g.Choices) == 0 })
		if len(c.Groups) > 0 {
			form.Channels = append(form.Channels, c)
		}
	}
	return form
}

// savePreferences records what the person changed: what differs from what the page had shown them. An answer that
// somebody else gave meanwhile, or that an old tab shows, is left alone.
func (p *portal) savePreferences(w http.ResponseWriter, r *http.Request) {
	link, ok := p.open(w, r, domain.LinkPreferences)
	if !ok {
		return
	}
	if wait := p.people.wait(link.ProfileID.String()); wait > 0 {
		p.busy(w, r, wait)
		return
	}
	if err := r.ParseForm(); err != nil {
		p.message(w, r, http.StatusBadRequest, "invalid")
		return
	}
	view := p.view(r)
	d := decision{method: byCentre, wording: map[string]string{}}
	answer := func(c choice, on bool) {
		status := domain.OptedOut
		if on {
			status = domain.OptedIn
		}
		d.changes = append(d.changes, domain.ConsentChange{Channel: c.Channel, Purpose: c.Purpose, Status: status})
		d.wording[c.key()] = view.wording(c)
	}
	form := r.PostForm
	stop := form.Get("stop") == "all"
	for _, channel := range domain.Channels {
		for _, purpose := range domain.Purposes {
			c := choice{channel, purpose}
			was := slices.Contains(form["was"], c.key())
			switch {
			case !slices.Contains(form["offered"], c.key()):
			case stop && purpose == domain.PurposeAll && was:
				answer(c, false)
			case !stop && slices.Contains(form["on"], c.key()) != was:
				answer(c, !was)
			}
		}
	}
	position := int64(0)
	if len(d.changes) > 0 {
		var err error
		if position, err = p.record(r, link, view.Locale, d); err != nil {
			p.failed(w, r, err)
			return
		}
	}
	p.back(w, r, view, position)
}

// wording is what the page says at a choice: the words that somebody agreed to.
func (v View) wording(c choice) string {
	if c.Purpose == domain.PurposeAll {
		return v.Text("channel_on", "by", v.Channels[c.Channel].By)
	}
	return fmt.Sprintf("%s: %s – %s", v.Channels[c.Channel].Name, v.Purposes[c.Purpose].Name, v.Purposes[c.Purpose].Text)
}

// back leads to the page that shows what was recorded, so that loading it again records nothing again.
func (p *portal) back(w http.ResponseWriter, r *http.Request, view View, position int64) {
	path := r.URL.EscapedPath()
	if !strings.HasPrefix(path, "/preferences/") && !strings.HasPrefix(path, "/unsubscribe/") {
		p.message(w, r, http.StatusNotFound, "invalid") // mounted somewhere else
		return
	}
	http.Redirect(w, r, path+view.Action+"&saved="+strconv.FormatInt(position, 10), http.StatusSeeOther) //nolint:gosec // the path is the one that was asked for
}
