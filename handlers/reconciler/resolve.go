package reconciler

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

// resolve records what was read, takes their opt-outs in, asks what a person has to decide, and queues what is to be written
// there. Every event has an id that follows from what it is about: whoever repeats this adds nothing.
//
// When the database crashed since, and the pages with what was made of them are gone, everything is read again: what of it was
// recorded already is known then.
func (s *Service) resolve(ctx context.Context, l *link, r *run) error {
	n, err := suppressions.Staged(ctx, s.DB, r.id)
	if err != nil {
		return err
	}
	if n != r.staged {
		return r.rewind(ctx, s.DB, phasePull)
	}
	for _, step := range []func(context.Context, *link, *run) error{s.recordNews, s.recordOptOuts, s.recordReports, s.raise, s.recordConfirmed} {
		if err := step(ctx, l, r); err != nil {
			return err
		}
	}
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if err := suppressions.Queue(ctx, tx, r.id, s.Now().UTC()); err != nil {
			return err
		}
		return s.enter(ctx, tx, r, phasePush)
	})
}

func (r *run) via() string {
	if r.mode == ImportFile {
		return domain.ViaImport
	}
	return domain.ViaList
}

// settleAfter is how many events of a run's news are appended before the projections are brought up to them meanwhile.
const settleAfter = 64

