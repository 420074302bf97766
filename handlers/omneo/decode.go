package omneo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// The topics that are taken.
const (
	ProfileCreated = "profile.created"
	ProfileUpdated = "profile.updated"
	ProfileMerged  = "profile.merged"
	ProfileDeleted = "profile.deleted"
)

// topics are the names that the CRM's pages, its clients and its old versions use.
var topics = map[string]string{
	"profile.created": ProfileCreated, "profile.create": ProfileCreated, "profiles.create": ProfileCreated, "profiles.created": ProfileCreated,
	"profile.updated": ProfileUpdated, "profile.update": ProfileUpdated, "profiles.update": ProfileUpdated, "profiles.updated": ProfileUpdated,
	"profile.merged": ProfileMerged, "profile.merge": ProfileMerged, "profiles.merge": ProfileMerged, "profiles.merged": ProfileMerged,
	"profile.deleted": ProfileDeleted, "profile.delete": ProfileDeleted, "profiles.delete": ProfileDeleted, "profiles.deleted": ProfileDeleted,
	"profile.purged": ProfileDeleted, "profile.depersonalised": ProfileDeleted,
}

// Hook is what a webhook says.
type Hook struct {
	Topic   string // one of the topics above, or as it was given when it is none of them
	Profile Profile
	Merges  []domain.ProfileMerged
	Body    []byte // raw
}

// Profile is a profile as the CRM showed it.
type Profile struct {
	ID         uuid.UUID
	State      string    // domain.ProfileActive or domain.ProfileDeleted
	At         time.Time // when the CRM showed it, by its own clock; zero when it does not say
	Since      time.Time // since when the CRM has it; zero when it does not say
	Shown      bool      // the webhook carries the profile, and not only its id
	Comms      map[string]string
	Times      map[domain.Channel]time.Time
	Contact    domain.Contact
	Cleared    []domain.Channel // shown without an address
	Identities map[string]string
	Unread     []string // fields whose values do not fit, by name
}

// Decode reads a webhook's body. The topic comes from the query parameter event, which the URL that is registered for a
// trigger can carry, from a header, or from the body; a body without one is a profile that was updated.
//
// What does not fit is left out and named in Unread: one odd field must not keep the rest of a profile from being
// recorded. Errors: domain.ErrInvalid when there is no JSON object, or no profile id, in it.
func Decode(h http.Header, event string, body []byte) (Hook, error) {
	hook := Hook{Body: body}
	root, ok := object(body)
	if !ok || !utf8.Valid(body) {
		return hook, domain.Invalid("", "is not a JSON object in UTF-8")
	}
	envelope := root
	for _, name := range []string{"data", "payload", "profile"} {
		if inner, ok := object(root[name]); ok && root["id"] == nil && root["winner_id"] == nil {
			root = inner
		}
	}
	for _, given := range []string{event, h.Get("X-Omneo-Event"), h.Get("X-Omneo-Topic"), text(envelope["event"]), text(envelope["trigger"]), text(envelope["topic"])} {
		if given != "" && hook.Topic == "" {
			hook.Topic = topic(given)
		}
	}
	if hook.Topic == "" {
		hook.Topic = ProfileUpdated
	}
	switch hook.Topic {
	case ProfileCreated, ProfileUpdated, ProfileDeleted, ProfileMerged:
	default:
		return hook, nil
	}
	p := readProfile(root)
	hook.Profile = p
	if hook.Topic == ProfileDeleted {
		hook.Profile.State = domain.ProfileDeleted
	}
	if hook.Topic == ProfileMerged {
		m, err := readMerge(root, p)
		if err != nil {
			return hook, err
		}
		hook.Merges = append(hook.Merges, m)
		hook.Profile.ID = m.WinnerID
		if winner, ok := object(root["winner"]); ok {
			hook.Profile = readProfile(winner)
			hook.Profile.ID = m.WinnerID
		}
		return hook, nil
	}
	if p.ID == uuid.Nil {
		return hook, domain.Invalid("/id", "is missing or no UUID: a profile's webhook carries the id of the profile")
	}
	hook.Merges = append(hook.Merges, mergedFrom(root, p)...)
	return hook, nil
}

func topic(given string) string {
	given = strings.ToLower(strings.TrimSpace(given))
	if known, ok := topics[strings.ReplaceAll(given, "_", ".")]; ok {
		return known
	}
	return given
}

