package catalogue

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Catalogue changes targets.
type Catalogue struct {
	DB     *sql.DB // with the projections on its search path
	Ledger *schema.Ledger
	Now    func() time.Time
}

// Author is who changes something, and by which way.
type Author struct {
	Name   string // the actor in the ledger
	Source string // "/api", "/cli"
}

// ErrSamePerson is a proposal approved by who made it.
var ErrSamePerson = fmt.Errorf("%w: who proposed a change cannot approve it", domain.ErrInvalid)

// ErrStale is a proposal for a target that has changed since, or one that was decided on already.
var ErrStale = errors.New("the proposal cannot be approved any more")

// Exists reports whether a target is there: enabled or disabled.
func Exists(t targets.Target) bool { return t.Revision > 0 && t.State != "deleted" }

// History gives what a target is now and every version of it, the newest first, from its stream in the ledger: a change that
// was just made is in it, which a projection would show some milliseconds later. The zero target means there never was one.
func (c Catalogue) History(ctx context.Context, handle string) (now targets.Target, versions []targets.Target, err error) {
	for r, err := range schema.Events(ctx, c.DB, schema.Filter{Stream: domain.TargetStream(handle)}) {
		if err != nil {
			return targets.Target{}, nil, err
		}
		payload, err := domain.Decode(r.Type, r.Data, nil)
		if err != nil {
			return targets.Target{}, nil, fmt.Errorf("event %d: %w", r.Position, err)
		}
		now.Revision, now.State, now.ChangedAt, now.ChangedBy, now.Position = r.Version, r.State, r.RecordedAt, r.Actor, r.Position
		switch p := payload.(type) {
		case domain.TargetChanged:
			now.Target, now.Version, now.Reason, now.Restores, now.Approved = p.Target, r.Version, p.Reason, p.Restores, p.Approved
			versions = append(versions, now)
		case domain.TargetDisabled:
			now.Reason = p.Reason
		case domain.TargetEnabled:
			now.Reason = p.Reason
		case domain.TargetDeleted:
			now.Reason = p.Reason
		}
	}
	slices.Reverse(versions)
	return now, versions, nil
}

// Current is the target of a handle, or schema.ErrNotFound when there is none any more.
func (c Catalogue) Current(ctx context.Context, handle string) (targets.Target, error) {
	now, _, err := c.History(ctx, handle)
	if err == nil && !Exists(now) {
		err = fmt.Errorf("target %q: %w", handle, schema.ErrNotFound)
	}
	return now, err
}

// Version gives one version of a target; 0 is the current one. The error is schema.ErrNotFound.
func (c Catalogue) Version(ctx context.Context, handle string, version int64) (targets.Target, error) {
	if version == 0 {
		return c.Current(ctx, handle)
	}
	_, versions, err := c.History(ctx, handle)
	if err != nil {
		return targets.Target{}, err
	}
	for _, v := range versions {
		if v.Version == version {
			return v, nil
		}
	}
	return targets.Target{}, fmt.Errorf("target %q version %d: %w", handle, version, schema.ErrNotFound)
}

// Result is what came of a change.
type Result struct {
	Before, After targets.Target
	Proposal      int64 // its number, when the change was proposed and not made; else 0
	Unchanged     bool  // it was so already; nothing was recorded
}

// Change is load, decide, record: decide says what the target as it stands becomes, nil when nothing is to be recorded. A
// change that takes two people is proposed instead. Unless strict, it is decided again when somebody else's came between;
// else that is schema.ErrConflict.
func (c Catalogue) Change(ctx context.Context, by Author, handle string, strict bool, decide func(now targets.Target) (domain.Payload, error)) (r Result, err error) {
	const tries = 5
	for try := 1; ; try++ {
		if r.Before, _, err = c.History(ctx, handle); err != nil {
			return r, err
		}
		payload, err := decide(r.Before)
		if err != nil {
			return r, err
		}
		if payload == nil {
			r.After, r.Unchanged = r.Before, true
			return r, nil
		}
		if changed, ok := payload.(domain.TargetChanged); ok && domain.NeedsApproval(r.Before.Target, changed.Target) {
			r.After = r.Before
			r.Proposal, err = c.propose(ctx, by, r.Before, changed)
			return r, err
		}
		_, err = c.append(ctx, entry{by, payload, &r.Before.Revision})
		if errors.Is(err, schema.ErrConflict) && !strict && try < tries {
			continue
		}
		if err != nil {
			return r, err
		}
		r.After, _, err = c.History(ctx, handle)
		return r, err
	}
}

// Apply records a target as somebody wrote it, unless it is so already and sends.
func (c Catalogue) Apply(ctx context.Context, by Author, t domain.TargetChanged, check func(now targets.Target) error) (Result, error) {
	return c.Change(ctx, by, t.Handle, check != nil, func(now targets.Target) (domain.Payload, error) {
		if check != nil {
			if err := check(now); err != nil {
				return nil, err
			}
		}
		if now.State == "enabled" && same(now.Target, t.Target) {
			return nil, nil
		}
		return t, nil
	})
}

// RollBack makes an earlier version the current one, as a version of its own.
func (c Catalogue) RollBack(ctx context.Context, by Author, handle string, version int64, reason string) (Result, error) {
	old, err := c.Version(ctx, handle, version)
	if err != nil {
		return Result{}, err
	}
	return c.Change(ctx, by, handle, false, func(now targets.Target) (domain.Payload, error) {
		if !Exists(now) {
			return nil, fmt.Errorf("target %q: %w", handle, schema.ErrNotFound)
		}
		if now.State == "enabled" && same(now.Target, old.Target) {
			return nil, nil
		}
		if reason == "" {
			reason = fmt.Sprintf("rolled back to version %d", version)
		}
		return domain.TargetChanged{Target: old.Target, Reason: reason, Restores: version}, nil
	})
}

// Move gives a target another URL and leaves the rest as it is: from the inspector to production, in one recorded step.
func (c Catalogue) Move(ctx context.Context, by Author, handle, url, reason string) (Result, error) {
	return c.Change(ctx, by, handle, false, func(now targets.Target) (domain.Payload, error) {
		if !Exists(now) {
			return nil, fmt.Errorf("target %q: %w", handle, schema.ErrNotFound)
		}
		if now.URL == url {
			return nil, nil
		}
		moved := domain.TargetChanged{Target: now.Target, Reason: reason}
		if moved.URL = url; reason == "" {
			moved.Reason = "moved from " + now.URL + " to " + url
		}
		partials, err := targets.PartialsNow(ctx, c.DB)
		if err != nil {
			return nil, err
		}
		_, err = domain.CompileTarget(moved.Target, partials)
		return moved, err
	})
}

func same(a, b domain.Target) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// entry is an event to be.
type entry struct {
	by       Author
	payload  domain.Payload
	expected *int64
}

func (c Catalogue) append(ctx context.Context, entries ...entry) ([]schema.Appended, error) {
	events := make([]domain.Event, len(entries))
	for i, e := range entries {
		var err error
		if events[i], _, err = domain.New(uuid.New(), e.payload); err != nil {
			return nil, err
		}
		events[i].Actor, events[i].Source, events[i].OccurredAt, events[i].Expected = e.by.Name, e.by.Source, c.Now(), e.expected
	}
	return c.Ledger.Append(ctx, events...)
}
