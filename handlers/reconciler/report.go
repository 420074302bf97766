package reconciler

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

// verdicts are what a platform's reasons say of an address, whoever writes to it. A full mailbox or a blocked sender says
// nothing lasting; a complaint says what the person wants, which is consent.
var verdicts = map[platforms.Reason]domain.AddressStatus{
	platforms.HardBounce: domain.AddressBounced, platforms.Held: domain.AddressBounced, platforms.InvalidAddress: domain.AddressInvalid,
}

var undeliverable = func() (out []string) {
	for reason := range verdicts {
		out = append(out, string(reason))
	}
	return out
}()

// working is the reason of a difference that says that an address works again.
const working = "working"

// recordReports records of which of our addresses the list says that they do not work, or no longer says so.
func (s *Service) recordReports(ctx context.Context, l *link, r *run) error {
	return s.each(ctx, r, "report", func(found []suppressions.Difference) error {
		items := make([]item, 0, len(found))
		for _, d := range found {
			items = append(items, s.report(l.Name, r.id, d.Channel, d.Hash, *d.Profile, *d.Reason, *d.TheirsAt))
		}
		return s.record(ctx, r.actor, r.readUntil, items)
	})
}

// report is a platform's word on an address. profile may be nobody.
func (s *Service) report(platform string, run uuid.UUID, channel domain.Channel, hash string, profile uuid.UUID, reason string, at time.Time) item {
	status, known := verdicts[platforms.Reason(reason)]
	if !known {
		status = domain.AddressWorking
	}
	return item{named(space, "address", platform, " ", channel, " ", hash, " ", profile, " ", reason, " ", at.UnixMicro()), run, domain.AddressReported{
		ProfileID: profile, Channel: channel, Status: status, ReportedAt: at.UTC(), ReportedBy: platform, Method: reason, ContactHashes: []domain.ContactHash{{Channel: channel, Hash: hash}},
	}}
}

// toldOfAddress is what a notification says of an address itself: that it does not work, or, where this platform was the last
// to say so, that it does again.
func (s *Service) toldOfAddress(ctx context.Context, l *link, channel domain.Channel, row suppressions.Row, lifting bool, holders []suppressions.Holder) ([]item, error) {
	if row.Scope != "" || row.Class != string(platforms.DeliverabilityClass) {
		return nil, nil
	}
	hash := suppressions.HashOf(row.Hash)
	var items []item
	if lifting {
		bounced, err := suppressions.Bounced(ctx, s.DB, l.Name, channel, row.Hash)
		for profile := range bounced {
			items = append(items, s.report(l.Name, uuid.Nil, channel, hash, profile, working, row.At))
		}
		return items, err
	}
	if _, known := verdicts[platforms.Reason(row.Reason)]; !known {
		return nil, nil
	}
	for _, h := range holders {
		items = append(items, s.report(l.Name, uuid.Nil, channel, hash, h.Profile, row.Reason, row.At))
	}
	if len(holders) == 0 { // it counts as soon as somebody has the address
		items = append(items, s.report(l.Name, uuid.Nil, channel, hash, uuid.Nil, row.Reason, row.At))
	}
	return items, nil
}