func readProfile(root map[string]json.RawMessage) Profile {
	p := Profile{State: domain.ProfileActive, Comms: map[string]string{}, Times: map[domain.Channel]time.Time{}, Identities: map[string]string{}}
	p.ID, _ = uuid.Parse(text(root["id"]))
	if p.ID == uuid.Nil {
		p.ID, _ = uuid.Parse(text(root["profile_id"]))
	}
	if kind := firstOf(root, "type", "profile_type"); strings.EqualFold(kind, "deleted") || text(root["deleted_at"]) != "" {
		p.State = domain.ProfileDeleted
	}
	attributes, _ := object(root["attributes"])
	comms, shown := object(attributes["comms"])
	if !shown {
		comms, shown = object(root["comms"])
	}
	p.readComms(comms)
	p.readContact(root)
	p.readIdentities(root["identities"])
	p.Shown = shown || root["email"] != nil || root["mobile_phone"] != nil || root["identities"] != nil
	p.At = p.timeOf("updated_at", comms)
	if at := p.timeOf("updated_at", root); at.After(p.At) {
		p.At = at
	}
	for _, name := range []string{"created_at", "joined_at"} {
		for _, from := range []map[string]json.RawMessage{comms, root} {
			if at := p.timeOf(name, from); p.Since.IsZero() {
				p.Since = at
			}
		}
	}
	slices.Sort(p.Unread)
	p.Unread = slices.Compact(p.Unread)
	return p
}

// readComms takes attributes.comms apart by the table of field names. Where two names of one field disagree, the stricter
// value counts.
func (p *Profile) readComms(comms map[string]json.RawMessage) {
	for _, name := range slices.Sorted(maps.Keys(comms)) {
		f, known := domain.LookupComms(name)
		if !known {
			p.Unread = append(p.Unread, "comms."+clip(name))
			continue
		}
		raw := comms[name]
		switch f.Kind {
		case domain.CommsOptIn, domain.CommsOptOut, domain.CommsBounced:
			value, ok := answer(raw)
			if !ok {
				p.Unread = append(p.Unread, "comms."+f.Name)
				continue
			}
			if given, twice := p.Comms[f.Canonical()]; !twice || f.Stricter(value, given) {
				p.Comms[f.Canonical()] = value
			}
		case domain.CommsVerification:
			if value := strings.ToLower(text(raw)); value == "not_sent" || value == "sent" || value == "verified" {
				p.Comms[f.Name] = value
			} else if string(raw) != "null" {
				p.Unread = append(p.Unread, "comms."+f.Name)
			}
		case domain.CommsDecidedAt:
			if at := p.timeOf(name, comms); !at.IsZero() {
				p.Times[f.Channel] = at
			}
		case domain.CommsTerms, domain.CommsRecord:
		}
	}
}

// readContact takes the addresses. A field that is there and empty says that there is none; one that is absent says nothing.
func (p *Profile) readContact(root map[string]json.RawMessage) {
	read := func(into *string, channels []domain.Channel, names ...string) {
		for _, name := range names {
			raw, given := root[name]
			if !given {
				continue
			}
			value := strings.TrimSpace(text(raw))
			if value == "" {
				if into != nil && *into == "" {
					p.Cleared = append(p.Cleared, channels...)
				}
				return
			}
			if _, err := domain.NormalizeAddress(channels[0], value); err != nil {
				p.Unread = append(p.Unread, name)
				continue
			}
			*into = value
			return
		}
	}
	read(&p.Contact.Email, []domain.Channel{domain.Email}, "email")
	read(&p.Contact.Mobile, []domain.Channel{domain.SMS, domain.Phone}, "mobile_phone_e164", "mobile_phone")
}

// identity is one entry of identities as the API shows it.
type identity struct {
	Handle     string     `json:"handle"`
	Identifier any        `json:"identifier"`
	IsActive   *bool      `json:"is_active"`
	MergedFrom *uuid.UUID `json:"merged_from"`
	UpdatedAt  string     `json:"updated_at"`
}

// Bounds of what one webhook may hold.
const (
	identitiesMax = 100
	identifierMax = 256
)

