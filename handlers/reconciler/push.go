package reconciler

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

// Bounds of pushing.
const (
	claimLease  = 30 * time.Second // how long a change is kept from others while it is written
	pushTries   = 8                // how often a change is tried before a person is asked
	jobPatience = 30 * time.Minute // how long a platform's job may take
)

// The outcomes of a push that a platform has no part in.
const (
	statusExcluded  = "excluded"   // the policy leaves the address out
	statusNoAddress = "no_address" // we hold the address's hash alone
)

// pushAll writes what a run queued, until nothing of it waits or it has been tried often enough.
func (s *Service) pushAll(ctx context.Context, l *link, r *run) error {
	for {
		worked, err := s.drain(ctx, l, r.id)
		if err != nil {
			return err
		}
		n, next, err := suppressions.Waiting(ctx, s.DB, r.platform, r.id)
		if err != nil {
			return err
		}
		if n == 0 {
			return s.enter(ctx, s.DB, r, phaseConfirm)
		}
		if worked {
			continue
		}
		if err := s.Sleep(ctx, min(max(next.Sub(s.Now()), time.Millisecond), time.Minute)); err != nil {
			return err
		}
	}
}

// Push writes what waits for a platform and is due. Changes are written at least once: whoever is killed leaves them to the
// next, and suppressing twice is the same as once.
func (s *Service) Push(ctx context.Context, platform string) error {
	l, err := s.open(ctx, platform)
	if err != nil {
		return err
	}
	for {
		worked, err := s.drain(ctx, l, uuid.Nil)
		if err != nil || !worked {
			return err
		}
	}
}

// drain writes one batch of what is due, of a run or of whatever waits.
func (s *Service) drain(ctx context.Context, l *link, ofRun uuid.UUID) (worked bool, err error) {
	claimed, err := suppressions.Claim(ctx, s.DB, l.Name, ofRun, s.Now().UTC(), claimLease, max(1, min(l.caps.WriteMax, domain.MaxSuppressionEntries)))
	if err != nil || len(claimed) == 0 {
		return false, err
	}
	channel, intent := claimed[0].Channel, claimed[0].Intent
	b := &batch{id: uuid.New(), channel: channel, intent: intent, run: ofRun}
	if err := s.prepare(ctx, l, b, claimed); err != nil {
		return true, err
	}
	if err := s.order(ctx, l, b); err != nil {
		return true, err
	}
	if len(b.changes) > 0 {
		s.write(ctx, l, b)
		if ctx.Err() != nil {
			return true, ctx.Err() // what became of it is not known: it is tried again
		}
	}
	return true, s.settle(ctx, l, b)
}

// batch is what goes to a platform in one call.
type batch struct {
	id      uuid.UUID
	channel domain.Channel
	intent  string
	run     uuid.UUID

	changes []platforms.Change
	sent    []pushed // parallel to changes
	never   []pushed // that do not reach the platform
	dropped []suppressions.Outgoing
	job     platforms.JobID
	ordered time.Time
	retryAt time.Time
	err     error
}

// pushed is one change and what became of it.
type pushed struct {
	suppressions.Outgoing
	status string
	native string
}

// prepare looks at consent once more, finds the addresses, and leaves out what is not to be written.
func (s *Service) prepare(ctx context.Context, l *link, b *batch, claimed []suppressions.Outgoing) error {
	profiles := make([]uuid.UUID, 0, len(claimed))
	hashes := make([][]byte, 0, len(claimed))
	for _, o := range claimed {
		profiles, hashes = append(profiles, o.Profile), append(hashes, o.Hash)
	}
	known, err := consent.Look(ctx, s.DB, profiles)
	if err != nil {
		return err
	}
	addresses, evidence, err := s.addresses(ctx, b, hashes, claimed)
	if err != nil {
		return err
	}
	for _, o := range claimed {
		status, decision, decidedAt := standingOf(known.View(o.Profile, b.channel), l.PushedFor)
		holds := status == domain.OptedOut
		if b.intent == domain.Resubscribe {
			holds = status == domain.OptedIn
		}
		if !holds {
			b.dropped = append(b.dropped, o) // the person has decided otherwise since: nothing is written
			continue
		}
		if o.Finding == uuid.Nil && decision > 0 {
			o.DecidedAt = decidedAt
		}
		address := addresses[suppressions.HashOf(o.Hash)]
		if address == "" {
			address = o.Address
		}
		change := platforms.Change{
			Key: b.id.String() + "-" + strconv.Itoa(len(b.changes)), Addr: platforms.Address{Channel: b.channel, Value: address}, Reason: platforms.Unsubscribed,
			Scope: l.scope(b.channel), At: o.DecidedAt,
		}
		if b.intent == domain.Resubscribe {
			change.Reason, change.Evidence = platforms.Resubscribed, evidence[suppressions.HashOf(o.Hash)]
		}
		switch {
		case address == "":
			b.never = append(b.never, pushed{o, statusNoAddress, "the ledger holds this address's hash alone"})
		case l.Excluded(address):
			b.never = append(b.never, pushed{o, statusExcluded, "left out by the policy"})
		case b.intent == domain.Resubscribe && (len(change.Evidence) == 0 || !l.lifts(b.channel) && o.Finding == uuid.Nil):
			b.dropped = append(b.dropped, o) // without evidence and a switch nothing is lifted; the next run asks a person
		default:
			b.changes, b.sent = append(b.changes, change), append(b.sent, pushed{Outgoing: o, status: string(platforms.Failed), native: "not reached"})
		}
	}
	return nil
}

