package domain

import (
	"strings"
)

// CommsKind is what a field of the CRM's attributes.comms says.
type CommsKind string

// The kinds of field.
const (
	CommsOptIn        CommsKind = "opt_in"       // true is a yes to the purpose, false a no, null no answer
	CommsOptOut       CommsKind = "opt_out"      // true is a no to everything on the channel; false takes that back and is consent to nothing
	CommsBounced      CommsKind = "bounced"      // true: the address does not work
	CommsVerification CommsKind = "verification" // not_sent, sent or verified
	CommsDecidedAt    CommsKind = "decided_at"   // when the customer last decided on marketing
	CommsTerms        CommsKind = "terms"        // which terms the customer accepted, and when; no consent to messages
	CommsRecord       CommsKind = "record"       // the record's own: whose it is, since when
)

// CommsField is one name that the CRM, its guides or its extensions use for a communication preference, and what it means
// here.
type CommsField struct {
	Name    string    `json:"name"`               // as it is written in attributes.comms
	AliasOf string    `json:"alias_of,omitempty"` // the name that it is read as; empty for the canonical ones
	Kind    CommsKind `json:"kind"`
	Channel Channel   `json:"channel,omitempty"`
	Purpose Purpose   `json:"purpose,omitempty"`
	Meaning string    `json:"meaning"`
}

// categories are the purposes that the CRM has a field for on each channel, with their meaning.
var categories = []struct {
	purpose Purpose
	meaning string
}{
	{Promo, "marketing"},
	{Discover, "product discovery and new arrivals"},
	{Benefits, "rewards and other incentives"},
	{Reminders, "reminders of what the customer has, such as a reward that expires"},
	{Account, "notices about the customer's account"},
	{Bookings, "appointments and bookings"},
	{Feedback, "surveys and requests for feedback"},
	{Location, "messages for where the customer is"},
	{Service, "service and support"},
}

var bouncedMeaning = map[Channel]string{
	Email: "the address no longer takes mail", SMS: "the number cannot be delivered to", Push: "notifications are off on the device",
	Phone: "the number is disconnected", Post: "mail was returned to sender",
}

// CommsFields is every field name that the CRM has for communication preferences, aliases included: the one table that
// webhooks and imports are read by and that docs/consent.md shows.
var CommsFields = commsFields()

var commsByName = func() map[string]CommsField {
	m := make(map[string]CommsField, len(CommsFields))
	for _, f := range CommsFields {
		m[f.Name] = f
	}
	return m
}()

func commsFields() []CommsField {
	var out []CommsField
	for _, c := range Channels {
		ch := string(c)
		out = append(out, CommsField{Name: ch + "_optout", Kind: CommsOptOut, Channel: c, Purpose: PurposeAll, Meaning: "true: nothing at all on " + ch + "; false: not opted out of everything, which is consent to nothing"})
		for _, category := range categories {
			out = append(out, CommsField{Name: ch + "_" + string(category.purpose), Kind: CommsOptIn, Channel: c, Purpose: category.purpose, Meaning: category.meaning + " by " + ch})
		}
		out = append(out,
			CommsField{Name: ch + "_optin", AliasOf: ch + "_promo", Kind: CommsOptIn, Channel: c, Purpose: Promo, Meaning: "what the notification guide and the preference centre call " + ch + "_promo"},
			CommsField{Name: ch + "_opt_out", AliasOf: ch + "_optout", Kind: CommsOptOut, Channel: c, Purpose: PurposeAll, Meaning: ch + "_optout, spelt apart"},
			CommsField{Name: ch + "_opt_in", AliasOf: ch + "_promo", Kind: CommsOptIn, Channel: c, Purpose: Promo, Meaning: ch + "_optin, spelt apart"},
			CommsField{Name: ch + "_bounced", Kind: CommsBounced, Channel: c, Meaning: bouncedMeaning[c] + "; no decision of the customer's"})
		if c != Push {
			out = append(out, CommsField{Name: ch + "_verification", Kind: CommsVerification, Channel: c, Meaning: "verified: the customer proved that the address is theirs; no consent"})
		}
		if c == Email || c == SMS {
			out = append(out, CommsField{Name: ch + "_consent_updated_at", Kind: CommsDecidedAt, Channel: c, Purpose: Promo, Meaning: "when the customer last decided on " + ch + "_promo; there only when the customer decided, and not somebody at work"})
		}
	}
	return append(out,
		CommsField{Name: "terms_accepted_at", Kind: CommsTerms, Meaning: "when the customer accepted the terms; no consent to messages"},
		CommsField{Name: "terms_accepted_version", Kind: CommsTerms, Meaning: "which terms; no consent to messages"},
		CommsField{Name: "profile_id", Kind: CommsRecord, Meaning: "whose preferences they are"},
		CommsField{Name: "created_at", Kind: CommsRecord, Meaning: "since when the CRM has them"},
		CommsField{Name: "updated_at", Kind: CommsRecord, Meaning: "when anything of them last changed"})
}

// LookupComms finds a field by any of its names, in any case, with spaces or dashes for underscores.
func LookupComms(name string) (CommsField, bool) {
	name = strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(name)))
	name = strings.TrimPrefix(name, "attributes.comms.")
	f, ok := commsByName[strings.TrimPrefix(name, "comms.")]
	return f, ok
}

// Canonical is the name that the field is read as.
func (f CommsField) Canonical() string {
	if f.AliasOf != "" {
		return f.AliasOf
	}
	return f.Name
}

// Status is what a value of the field answers: yes, no or null, as in ProfileObserved.Comms. false when the field
// answers nothing.
func (f CommsField) Status(value string) (ConsentStatus, bool) {
	switch {
	case f.Kind != CommsOptIn && f.Kind != CommsOptOut:
		return "", false
	case value == CommsNull:
		return Unknown, true
	case (value == CommsYes) == (f.Kind == CommsOptIn):
		return OptedIn, true
	}
	return OptedOut, true
}

// Stricter reports whether one value of the field permits less than another.
func (f CommsField) Stricter(a, b string) bool {
	x, answers := f.Status(a)
	y, _ := f.Status(b)
	if !answers {
		return a == CommsYes && b != CommsYes // of a bounce
	}
	return x.restriction() > y.restriction()
}

// The values of the CRM's booleans.
const (
	CommsYes  = "yes"
	CommsNo   = "no"
	CommsNull = "null" // never asked
)
