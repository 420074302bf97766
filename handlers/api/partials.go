package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (a *api) partialRoutes() {
	tags := []string{"Partials"}
	register(a, huma.Operation{
		OperationID: "list-partials", Method: http.MethodGet, Path: "/v1/partials", Tags: tags,
		Summary:     "List the partials",
		Description: "The pieces that templates share, by name, withdrawn ones left out. The list may be some milliseconds behind a change; a single partial is not.",
	}, a.listPartials)
	register(a, huma.Operation{
		OperationID: "get-partial", Method: http.MethodGet, Path: "/v1/partials/{name}", Tags: tags,
		Summary: "Read a partial", Description: "Its ETag is what If-Match takes. A / in the name is written %2F.", Errors: []int{http.StatusNotFound},
	}, a.getPartial)
	register(a, huma.Operation{
		OperationID: "put-partial", Method: http.MethodPut, Path: "/v1/partials/{name}", Tags: tags,
		Summary: "Create or change a partial",
		Description: "Records a new version, and says which targets it touches: those whose templates name it, themselves or through another. " +
			"A change after which a target that compiles now would not any more is refused, and names the target. What is already so records nothing. " +
			"With dry_run nothing is recorded: the answer shows what would be.",
		Responses: map[string]*huma.Response{"201": {Description: "Created: there was no such partial, or it had been withdrawn."}},
		Errors:    []int{http.StatusBadRequest, http.StatusConflict, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity},
	}, a.putPartial)
	register(a, huma.Operation{
		OperationID: "delete-partial", Method: http.MethodDelete, Path: "/v1/partials/{name}", Tags: tags,
		Summary: "Withdraw a partial", Description: "Refused while a target's templates need it. Its versions stay in the ledger.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
	}, a.deletePartial)
	register(a, huma.Operation{
		OperationID: "list-partial-versions", Method: http.MethodGet, Path: "/v1/partials/{name}/versions", Tags: tags,
		Summary: "Read every version of a partial", Description: "The newest first.", Errors: []int{http.StatusNotFound},
	}, a.listPartialVersions)
}

// Partial is a partial as the API shows it.
type Partial struct {
	Name      string    `json:"name" doc:"What templates call it."`
	Source    string    `json:"source" doc:"The Twig template."`
	Version   int64     `json:"version" doc:"Of the last event about it; the ETag."`
	State     string    `json:"state" doc:"present or deleted"`
	Reason    *string   `json:"reason" doc:"Why it was last changed, as far as somebody said."`
	ChangedAt time.Time `json:"changed_at"`
	ChangedBy string    `json:"changed_by" doc:"The actor."`
	Position  int64     `json:"position" doc:"Of the last event about it."`
	Targets   []string  `json:"targets,omitempty" doc:"Handles of the targets whose templates name it, themselves or through another; left out in lists."`
}

func (p Partial) exists() bool { return p.Version > 0 && p.State != "deleted" }

// asTarget is what preconditions compare: a partial has one version where a target has a revision.
func (p Partial) asTarget() Target { return Target{Revision: p.Version, State: p.State} }

// partialHistory gives every version of a partial and what it is now, from its stream, so that a change that was just
// answered is in it. The zero Partial means there never was one.
func (a *api) partialHistory(ctx context.Context, name string) (now Partial, versions []Partial, err error) {
	for r, err := range schema.Events(ctx, a.DB, schema.Filter{Stream: domain.PartialStream(name)}) {
		if err != nil {
			return Partial{}, nil, err
		}
		payload, err := domain.Decode(r.Type, r.Data, nil)
		if err != nil {
			return Partial{}, nil, fmt.Errorf("event %d: %w", r.Position, errors.Join(errInternal, err))
		}
		now.Version, now.State, now.ChangedAt, now.ChangedBy, now.Position = r.Version, r.State, r.RecordedAt.UTC(), r.Actor, r.Position
		switch p := payload.(type) {
		case domain.PartialChanged:
			now.Name, now.Source, now.Reason = p.Name, p.Source, optional(p.Reason)
		case domain.PartialDeleted:
			now.Reason = optional(p.Reason)
		}
		versions = append(versions, now)
	}
	slices.Reverse(versions)
	return now, versions, nil
}

type listPartialsInput struct{ Paging }

func (a *api) listPartials(ctx context.Context, in *listPartialsInput) (*Listed[Partial], error) {
	after, err := decodeCursor("partials", in.Cursor)
	if err != nil {
		return nil, err
	}
	found, err := targets.ListPartials(ctx, a.DB)
	if err != nil {
		return nil, err
	}
	items := []Partial{}
	for _, p := range found {
		if p.State != "deleted" && p.Name > after && len(items) <= in.Limit {
			items = append(items, Partial{
				Name: p.Name, Source: p.Source, Version: p.Version, State: p.State, ChangedAt: p.ChangedAt.UTC(), ChangedBy: p.ChangedBy, Position: p.Position,
			})
		}
	}
	return &Listed[Partial]{Body: pageOf("partials", items, in.Limit, func(p Partial) string { return p.Name })}, nil
}

type PartialInput struct {
	Name string `path:"name" maxLength:"128"`
}

type partialOutput struct {
	Status   int
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     Partial
}