// standingOf is a person's standing on a channel: out when one of the purposes is refused, in when one is agreed to and none
// refused.
func standingOf(view domain.ConsentView, purposes []domain.Purpose) (status domain.ConsentStatus, position int64, at time.Time) {
	status = domain.Unknown
	for _, p := range purposes {
		a, ok := view.Purposes[p]
		if !ok || a.Status == domain.Unknown || status == domain.OptedOut && a.Status == domain.OptedIn {
			continue
		}
		if a.Status != status || a.Position > position {
			status, position, at = a.Status, a.Position, a.DecidedAt
		}
	}
	return status, position, at
}

// addresses opens the sealed addresses behind hashes, and for a resubscribe the evidence of the decision that it rests on.
func (s *Service) addresses(ctx context.Context, b *batch, hashes [][]byte, claimed []suppressions.Outgoing) (byHash map[string]string, evidence map[string]map[string]string, err error) {
	sealed, err := suppressions.Sealed(ctx, s.DB, b.channel, hashes)
	if err != nil {
		return nil, nil, err
	}
	byHash, evidence = map[string]string{}, map[string]map[string]string{}
	for hash, recorded := range sealed {
		opened, err := s.Vault.OpenEvents(ctx, recorded)
		if err != nil {
			return nil, nil, err
		}
		for _, o := range opened {
			var contact *domain.Contact
			switch p := o.Payload.(type) {
			case domain.ConsentChanged:
				contact = p.Contact
			case domain.ProfileObserved:
				contact = p.Contact
			}
			if contact == nil {
				continue
			}
			for _, text := range []string{contact.Email, contact.Mobile} {
				if value, err := domain.NormalizeAddress(b.channel, text); err == nil && suppressions.HashOf(s.Vault.ContactHash(string(b.channel), value)) == hash {
					byHash[hash] = value
				}
			}
		}
	}
	if b.intent != domain.Resubscribe {
		return byHash, nil, nil
	}
	for _, o := range claimed {
		hash := suppressions.HashOf(o.Hash)
		if evidence[hash], err = s.evidence(ctx, o); err != nil {
			return nil, nil, err
		}
	}
	return byHash, evidence, nil
}

