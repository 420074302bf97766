package domain

import (
	"errors"
	"time"

	"github.com/google/uuid"
)

// LinkKind says what a link in a message leads to.
type LinkKind byte

// The links that messages carry.
const (
	LinkPreferences LinkKind = 1 // the person's preference centre
	LinkUnsubscribe LinkKind = 2 // the one-click way out of what the message is
)

// Link is what the token of a link stands for: whose page it opens and until when, and the message that carried it.
type Link struct {
	Kind       LinkKind
	ProfileID  uuid.UUID
	DeliveryID uuid.UUID // zero when no delivery carried it
	Channel    Channel   // what an unsubscribe link is about: the target's consent rule
	Purpose    Purpose
	ExpiresAt  time.Time // whole hours
}

// Errors of links in templates.
var (
	// ErrNoLinks is a service that was not told where its pages are reached.
	ErrNoLinks = errors.New("links need the service's --links-url")
	// ErrNoPerson is a firing that names nobody, so there is nobody's page to link to.
	ErrNoPerson = errors.New("links need a firing with a profile_id")
	// ErrNoRule is a target that asks for no consent, so there is nothing to unsubscribe from.
	ErrNoRule = errors.New("unsubscribe links need the target's consent rule")
)

// How long links work: the way out for longer than any law asks, which is sixty days after the message at most.
const (
	PreferencesValid = 90 * 24 * time.Hour
	UnsubscribeValid = 2 * 365 * 24 * time.Hour
)

// LinkOf is the link in a message: to whose page, in which delivery, about what, and until when. Errors: ErrNoPerson,
// ErrNoRule.
func LinkOf(kind LinkKind, profile, delivery uuid.UUID, rule *ConsentRule, at time.Time) (Link, error) {
	l := Link{Kind: kind, ProfileID: profile, DeliveryID: delivery, ExpiresAt: at.Add(PreferencesValid)}
	if profile == uuid.Nil {
		return l, ErrNoPerson
	}
	if kind == LinkUnsubscribe {
		if rule == nil {
			return l, ErrNoRule
		}
		l.Channel, l.Purpose, l.ExpiresAt = rule.Channel, rule.Purpose, at.Add(UnsubscribeValid)
	}
	l.ExpiresAt = l.ExpiresAt.UTC().Truncate(time.Hour)
	return l, nil
}

// Path is where a link's token is put after.
func (k LinkKind) Path() string {
	if k == LinkUnsubscribe {
		return "/unsubscribe/"
	}
	return "/preferences/"
}

// sampleLink stands in previews, where no person is meant.
func sampleLink(kind LinkKind) (string, error) { //nolint:unparam // of the shape of a Linker
	return "https://preferences.example.com" + kind.Path() + "SAMPLE", nil
}

// linkFunctions are what templates call for links: preferences_url() and unsubscribe_url() for bodies, and for the
// headers of an e-mail list_unsubscribe() (List-Unsubscribe) and list_unsubscribe_post() (List-Unsubscribe-Post), which
// RFC 8058 asks for together.
func linkFunctions(link func(LinkKind) (string, error)) map[string]func([]any) (any, error) {
	if link == nil {
		link = sampleLink
	}
	to := func(kind LinkKind) func([]any) (any, error) {
		return func([]any) (any, error) { return link(kind) }
	}
	return map[string]func([]any) (any, error){
		"preferences_url": to(LinkPreferences), "unsubscribe_url": to(LinkUnsubscribe),
		"list_unsubscribe": func([]any) (any, error) {
			address, err := link(LinkUnsubscribe)
			return "<" + address + ">", err
		},
		"list_unsubscribe_post": func([]any) (any, error) { return "List-Unsubscribe=One-Click", nil },
	}
}
