package intake

import (
	"errors"
	"slices"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// complete checks what a payload says about the world outside its fields, and puts the hashes of its addresses beside
// them. It gives the time at which the event occurred: that of the decision, the report or the merge, where there is one,
// because that is what they are ordered by.
func (s *Service) complete(p domain.Payload, occurred time.Time) (domain.Payload, time.Time, error) {
	var err error
	switch p := p.(type) {
	case domain.ConsentChanged:
		if err := s.happened("/decided_at", p.DecidedAt); err != nil {
			return p, occurred, err
		}
		if p.ContactHashes, err = s.hashes(p.ContactHashes, p.Contact, func(c domain.Channel) bool {
			return c != domain.Phone || slices.ContainsFunc(p.Changes, func(ch domain.ConsentChange) bool { return ch.Channel == domain.Phone })
		}); err != nil {
			return p, occurred, err
		}
		return p, p.DecidedAt, nil
	case domain.AddressReported:
		if err := s.happened("/reported_at", p.ReportedAt); err != nil {
			return p, occurred, err
		}
		if p.ContactHashes, err = s.hashes(p.ContactHashes, p.Contact, func(c domain.Channel) bool { return c == p.Channel }); err != nil {
			return p, occurred, err
		}
		if p.Contact != nil && p.ContactHashes == nil {
			return p, occurred, domain.Invalid("/contact", "holds no address on the channel that is reported on")
		}
		return p, p.ReportedAt, nil
	case domain.ProfileMerged:
		return p, p.MergedAt, s.happened("/merged_at", p.MergedAt)
	}
	return p, occurred, nil
}

// happened refuses a time that cannot be that of something that happened.
func (s *Service) happened(pointer string, at time.Time) error {
	switch {
	case at.After(s.Clock().Add(AheadMax)):
		return domain.Invalid(pointer, "lies in the future; give the time at which it happened, with its offset from UTC")
	case at.Before(earliest):
		return domain.Invalid(pointer, "lies before 1900; give the time at which it happened")
	}
	return nil
}

// hashes are the keyed hashes of the addresses that a producer gives, on the channels asked for.
func (s *Service) hashes(given []domain.ContactHash, contact *domain.Contact, wanted func(domain.Channel) bool) ([]domain.ContactHash, error) {
	if given != nil {
		return nil, domain.Invalid("/contact_hashes", "is filled in by the ledger; give the addresses in contact")
	}
	if contact == nil {
		return nil, nil
	}
	var out []domain.ContactHash
	for _, a := range []struct {
		field, address string
		channel        domain.Channel
	}{
		{"email", contact.Email, domain.Email}, {"mobile", contact.Mobile, domain.SMS}, {"mobile", contact.Mobile, domain.Phone},
	} {
		if a.address == "" || !wanted(a.channel) {
			continue
		}
		h, err := s.ContactHash(a.channel, a.address)
		if err != nil {
			var invalid *domain.InvalidError
			if errors.As(err, &invalid) {
				err = domain.Invalid("/contact/"+a.field, "%s", invalid.Message)
			}
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

// ContactHash is how an address on a channel appears in the ledger.
func (s *Service) ContactHash(c domain.Channel, address string) (domain.ContactHash, error) {
	return s.Vault.AddressHash(c, address)
}
