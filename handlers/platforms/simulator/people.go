package simulator

import (
	"fmt"
	"time"
)

// Status is what a platform says of a person on one channel, in its own word.
type Status struct {
	Word string    `json:"word,omitempty"` // empty: nothing on record
	At   time.Time `json:"at,omitzero"`
}

// Person is one contact of an account.
type Person struct {
	ID      int       `json:"id"`
	Key     string    `json:"key"` // the platform's key for it: a subscriber key, an external id
	Email   string    `json:"email,omitempty"`
	Phone   string    `json:"phone,omitempty"` // E.164
	Mail    Status    `json:"mail"`
	Text    Status    `json:"text"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// On is the person's status on a channel.
func (p *Person) On(channel string) *Status {
	if channel == "sms" {
		return &p.Text
	}
	return &p.Mail
}

// Address is the person's address on a channel.
func (p *Person) Address(channel string) string {
	if channel == "sms" {
		return p.Phone
	}
	return p.Email
}

// People are an account's contacts, in the order they were made. It is not safe for concurrent use; its simulator's
// mutex guards it.
type People struct {
	All       []*Person
	byAddress map[string]*Person
}

// Find is the person with an address on a channel ("email", "sms") or a key ("key"); nil when there is none.
func (p *People) Find(channel, address string) *Person { return p.byAddress[channel+":"+address] }

// Make is the person with an address on a channel, made now when there is none.
func (p *People) Make(channel, address string, now time.Time) *Person {
	if found := p.Find(channel, address); found != nil {
		return found
	}
	person := &Person{ID: len(p.All) + 1, Created: now, Updated: now}
	person.Key = fmt.Sprintf("cust-%d", person.ID)
	switch channel {
	case "email":
		person.Email = address
	case "sms":
		person.Phone = address
	case "key":
		person.Key = address
	}
	p.All = append(p.All, person)
	p.Know(person)
	return person
}

// Know makes a person findable by all that is known of them now.
func (p *People) Know(person *Person) {
	if p.byAddress == nil {
		p.byAddress = map[string]*Person{}
	}
	for channel, address := range map[string]string{"email": person.Email, "sms": person.Phone, "key": person.Key} {
		if address != "" {
			p.byAddress[channel+":"+address] = person
		}
	}
}

// Set gives a person a status on a channel.
func (p *People) Set(person *Person, channel, word string, at time.Time) {
	*person.On(channel) = Status{Word: word, At: at}
	person.Updated = at
}