// recordNews records what the list says that it did not say before, many addresses to an event. The next are read, and where
// there are many the projections follow, while the ones before are appended.
func (s *Service) recordNews(ctx context.Context, _ *link, r *run) error {
	group, ctx := errgroup.WithContext(ctx)
	read, settle := make(chan item, 16), make(chan struct{}, 1)
	group.Go(func() error {
		defer close(read)
		return s.readNews(ctx, r, func(it item) error {
			select {
			case read <- it:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	group.Go(func() error {
		for range settle {
			if err := s.Settle(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		defer close(settle)
		var batch []item
		unsettled := 0
		for it := range read {
			if batch = append(batch, it); len(batch) < 16 && len(read) > 0 {
				continue
			}
			if err := s.record(ctx, r.actor, r.readUntil, batch); err != nil {
				return err
			}
			if unsettled += len(batch); unsettled >= settleAfter {
				select {
				case settle <- struct{}{}:
					unsettled = 0
				default: // it has not come to the ones before
				}
			}
			batch = batch[:0]
		}
		return s.record(ctx, r.actor, r.readUntil, batch)
	})
	return group.Wait()
}

// openGroups is how many events are filled side by side: what one holds has channel, scope and kind in common.
const openGroups = 64

// readNews makes events of a run's news, the same ones each time.
func (s *Service) readNews(ctx context.Context, r *run, emit func(item) error) error {
	tx, err := s.DB.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	type group struct {
		channel domain.Channel
		scope   string
		lifted  bool
	}
	open := map[group][]domain.SuppressionEntry{}
	var order []group // those that are open, the longest first
	n := 0
	flush := func(g group) error {
		n++
		scope := scopeOf(g.scope)
		var p domain.Payload = domain.SuppressionSeen{Platform: r.platform, Channel: g.channel, Scope: scope, Run: r.id, Via: r.via(), SeenAt: r.readUntil, Entries: open[g]}
		if g.lifted {
			p = domain.SuppressionLifted{Platform: r.platform, Channel: g.channel, Scope: scope, Run: r.id, Via: r.via(), SeenAt: r.readUntil, Entries: open[g]}
		}
		delete(open, g)
		order = slices.DeleteFunc(order, func(other group) bool { return other == g })
		return emit(item{named(r.id, "news", r.readbacks, n), r.id, p})
	}
	for news, err := range suppressions.NewsOf(ctx, tx, r.id) {
		if err != nil {
			return err
		}
		g := group{news.Channel, news.Scope, news.Lifted}
		if open[g] == nil {
			if len(order) == openGroups {
				if err := flush(order[0]); err != nil {
					return err
				}
			}
			order = append(order, g)
		}
		if open[g] = append(open[g], news.Entry); len(open[g]) == domain.MaxSuppressionEntries {
			if err := flush(g); err != nil {
				return err
			}
		}
	}
	for len(order) > 0 {
		if err := flush(order[0]); err != nil {
			return err
		}
	}
	return nil
}

// recordOptOuts takes opt-outs there in as decisions of the persons concerned, made when they were made there.
func (s *Service) recordOptOuts(ctx context.Context, l *link, r *run) error {
	return s.each(ctx, r, "record", func(found []suppressions.Difference) error {
		items := make([]item, 0, len(found))
		for _, d := range found {
			purposes := l.OptOutMeans
			if d.Purpose != nil && *d.Purpose != "" {
				purposes = []domain.Purpose{domain.Purpose(*d.Purpose)}
			}
			items = append(items, s.optOut(l.Name, r.id, r.via(), d, purposes))
		}
		return s.record(ctx, r.actor, r.readUntil, items)
	})
}

// optOut is a person's opt-out on a platform as a decision here.
func (s *Service) optOut(platform string, run uuid.UUID, via string, d suppressions.Difference, purposes []domain.Purpose) item {
	at := d.TheirsAt.UTC()
	c := domain.ConsentChanged{
		ProfileID: *d.Profile, DecidedAt: at, DecidedBy: "platform", Method: platform + ":" + via,
		ContactHashes: []domain.ContactHash{{Channel: d.Channel, Hash: d.Hash}},
		Evidence:      map[string]string{"platform": platform, "via": via, "reason": *d.Reason, "address_hash": d.Hash},
	}
	if d.Scope != "" {
		c.Evidence["scope"] = d.Scope
	}
	for _, p := range purposes {
		c.Changes = append(c.Changes, domain.ConsentChange{Channel: d.Channel, Purpose: p, Status: domain.OptedOut})
	}
	return item{named(space, "opt-out", platform, " ", d.Channel, " ", d.Scope, " ", d.Hash, " ", *d.Profile, " ", at.UnixMicro()), run, c}
}

// each hands out the run's differences of one action in chunks.
func (s *Service) each(ctx context.Context, r *run, action string, do func([]suppressions.Difference) error) error {
	after := int64(0)
	for {
		found, err := suppressions.Differences(ctx, s.DB, r.id, action, after, 500)
		if err != nil || len(found) == 0 {
			return err
		}
		after = found[len(found)-1].N
		if err := do(found); err != nil {
			return err
		}
	}
}

// raise asks a person about what the facts do not decide, once for each difference, and closes findings whose difference is
// gone.
func (s *Service) raise(ctx context.Context, l *link, r *run) error {
	ask := func(found []suppressions.Difference) error {
		items := make([]item, 0, len(found))
		for _, d := range found {
			items = append(items, s.finding(l, r, d))
		}
		return s.record(ctx, r.actor, r.readUntil, items)
	}
	if err := s.each(ctx, r, "ask", ask); err != nil {
		return err
	}
	lifted, err := suppressions.LiftedAndUnasked(ctx, s.DB, r.id)
	if err != nil {
		return err
	}
	if err := ask(lifted); err != nil {
		return err
	}
	gone, err := suppressions.Gone(ctx, s.DB, r.platform, r.id, r.channels)
	if err != nil {
		return err
	}
	items := make([]item, 0, len(gone))
	for _, f := range gone {
		resolved := domain.FindingResolved{ID: f.ID, Platform: f.Platform, Action: domain.ActGone, Reason: "the two sides agree again"}
		if f.ProfileID != nil {
			resolved.Profile = *f.ProfileID
		}
		items = append(items, item{named(f.ID, "gone"), r.id, resolved})
	}
	return s.record(ctx, r.actor, r.readUntil, items)
}

// finding puts a difference before a person.
func (s *Service) finding(l *link, r *run, d suppressions.Difference) item {
	f := domain.FindingRaised{
		ID: named(r.id, "finding", d.Channel, " ", d.Class, " ", d.Scope, " ", d.Hash), Platform: r.platform, Run: r.id, Channel: d.Channel, Class: d.Class,
		Hash: d.Hash, Scope: d.Scope, Count: d.Count,
	}
	if d.Profile != nil {
		f.ProfileID = *d.Profile
	}
	if d.Decision != nil {
		f.Decision = *d.Decision
	}
	moment := func(t *time.Time) string {
		if t == nil {
			return "at an unknown time"
		}
		return "at " + t.UTC().Format(time.RFC3339)
	}
	reason := "an opt-out"
	if d.Reason != nil && *d.Reason != "" {
		reason = *d.Reason
	}
	title := l.platform.Title
	switch d.Class {
	case domain.ResubscribedHere:
		f.Theirs, f.Ours = reason+" "+moment(d.TheirsAt), "opted in "+moment(d.OursAt)
		f.Explain = fmt.Sprintf("The person agreed again here, and %s still suppresses the address. A later opt-out there cannot be told from the first, so nothing lifts it without somebody who vouches for the agreement.", title)
		f.Action, f.Actions = domain.ActResubscribe, []string{domain.ActResubscribe, domain.ActKeepSuppressed, domain.ActRecordOptOut}
		if l.caps.Challenges[d.Channel] {
			f.Explain += fmt.Sprintf(" %s may ask the person to confirm before it lifts.", title)
		}
	case domain.NotLifted:
		f.Theirs, f.Ours = "still suppressed, since "+moment(d.TheirsAt), "opted in "+moment(d.OursAt)
		f.Explain = fmt.Sprintf("%s will not lift this suppression on our word. Only somebody with access to the account there can, by hand.", title)
		if reason == string(platforms.Challenged) {
			f.Explain = fmt.Sprintf("%s has asked the person to confirm, and suppresses the address until they do. Nothing else lifts it from here; this goes by itself when they have confirmed.", title)
		}
		f.Action, f.Actions = domain.ActKeepSuppressed, []string{domain.ActKeepSuppressed, domain.ActResubscribe, domain.ActRecordOptOut}
	case domain.LiftedThere:
		f.Theirs, f.Ours = "not suppressed any more", "opted out "+moment(d.OursAt)
		f.Explain = fmt.Sprintf("%s no longer suppresses an address whose owner opted out here.", title)
		if d.Action == "push" {
			f.Explain += " It was suppressed there again."
		}
		f.Explain += " If the person agreed there, record that with its evidence."
		f.Action, f.Actions = domain.ActSuppressThere, []string{domain.ActSuppressThere, domain.ActRecordOptIn, domain.ActAcceptDivergent}
	case domain.ScopeDiffers:
		f.Theirs = fmt.Sprintf("%d opt-outs of %s", d.Count, d.Scope)
		f.Explain = fmt.Sprintf("%s has opt-outs of %s alone, and the policy does not say what they mean here. Name a purpose for it under scopes, or ignore.", title, d.Scope)
		f.Action, f.Actions = domain.ActTakeAsGlobal, []string{domain.ActTakeAsGlobal, domain.ActIgnoreScope}
	default:
		f.Theirs, f.Ours = "not suppressed", "opted out "+moment(d.OursAt)
		f.Explain = fmt.Sprintf("%s did not take an opt-out: it refused it, or took it and does not show it. Suppress the address there by hand.", title)
		if d.Scope != "" {
			f.Ours = fmt.Sprintf("%d opted out", d.Count)
			f.Explain = fmt.Sprintf("%s takes no opt-outs on %s from outside: hand the list over by hand.", title, d.Channel)
		}
		f.Action, f.Actions = domain.ActTryAgain, []string{domain.ActTryAgain, domain.ActAcceptDivergent}
	}
	return item{f.ID, r.id, f}
}

// recordConfirmed records which of our changes the list shows.
func (s *Service) recordConfirmed(ctx context.Context, l *link, r *run) error {
	if r.mode == ImportFile {
		return nil // an export is not the list
	}
	for _, channel := range r.channels {
		if !l.lists(channel) {
			continue
		}
		complete := r.mode == Full && r.phase == phaseRecord
		for _, intent := range []string{domain.Suppress, domain.Resubscribe} {
			if err := s.recordShown(ctx, r, channel, intent, complete); err != nil {
				return err
			}
		}
	}
	return nil
}

// recordShown records which changes of one channel and intent the list shows, many to an event.
func (s *Service) recordShown(ctx context.Context, r *run, channel domain.Channel, intent string, complete bool) error {
	var entries []domain.PushEntry
	flush := func() error {
		if len(entries) == 0 {
			return nil
		}
		err := s.record(ctx, r.actor, r.readUntil, []item{{named(r.id, "confirmed", r.readbacks, channel, intent, entries[0].Hash, entries[0].Decision), r.id, domain.SuppressionConfirmed{
			Platform: r.platform, Channel: channel, Intent: intent, Run: r.id, ConfirmedAt: r.readUntil, Entries: entries,
		}}})
		entries = entries[:0]
		return err
	}
	for e, err := range suppressions.Shown(ctx, s.DB, r.id, r.platform, channel, intent, complete) {
		if err != nil {
			return err
		}
		if entries = append(entries, e); len(entries) < domain.MaxSuppressionEntries {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return flush()
}

// scopeOf reads a scope that was written as kind:id.
func scopeOf(name string) domain.SuppressionScope {
	if name == "" {
		return domain.SuppressionScope{Kind: domain.GlobalScope}
	}
	for i := range name {
		if name[i] == ':' {
			return domain.SuppressionScope{Kind: name[:i], ID: name[i+1:]}
		}
	}
	return domain.SuppressionScope{Kind: name}
}

func hashBytes(h string) []byte {
	b, err := hex.DecodeString(h)
	if err != nil {
		return nil
	}
	return b
}