// settle records what became of a batch and takes it out of the queue, in one transaction.
func (s *Service) settle(ctx context.Context, l *link, b *batch) error {
	now := s.Now().UTC().Truncate(time.Microsecond)
	all := append(slices.Clone(b.sent), b.never...)
	var done, again []suppressions.Outgoing
	for i, p := range all {
		if p.status == string(platforms.Failed) && p.Attempt < pushTries {
			again = append(again, p.Outgoing)
			continue
		}
		if p.status == string(platforms.Failed) {
			all[i].status = string(platforms.Declined) // often enough: a person is asked
		}
		done = append(done, p.Outgoing)
	}
	retryAt := b.retryAt
	if retryAt.IsZero() && len(again) > 0 {
		retryAt = now.Add(min(5*time.Second<<min(again[0].Attempt-1, 8), 10*time.Minute))
	}
	var lifted []domain.SuppressionEntry
	for _, p := range all {
		s.metrics.pushed.WithLabelValues(l.Name, b.intent, p.status).Inc()
		if b.intent == domain.Resubscribe && taken(p.status) {
			lifted = append(lifted, domain.SuppressionEntry{
				Hash: suppressions.HashOf(p.Hash), Reason: string(platforms.Resubscribed), Class: string(platforms.ConsentClass), At: now, Precision: string(platforms.Exact), ProfileID: p.Profile, Echo: true,
			})
		}
	}
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := suppressions.Settle(ctx, tx, l.Name, append(done, b.dropped...)); err != nil {
			return err
		}
		if err := suppressions.Postpone(ctx, tx, l.Name, again, retryAt); err != nil {
			return err
		}
		if len(all) == 0 {
			return nil
		}
		payloads := []domain.Payload{domain.SuppressionPushed{
			Platform: l.Name, Channel: b.channel, Intent: b.intent, Run: b.run, Batch: b.id, Job: string(b.job), PushedAt: now, Entries: b.entries(all),
		}}
		if len(lifted) > 0 { // until the list is read whole again, nothing else would show that it no longer holds them
			payloads = append(payloads, domain.SuppressionLifted{
				Platform: l.Name, Channel: b.channel, Scope: domain.SuppressionScope{Kind: domain.GlobalScope}, Run: b.run, Via: domain.ViaList, SeenAt: now, Entries: lifted,
			})
		}
		for _, p := range payloads {
			if err := s.appendTx(ctx, tx, Source, named(b.id, domain.TypeOf(p)), p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if b.err != nil {
		s.Log.WarnContext(ctx, "writing to a platform failed; it is tried again", slog.String("platform", l.Name), slog.Int("changes", len(again)), slog.Time("at", retryAt), slog.Any("error", b.err))
	}
	return nil
}

// taken reports whether a platform took a change, as far as it said.
func taken(status string) bool {
	switch platforms.Status(status) {
	case platforms.Applied, platforms.Unchanged, platforms.Acknowledged, platforms.InProgress:
		return true
	case platforms.Challenged, platforms.NotFound, platforms.Declined, platforms.Failed:
	}
	return false
}

func (b *batch) entries(all []pushed) []domain.PushEntry {
	out := make([]domain.PushEntry, len(all))
	for i, p := range all {
		out[i] = domain.PushEntry{
			Hash: suppressions.HashOf(p.Hash), ProfileID: p.Profile, Decision: p.Decision, DecidedAt: p.DecidedAt, Status: p.status, Native: masked(p.native), Attempt: p.Attempt, OrderedAt: b.ordered, Finding: p.Finding,
		}
	}
	return out
}

// order records what is about to be written, before it is.
func (s *Service) order(ctx context.Context, l *link, b *batch) error {
	if len(b.changes) == 0 {
		return nil
	}
	b.ordered = s.Now().UTC()
	ordered := b.entries(b.sent)
	for i := range ordered {
		ordered[i].Status, ordered[i].Native, ordered[i].OrderedAt = "", "", time.Time{}
	}
	return s.record(ctx, Source, b.ordered, []item{{named(b.id, "ordered"), b.run, domain.SuppressionOrdered{
		Platform: l.Name, Channel: b.channel, Intent: b.intent, Run: b.run, Batch: b.id, Entries: ordered,
	}}})
}

// write makes the call and puts its outcomes into the batch. An error of the call leaves every change failed, to be tried
// again.
func (s *Service) write(ctx context.Context, l *link, b *batch) {
	var receipt platforms.Receipt
	var err error
	if b.intent == domain.Resubscribe {
		lifting, ok := l.client.(platforms.Resubscriber)
		if !ok {
			b.refuse(fmt.Sprintf("%s does not lift suppressions on request", l.platform.Title))
			return
		}
		receipt, err = lifting.Resubscribe(ctx, b.changes)
	} else {
		sink, ok := l.client.(platforms.Sink)
		if !ok || !l.writes(b.channel) {
			b.refuse(fmt.Sprintf("%s takes no opt-outs on %s", l.platform.Title, b.channel))
			return
		}
		receipt, err = sink.Suppress(ctx, b.changes)
	}
	if err == nil && receipt.Job != "" {
		b.job = receipt.Job
		err = s.await(ctx, l, b, &receipt)
	}
	if err != nil {
		b.err = err
		if native, own := platforms.Own(err); own {
			b.refuse(native)
			return
		}
		wait, again := s.retry(err, b.sent[0].Attempt)
		if !again {
			wait = 5 * time.Minute // a key that was refused, or the like: somebody has to do something first
		}
		b.retryAt = s.Now().UTC().Add(wait)
		for i := range b.sent {
			b.sent[i].native = err.Error()
		}
		return
	}
	for i := range b.sent {
		if i < len(receipt.Outcomes) {
			b.sent[i].status, b.sent[i].native = string(receipt.Outcomes[i].Status), receipt.Outcomes[i].Native
		}
	}
}

func (b *batch) refuse(native string) {
	for i := range b.sent {
		b.sent[i].status, b.sent[i].native = string(platforms.Declined), native
	}
}

// await asks after a platform's job until it is done.
func (s *Service) await(ctx context.Context, l *link, b *batch, receipt *platforms.Receipt) error {
	poller, ok := l.client.(platforms.JobPoller)
	if !ok {
		return nil
	}
	wait, failures := time.Second, 0
	for deadline := s.Now().Add(jobPatience); s.Now().Before(deadline); {
		report, err := poller.Job(ctx, receipt.Job)
		if err != nil {
			pause, again := s.retry(err, failures)
			if failures++; !again || failures > patience {
				return err
			}
			if err := s.Sleep(ctx, pause); err != nil {
				return err
			}
			continue
		}
		if report.Done {
			for i := range receipt.Outcomes {
				o := &receipt.Outcomes[i]
				if o.Status != platforms.InProgress {
					continue
				}
				o.Status = platforms.Acknowledged
				if words, rejected := report.Rejected[b.changes[i].Addr.Value]; rejected || report.Failed {
					o.Status, o.Native = platforms.Declined, words+" "+report.Native
				}
			}
			return nil
		}
		if err := s.Sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, 30*time.Second)
	}
	return nil // still at it: reading back will tell
}

// confirm reads back what was written, once the platform has had its time, and asks a person about what it did not take.
func (s *Service) confirm(ctx context.Context, l *link, r *run) error {
	if err := s.Settle(ctx); err != nil {
		return err
	}
	n, last, err := suppressions.Unread(ctx, s.DB, r.platform, l.readable(), r.startedAt)
	if err != nil {
		return err
	}
	const readbacks = 3
	if n == 0 || r.readbacks >= readbacks || r.mode == ImportFile && len(l.readable()) == 0 {
		if err := s.refused(ctx, l, r); err != nil {
			return err
		}
		return s.enter(ctx, s.DB, r, phaseFinish)
	}
	if r.waitUntil.Before(last.Add(l.caps.VerifyAfter)) {
		r.waitUntil = last.Add(l.caps.VerifyAfter)
	} else {
		r.waitUntil = s.Now().Add(l.verify())
	}
	if wait := r.waitUntil.Sub(s.Now()); wait > 0 {
		if err := s.enter(ctx, s.DB, r, phaseConfirm); err != nil {
			return err
		}
		if err := s.Sleep(ctx, wait); err != nil {
			return err
		}
	}
	r.readbacks++ // with the rewinding, in one step: who is killed between the two would read nothing back, and count it
	// From the run's start, whenever the last attempt was: a platform keeps the time of the first, which somebody who was killed
	// may have made.
	r.since = r.startedAt.Add(-time.Minute)
	return r.rewind(ctx, s.DB, phaseReadback)
}

// readBack reads what changed on the list since the first write, and records what of it was ours.
func (s *Service) readBack(ctx context.Context, l *link, r *run) error {
	before := r.read
	if err := s.pull(ctx, l, r); err != nil {
		return err
	}
	r.read = before
	r.readUntil = s.Now().UTC().Truncate(time.Microsecond)
	if err := s.Settle(ctx); err != nil {
		return err
	}
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		for _, channel := range r.channels {
			if _, err := suppressions.Fold(ctx, tx, s.comparison(l, r, channel)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := errors.Join(s.recordNews(ctx, l, r), s.recordConfirmed(ctx, l, r)); err != nil {
		return err
	}
	return s.enter(ctx, s.DB, r, phaseConfirm)
}

// refused asks a person about what the platform did not take.
func (s *Service) refused(ctx context.Context, l *link, r *run) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error { return suppressions.NotTaken(ctx, tx, r.id, r.platform) })
	if err != nil {
		return err
	}
	return s.each(ctx, r, "ask", func(found []suppressions.Difference) error {
		found = slices.DeleteFunc(found, func(d suppressions.Difference) bool { return d.Class != domain.NotTaken || d.Scope != "" })
		items := make([]item, 0, len(found))
		for _, d := range found {
			items = append(items, s.finding(l, r, d))
		}
		return s.record(ctx, r.actor, r.readUntil, items)
	})
}
