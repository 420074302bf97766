package portal

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// View is what a page shows.
type View struct {
	*Locale
	Language  string
	Languages []LanguageLink
	Theme     Theme
	Style     string // address of the style sheet
	Logo      string // address of the logo; "" for none
	Title     string
	Notice    *Notice      // what was just recorded
	Message   *Message     // the page says one thing
	Form      *Form        // the preference centre
	Leave     *Unsubscribe // the way out
	Action    string       // where forms are posted
}

// LanguageLink leads to the same page in another language.
type LanguageLink struct {
	Tag, Name, Href string
	Current         bool
}

// Notice says what was recorded.
type Notice struct {
	Title, Text string
	Items       []string
}

// Message is a page with one thing to say.
type Message struct{ Title, Text string }

// Form is the preference centre's.
type Form struct {
	Channels []ChannelView
}

// ChannelView is a channel with what it may bring.
type ChannelView struct {
	ID, Key, Name, Label, OffHint string
	On                            bool
	Groups                        []Group
}

// Group is purposes that have something in common.
type Group struct {
	Title   string
	Choices []ChoiceView
}

// ChoiceView is one thing that may be on or off.
type ChoiceView struct {
	ID, Key, Name, Text, Note string
	On                        bool
}

// Unsubscribe is the page that asks whether to stop.
type Unsubscribe struct {
	Question, Text, Button, All string
}

// view is what every page has.
func (p *portal) view(r *http.Request) View {
	locale := p.locales.choose(r.URL.Query().Get("lang"), r.Header.Get("Accept-Language"))
	v := View{Locale: locale, Language: locale.Tag, Theme: p.Theme, Style: "/preferences/-/" + p.styleName}
	if p.Theme.logoName != "" {
		v.Logo = "/preferences/-/" + p.Theme.logoName
	}
	for _, l := range p.locales.all {
		v.Languages = append(v.Languages, LanguageLink{Tag: l.Tag, Name: l.Name, Href: "?lang=" + url.QueryEscape(l.Tag), Current: l == locale})
	}
	v.Action = "?lang=" + url.QueryEscape(locale.Tag)
	return v
}

// Text gives one of the locale's texts. Pairs of placeholder and value follow; {brand} is always known.
func (v View) Text(key string, values ...string) string {
	brand := v.Theme.Brand
	if brand == "" {
		brand = v.Locale.Texts["brand"]
	}
	pairs := []string{"{brand}", brand}
	for i := 0; i+1 < len(values); i += 2 {
		pairs = append(pairs, "{"+values[i]+"}", values[i+1])
	}
	return strings.NewReplacer(pairs...).Replace(v.Locale.Texts[key])
}

// sentence says what a change means: E-mail – Offers and news: on.
func (v View) sentence(c domain.ConsentChange) string {
	name := v.Channels[c.Channel].Name
	if c.Purpose != domain.PurposeAll {
		name += " – " + v.Purposes[c.Purpose].Name
	}
	status := v.Text("is_off")
	if c.Status == domain.OptedIn {
		status = v.Text("is_on")
	}
	return name + ": " + status
}

// notice says what was just recorded.
func (v View) notice(title, text string, changes []domain.ConsentChange) *Notice {
	n := &Notice{Title: v.Text(title), Text: v.Text(text)}
	for _, c := range changes {
		n.Items = append(n.Items, v.sentence(c))
	}
	return n
}