// readIdentities takes both forms: the list of the API, and the map that templates address, whose keys may end in _id.
func (p *Profile) readIdentities(raw json.RawMessage) {
	add := func(handle string, identifier any) {
		value := strings.TrimSpace(fmt.Sprint(identifier))
		if identifier == nil || handle == "" || value == "" {
			return
		}
		if len(handle) > 64 || len(value) > identifierMax || len(p.Identities) >= identitiesMax || strings.ContainsRune(value, 0) || strings.ContainsRune(handle, 0) {
			p.Unread = append(p.Unread, "identities")
			return
		}
		p.Identities[handle] = value
	}
	var list []identity
	if decodeNumbers(raw, &list) == nil {
		for _, i := range list {
			if i.IsActive == nil || *i.IsActive {
				add(i.Handle, i.Identifier)
			}
		}
		return
	}
	var byHandle map[string]any
	if decodeNumbers(raw, &byHandle) == nil {
		for handle, identifier := range byHandle {
			add(strings.TrimSuffix(handle, "_id"), identifier)
		}
		return
	}
	if len(raw) > 0 {
		p.Unread = append(p.Unread, "identities")
	}
}

// mergedFrom finds merges that a profile's identities tell of, in case their own webhook never came.
func mergedFrom(root map[string]json.RawMessage, p Profile) []domain.ProfileMerged {
	var list []identity
	if decodeNumbers(root["identities"], &list) != nil {
		return nil
	}
	var out []domain.ProfileMerged
	for _, i := range list {
		if i.MergedFrom == nil || *i.MergedFrom == uuid.Nil || *i.MergedFrom == p.ID || len(out) >= identitiesMax {
			continue
		}
		at, _ := platforms.ParseTime(i.UpdatedAt, time.UTC)
		out = append(out, domain.ProfileMerged{WinnerID: p.ID, LoserID: *i.MergedFrom, MergedAt: at})
	}
	return out
}

// readMerge finds the two profiles of a merge by the names that the CRM's pages and clients have for them.
func readMerge(root map[string]json.RawMessage, p Profile) (domain.ProfileMerged, error) {
	find := func(names ...string) uuid.UUID {
		for _, name := range names {
			if id, err := uuid.Parse(text(root[name])); err == nil && id != uuid.Nil {
				return id
			}
			if inner, ok := object(root[name]); ok {
				if id, err := uuid.Parse(text(inner["id"])); err == nil && id != uuid.Nil {
					return id
				}
			}
		}
		return uuid.Nil
	}
	m := domain.ProfileMerged{
		WinnerID: find("winner_id", "winner", "winner_profile_id", "destination_profile_id", "destination", "id", "profile_id"),
		LoserID:  find("loser_id", "loser", "loser_profile_id", "source_profile_id", "source", "merged_from", "merged_profile_id"),
		MergedAt: p.timeOf("merged_at", root),
	}
	if m.MergedAt.IsZero() {
		m.MergedAt = p.At
	}
	switch {
	case m.WinnerID == uuid.Nil:
		return m, domain.Invalid("/winner_id", "is missing or no UUID: a merge names the profile that stays")
	case m.LoserID == uuid.Nil:
		return m, domain.Invalid("/loser_id", "is missing or no UUID: a merge names the profile that is gone")
	case m.LoserID == m.WinnerID:
		return m, domain.Invalid("/loser_id", "is the winner itself")
	}
	return m, nil
}

// timeOf reads a time as the CRM writes it: ISO 8601, or date and time without an offset, which is UTC.
func (p *Profile) timeOf(name string, from map[string]json.RawMessage) time.Time {
	value := text(from[name])
	if value == "" {
		return time.Time{}
	}
	at, _ := platforms.ParseTime(value, time.UTC)
	if at.Year() < 1900 || at.Year() > 9999 {
		p.Unread = append(p.Unread, name)
		return time.Time{}
	}
	return at.Truncate(time.Microsecond)
}

// answer reads the CRM's booleans in the forms that they arrive in; templates make text of them.
func answer(raw json.RawMessage) (string, bool) {
	switch strings.ToLower(strings.Trim(strings.TrimSpace(string(raw)), `"`)) {
	case "true", "1", "yes":
		return domain.CommsYes, true
	case "false", "0", "no":
		return domain.CommsNo, true
	case "null", "":
		return domain.CommsNull, true
	}
	return "", false
}

func object(raw json.RawMessage) (map[string]json.RawMessage, bool) {
	var m map[string]json.RawMessage
	if t := bytes.TrimSpace(raw); len(t) == 0 || t[0] != '{' || json.Unmarshal(raw, &m) != nil {
		return nil, false
	}
	return m, true
}

func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

func firstOf(root map[string]json.RawMessage, names ...string) string {
	for _, name := range names {
		if s := text(root[name]); s != "" {
			return s
		}
	}
	return ""
}

// decodeNumbers unmarshals without turning long numeric identifiers into floats.
func decodeNumbers(raw json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return d.Decode(into)
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
