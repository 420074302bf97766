package domain

import "github.com/google/uuid"

// Overtaking is a payload that overtakes deliveries which were decided on before it and have not left: each has to be
// decided on anew. Whoever sends on another's decision must hear of it first.
type Overtaking interface {
	Payload
	// Overtakes says which deliveries.
	Overtakes() Overtaken
}

// Overtaken are deliveries: the one, all of a profile or of whoever has an address, to a target, with a secret in them, or all
// that consent is asked for.
type Overtaken struct {
	Delivery  uuid.UUID
	Profiles  []uuid.UUID
	Addresses []ContactHash
	Everybody bool
	Target    string
	Secret    string
}

// Overtakes reports whether events of the type overtake deliveries.
func (d *Declaration) Overtakes() bool {
	_, ok := d.Example.(Overtaking)
	return ok
}

func of(profiles ...uuid.UUID) Overtaken { return Overtaken{Profiles: profiles} }

// Overtakes says that the person has decided anew.
func (c ConsentChanged) Overtakes() Overtaken { return of(c.ProfileID) }

// Overtakes says that another answer may be enough now for whoever is asked.
func (ConsentPolicyChanged) Overtakes() Overtaken { return Overtaken{Everybody: true} }

// Overtakes says that the person is no more, and that what they refused holds for whoever has their addresses.
func (p ProfileErased) Overtakes() Overtaken {
	return Overtaken{Profiles: []uuid.UUID{p.ProfileID}, Addresses: p.ContactHashes}
}

// Overtakes says that consent is asked of both from now on, whichever of them a delivery is for.
func (m ProfileMerged) Overtakes() Overtaken { return of(m.WinnerID, m.LoserID) }

// Overtakes says that the CRM may have answered otherwise, or that the profile is gone.
func (p ProfileObserved) Overtakes() Overtaken { return of(p.ProfileID) }

// Overtakes says that the address may not work, whoever has it.
func (a AddressReported) Overtakes() Overtaken {
	return Overtaken{Profiles: []uuid.UUID{a.ProfileID}, Addresses: a.ContactHashes}
}

// Overtakes says that the platform has these people on its list.
func (s SuppressionSeen) Overtakes() Overtaken {
	var o Overtaken
	for _, e := range s.Entries {
		if id := entryProfile(e); id != uuid.Nil {
			o.Profiles = append(o.Profiles, id)
		}
	}
	return o
}

// Overtakes says that somebody stopped the delivery.
func (d DeliveryCancelled) Overtakes() Overtaken { return Overtaken{Delivery: d.DeliveryID} }

// Overtakes says that requests are made in another way now.
func (t TargetChanged) Overtakes() Overtaken { return Overtaken{Target: t.Handle} }

// Overtakes says that nothing goes there.
func (t TargetDisabled) Overtakes() Overtaken { return Overtaken{Target: t.Handle} }

// Overtakes says that nothing goes there any more.
func (t TargetDeleted) Overtakes() Overtaken { return Overtaken{Target: t.Handle} }

// Overtakes says that it is left alone for now.
func (t TargetPaused) Overtakes() Overtaken { return Overtaken{Target: t.Handle} }

// Overtakes says that requests carry another value now.
func (s SecretChanged) Overtakes() Overtaken { return Overtaken{Secret: s.Name} }

// Overtakes says that the value before is valid no more.
func (s SecretRetired) Overtakes() Overtaken { return Overtaken{Secret: s.Name} }

// Overtakes says that what names it is not sent.
func (s SecretDeleted) Overtakes() Overtaken { return Overtaken{Secret: s.Name} }