func (a *api) getPartial(ctx context.Context, in *PartialInput) (*partialOutput, error) {
	p, _, err := a.partialHistory(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if !p.exists() {
		return nil, fmt.Errorf("partial: %w", schema.ErrNotFound)
	}
	partials, configs, err := a.templates(ctx)
	if err != nil {
		return nil, err
	}
	p.Targets = partials.With(p.Name, p.Source).TouchedBy(p.Name, configs)
	return &partialOutput{Status: http.StatusOK, ETag: p.asTarget().etag(), Body: p}, nil
}

// templates reads the partials and the targets there are.
func (a *api) templates(ctx context.Context) (domain.Partials, []domain.Target, error) {
	partials, err := targets.PartialsNow(ctx, a.DB)
	if err != nil {
		return partials, nil, err
	}
	configs, err := targets.Configs(ctx, a.DB)
	return partials, configs, err
}

// PartialChange is what a partial becomes.
type PartialChange struct {
	Source string `json:"source" doc:"The Twig template."`
	Reason string `json:"reason,omitempty" maxLength:"1024" doc:"Why, in words."`
}

type putPartialInput struct {
	PartialInput
	Precondition
	DryRun bool `query:"dry_run" doc:"Check and show, and record nothing."`
	Body   PartialChange
}

func (a *api) putPartial(ctx context.Context, in *putPartialInput) (*partialOutput, error) {
	change := domain.PartialChanged{Name: in.Name, Source: in.Body.Source, Reason: in.Body.Reason}
	before, after, touched, err := a.changePartial(ctx, in.Name, in.Precondition, in.DryRun, func(now Partial) (domain.Payload, error) {
		if now.exists() && now.Source == change.Source {
			return nil, nil
		}
		return change, nil
	})
	if err != nil {
		return nil, err
	}
	after.Targets = touched
	out := &partialOutput{Status: http.StatusOK, ETag: after.asTarget().etag(), Body: after}
	switch {
	case in.DryRun:
		out.Body.Name, out.Body.Source, out.Body.State = in.Name, change.Source, "present"
	case !before.exists():
		out.Status, out.Location = http.StatusCreated, pathOf("v1", "partials", in.Name)
	}
	return out, nil
}

type deletePartialInput struct {
	PartialInput
	Precondition
	Reason string `query:"reason" maxLength:"1024" doc:"Why, in words."`
}

func (a *api) deletePartial(ctx context.Context, in *deletePartialInput) (*struct{}, error) {
	_, _, _, err := a.changePartial(ctx, in.Name, in.Precondition, false, func(now Partial) (domain.Payload, error) {
		if !now.exists() {
			return nil, fmt.Errorf("partial: %w", schema.ErrNotFound)
		}
		return domain.PartialDeleted{Name: in.Name, Reason: in.Reason}, nil
	})
	return nil, err
}

// changePartial is load, decide, check against the targets, record. decide gives nil when nothing is to be recorded.
func (a *api) changePartial(ctx context.Context, name string, p Precondition, dryRun bool, decide func(now Partial) (domain.Payload, error),
) (before, after Partial, touched []string, err error) {
	const tries = 5
	for try := 1; ; try++ {
		if before, _, err = a.partialHistory(ctx, name); err != nil {
			return before, after, nil, err
		}
		if err = p.holds(before.asTarget()); err != nil {
			return before, after, nil, err
		}
		payload, err := decide(before)
		if err != nil {
			return before, after, nil, err
		}
		partials, configs, err := a.templates(ctx)
		if err != nil {
			return before, after, nil, err
		}
		if payload == nil {
			return before, before, partials.With(name, before.Source).TouchedBy(name, configs), nil
		}
		touched, err := partials.Change(payload, configs)
		if err != nil || dryRun {
			return before, before, touched, err
		}
		event, _, err := domain.New(uuid.New(), payload)
		if err != nil {
			return before, after, nil, err
		}
		event.Actor, event.Source, event.OccurredAt, event.Expected = PrincipalOf(ctx).Name, source, a.Clock(), &before.Version
		_, err = a.Ledger.Append(ctx, event)
		if errors.Is(err, schema.ErrConflict) && !p.conditional() && try < tries {
			continue
		}
		if err != nil {
			return before, after, nil, err
		}
		after, _, err = a.partialHistory(ctx, name)
		return before, after, touched, err
	}
}

type listPartialVersionsInput struct {
	PartialInput
	Paging
}

func (a *api) listPartialVersions(ctx context.Context, in *listPartialVersionsInput) (*Listed[Partial], error) {
	before, err := positionCursor("partial-versions", in.Cursor)
	if err != nil {
		return nil, err
	}
	_, versions, err := a.partialHistory(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if versions == nil {
		return nil, fmt.Errorf("partial: %w", schema.ErrNotFound)
	}
	if before > 0 {
		versions = slices.DeleteFunc(versions, func(p Partial) bool { return p.Version >= before })
	}
	versions = versions[:min(len(versions), in.Limit+1)]
	return &Listed[Partial]{Body: pageOf("partial-versions", versions, in.Limit, func(p Partial) string { return strconv.FormatInt(p.Version, 10) })}, nil
}
