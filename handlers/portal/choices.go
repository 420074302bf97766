package portal

import (
	"context"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
)

// choice is one thing that a person may answer for.
type choice struct {
	Channel domain.Channel
	Purpose domain.Purpose
}

// key is the choice's name in the form.
func (c choice) key() string { return string(c.Channel) + "/" + string(c.Purpose) }

// state is what is known of a person's answers.
type state map[choice]consent.Entry

// on reports whether something is sent as things stand: what was agreed to; and of what was never asked, what serves
// something that the person has, but not marketing. The channel as a whole is on unless it was refused.
func (s state) on(c choice) bool {
	answer, asked := s[c]
	switch {
	case asked && answer.Status == domain.OptedOut:
		return false
	case asked && answer.Status == domain.OptedIn:
		return true
	}
	return c.Purpose == domain.PurposeAll || !c.Purpose.Promotional()
}

// answers reads a person's answers as they hold now.
func (p *portal) answers(ctx context.Context, profile uuid.UUID) (state, error) {
	dossier, err := consent.Read(ctx, p.DB, profile, consent.AsOf{})
	if err != nil {
		return nil, err
	}
	s := state{}
	for _, e := range dossier.Held() {
		s[choice{e.Channel, e.Purpose}] = e
	}
	return s, nil
}

// offered lists what the page asks about, channel by channel: what the theme says or, without that, what the ledger's
// targets ask consent for; and whatever else the person has answered before, so that every answer can be changed.
func (p *portal) offered(ctx context.Context, s state) ([]choice, error) {
	wanted := map[choice]bool{}
	for channel, purposes := range p.Theme.Offer {
		for _, purpose := range purposes {
			wanted[choice{channel, purpose}] = true
		}
	}
	if len(p.Theme.Offer) == 0 {
		asked, err := targets.Asked(ctx, p.DB)
		if err != nil {
			return nil, err
		}
		for _, rule := range asked {
			wanted[choice{rule.Channel, rule.Purpose}] = true
		}
	}
	if len(wanted) == 0 { // nothing is sent yet
		wanted[choice{domain.Email, domain.Promo}] = true
	}
	for c := range s {
		if c.Purpose != domain.PurposeAll {
			wanted[c] = true
		} else if !wanted[choice{c.Channel, domain.Promo}] {
			wanted[choice{c.Channel, domain.Promo}] = true // a channel that was refused as a whole is shown
		}
	}
	var all []choice
	for _, channel := range domain.Channels {
		for _, purpose := range domain.Purposes[1:] {
			if c := (choice{channel, purpose}); wanted[c] {
				all = append(all, c)
			}
		}
	}
	return all, nil
}
