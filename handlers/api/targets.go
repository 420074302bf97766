package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/catalogue"
	"github.com/dispatch-ledger/dispatch-ledger/projections/targets"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (a *api) targetRoutes() {
	tags := []string{"Targets"}
	body := &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[domain.TargetDraft](), true, "TargetChange")},
	}}
	register(a, huma.Operation{
		OperationID: "list-targets", Method: http.MethodGet, Path: "/v1/targets", Tags: tags,
		Summary: "List the targets", Description: "By handle, withdrawn ones left out. The list may be some milliseconds behind a change; a single target is not.",
	}, a.listTargets)
	register(a, huma.Operation{
		OperationID: "get-target", Method: http.MethodGet, Path: "/v1/targets/{handle}", Tags: tags,
		Summary: "Read a target", Description: "Its ETag is what If-Match takes.", Errors: []int{http.StatusNotFound},
	}, a.getTarget)
	register(a, huma.Operation{
		OperationID: "put-target", Method: http.MethodPut, Path: "/v1/targets/{handle}", Tags: tags,
		Summary: "Create or change a target",
		Description: "Records a new version, all of it. What is already so records nothing. With If-Match it holds only if nobody has changed the target since; with If-None-Match: * only if there is none. " +
			"A target with a sample and unresolved: error is refused when the sample lacks a variable that a template needs. A target that is disabled sends again once it is changed. What GET answers may be sent back: its read-only fields are ignored. " +
			"Where the target as it is or as it becomes says approval: required, the change is proposed and answered with 202.",
		RequestBody: body,
		Responses: map[string]*huma.Response{
			"201": {Description: "Created: there was no such target, or it had been withdrawn."},
			"202": {Description: "Proposed: Location is the proposal, which somebody else has to approve."},
		},
		Errors: []int{http.StatusPreconditionFailed},
	}, a.putTarget)
	register(a, huma.Operation{
		OperationID: "delete-target", Method: http.MethodDelete, Path: "/v1/targets/{handle}", Tags: tags,
		Summary: "Withdraw a target", Description: "Firings that name it are rejected from then on. Its versions stay in the ledger.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed},
	}, a.deleteTarget)
	register(a, huma.Operation{
		OperationID: "disable-target", Method: http.MethodPost, Path: "/v1/targets/{handle}/disable", Tags: tags,
		Summary: "Switch a target off", Description: "Firings that name it are withheld from then on.", Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed},
	}, a.switchTarget("disabled"))
	register(a, huma.Operation{
		OperationID: "enable-target", Method: http.MethodPost, Path: "/v1/targets/{handle}/enable", Tags: tags,
		Summary: "Switch a target on again", Errors: []int{http.StatusNotFound, http.StatusPreconditionFailed},
	}, a.switchTarget("enabled"))
	register(a, huma.Operation{
		OperationID: "list-target-versions", Method: http.MethodGet, Path: "/v1/targets/{handle}/versions", Tags: tags,
		Summary: "Read every version of a target", Description: "The newest first.", Errors: []int{http.StatusNotFound},
	}, a.listTargetVersions)
	a.targetPreviewRoutes()
	a.targetChangeRoutes()
}

// Target is a target as the API shows it.
type Target struct {
	domain.Target
	Version   int64     `json:"version" readOnly:"true" doc:"Of its configuration."`
	Revision  int64     `json:"revision" readOnly:"true" doc:"Of the last event about it; the ETag."`
	State     string    `json:"state" readOnly:"true" doc:"enabled, disabled or deleted; proposed where the change waits for approval"`
	Reason    *string   `json:"reason" doc:"Why it was last changed or switched, as far as somebody said."`
	ChangedAt time.Time `json:"changed_at" readOnly:"true"`
	ChangedBy string    `json:"changed_by" readOnly:"true" doc:"The actor."`
	Position  int64     `json:"position" readOnly:"true" doc:"Of the last event about it."`

	Restores *int64           `json:"restores,omitempty" readOnly:"true" doc:"The earlier version that this one repeats, when it was rolled back to."`
	Approved *domain.Approval `json:"approved,omitempty" readOnly:"true" doc:"The proposal that this version followed from, when its change took two people."`
	Proposal *int64           `json:"proposal,omitempty" readOnly:"true" doc:"Number of the proposal that this is, where a change takes two people; version, revision and the like are then the target's as it still is."`
}

// readOnly are the fields of Target that PUT ignores, because a change does not set them.
var readOnly = []string{"version", "revision", "state", "changed_at", "changed_by", "position", "restores", "approved", "proposal"}

func targetOf(t targets.Target) Target {
	return Target{
		Target: t.Target, Version: t.Version, Revision: t.Revision, State: t.State, Reason: optional(t.Reason),
		ChangedAt: t.ChangedAt.UTC(), ChangedBy: t.ChangedBy, Position: t.Position, Restores: optional(t.Restores), Approved: t.Approved,
	}
}

func (t Target) etag() string { return `"` + strconv.FormatInt(t.Revision, 10) + `"` }

// history gives every version of a target and what it is now. The zero Target means there never was one.
func (a *api) history(ctx context.Context, handle string) (now Target, versions []Target, err error) {
	current, all, err := a.catalogue.History(ctx, handle)
	versions = make([]Target, len(all))
	for i, v := range all {
		versions[i] = targetOf(v)
	}
	return targetOf(current), versions, err
}

// author is who makes the request, for the catalogue.
func author(ctx context.Context) catalogue.Author {
	return catalogue.Author{Name: PrincipalOf(ctx).Name, Source: source}
}

func (t Target) exists() bool { return t.Revision > 0 && t.State != "deleted" }

type listTargetsInput struct{ Paging }

func (a *api) listTargets(ctx context.Context, in *listTargetsInput) (*Listed[Target], error) {
	after, err := decodeCursor("targets", in.Cursor)
	if err != nil {
		return nil, err
	}
	found, err := targets.List(ctx, a.DB, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	items := make([]Target, len(found))
	for i, t := range found {
		items[i] = targetOf(t)
	}
	return &Listed[Target]{Body: pageOf("targets", items, in.Limit, func(t Target) string { return t.Handle })}, nil
}

type TargetInput struct {
	Handle string `path:"handle" maxLength:"128"`
}

type targetOutput struct {
	Status   int
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     Target
}

func answer(status int, t Target) *targetOutput {
	out := &targetOutput{Status: status, ETag: t.etag(), Body: t}
	if status == http.StatusCreated {
		out.Location = pathOf("v1", "targets", t.Handle)
	}
	return out
}

func (a *api) getTarget(ctx context.Context, in *TargetInput) (*targetOutput, error) {
	t, err := a.catalogue.Current(ctx, in.Handle)
	if err != nil {
		return nil, err
	}
	return answer(http.StatusOK, targetOf(t)), nil
}

// Precondition is what a change requires of the target as it stands.
type Precondition struct {
	IfMatch     string `header:"If-Match" doc:"The ETag that the change was decided on."`
	IfNoneMatch string `header:"If-None-Match" doc:"* for a target that must not exist yet."`
}

func (p Precondition) conditional() bool { return p.IfMatch != "" || p.IfNoneMatch != "" }

// holds compares ETags strongly, as RFC 9110 says for If-Match.
func (p Precondition) holds(now Target) error {
	if p.IfMatch != "" {
		matches := now.exists() && slices.ContainsFunc(strings.Split(p.IfMatch, ","), func(tag string) bool {
			tag = strings.TrimSpace(tag)
			return tag == "*" || tag == now.etag()
		})
		if !matches {
			return stale(now)
		}
	}
	if p.IfNoneMatch != "" {
		if strings.TrimSpace(p.IfNoneMatch) != "*" {
			return badParameter("header.If-None-Match", "is not *")
		}
		if now.exists() {
			return stale(now)
		}
	}
	return nil
}

// stale is a failed precondition, with the ETag that would hold.
func stale(now Target) error {
	if !now.exists() {
		return fmt.Errorf("%w: there is no such target", errPrecondition)
	}
	p := kindOf(errPrecondition).problem(fmt.Errorf("%w: it is %s", errPrecondition, now.etag()))
	p.header.Set("ETag", now.etag())
	return p
}

// change has the catalogue change a target under a precondition.
func (a *api) change(ctx context.Context, handle string, p Precondition, decide func(now targets.Target) (domain.Payload, error)) (catalogue.Result, error) {
	return a.catalogue.Change(ctx, author(ctx), handle, p.conditional(), func(now targets.Target) (domain.Payload, error) {
		if err := p.holds(targetOf(now)); err != nil {
			return nil, err
		}
		return decide(now)
	})
}

// source is where the events come from that the API itself records.
const source = "/api"

type putTargetInput struct {
	TargetInput
	Precondition
	RawBody []byte `contentType:"application/json"`
}

func (a *api) putTarget(ctx context.Context, in *putTargetInput) (*targetOutput, error) {
	changed, compiled, err := a.parseTarget(ctx, in.Handle, in.RawBody)
	if err == nil {
		err = compiled.CheckSample(slices.Collect(maps.Keys(a.Variables)))
	}
	if err != nil {
		return nil, err
	}
	var check func(targets.Target) error
	if in.conditional() {
		check = func(now targets.Target) error { return in.holds(targetOf(now)) }
	}
	done, err := a.catalogue.Apply(ctx, author(ctx), changed, check)
	if err != nil {
		return nil, err
	}
	return answerChange(done, changed.Target), nil
}

// answerChange tells what came of a change that makes a target into what is wanted.
func answerChange(done catalogue.Result, wanted domain.Target) *targetOutput {
	switch {
	case done.Proposal > 0:
		t := targetOf(done.After)
		t.Target, t.Proposal, t.State = wanted, &done.Proposal, "proposed"
		out := answer(http.StatusAccepted, t)
		out.Location = pathOf("v1", "targets", wanted.Handle, "proposals", strconv.FormatInt(done.Proposal, 10))
		return out
	case !catalogue.Exists(done.Before):
		return answer(http.StatusCreated, targetOf(done.After))
	}
	return answer(http.StatusOK, targetOf(done.After))
}

// parseTarget reads, completes, checks and compiles the target of a PUT.
func (a *api) parseTarget(ctx context.Context, handle string, body []byte) (domain.TargetChanged, *domain.CompiledTarget, error) {
	body, err := without(body, readOnly)
	if err != nil {
		return domain.TargetChanged{}, nil, err
	}
	changed, err := domain.ParseTarget(body, handle)
	if err != nil {
		return changed, nil, err
	}
	partials, err := targets.PartialsNow(ctx, a.DB)
	if err != nil {
		return changed, nil, err
	}
	compiled, err := domain.CompileTarget(changed.Target, partials)
	return changed, compiled, err
}

// without drops fields of a JSON object, and a null reason, which is what GET answers when nobody gave one.
func without(body []byte, names []string) ([]byte, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil || object == nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, huma.Error400BadRequest(fmt.Sprintf("the body breaks off or goes wrong at byte %d", syntax.Offset))
		}
		return nil, domain.Invalid("", "is not a JSON object")
	}
	for _, name := range names {
		delete(object, name)
	}
	if string(object["reason"]) == "null" {
		delete(object, "reason")
	}
	return json.Marshal(object)
}

type deleteTargetInput struct {
	TargetInput
	Precondition
	Reason string `query:"reason" maxLength:"1024" doc:"Why, in words."`
}

func (a *api) deleteTarget(ctx context.Context, in *deleteTargetInput) (*struct{}, error) {
	_, err := a.change(ctx, in.Handle, in.Precondition, func(now targets.Target) (domain.Payload, error) {
		if !catalogue.Exists(now) {
			return nil, fmt.Errorf("target: %w", schema.ErrNotFound)
		}
		return domain.TargetDeleted{Handle: in.Handle, Reason: in.Reason}, nil
	})
	return nil, err
}

// SwitchReason says why a target is switched off or on.
type SwitchReason struct {
	Reason string `json:"reason,omitempty" maxLength:"1024" doc:"Why, in words."`
}

type switchTargetInput struct {
	TargetInput
	Precondition
	Body *SwitchReason
}

// switchTarget gives the handler of a route that brings a target into a state.
func (a *api) switchTarget(state string) func(context.Context, *switchTargetInput) (*targetOutput, error) {
	return func(ctx context.Context, in *switchTargetInput) (*targetOutput, error) {
		reason := ""
		if in.Body != nil {
			reason = in.Body.Reason
		}
		done, err := a.change(ctx, in.Handle, in.Precondition, func(now targets.Target) (domain.Payload, error) {
			switch {
			case !catalogue.Exists(now):
				return nil, fmt.Errorf("target: %w", schema.ErrNotFound)
			case now.State == state:
				return nil, nil
			case state == "disabled":
				return domain.TargetDisabled{Handle: in.Handle, Reason: reason}, nil
			}
			return domain.TargetEnabled{Handle: in.Handle, Reason: reason}, nil
		})
		if err != nil {
			return nil, err
		}
		return answer(http.StatusOK, targetOf(done.After)), nil
	}
}

type listTargetVersionsInput struct {
	TargetInput
	Paging
}

func (a *api) listTargetVersions(ctx context.Context, in *listTargetVersionsInput) (*Listed[Target], error) {
	before, err := positionCursor("target-versions", in.Cursor)
	if err != nil {
		return nil, err
	}
	_, versions, err := a.history(ctx, in.Handle)
	if err != nil {
		return nil, err
	}
	if len(versions) == 0 {
		return nil, fmt.Errorf("target: %w", schema.ErrNotFound)
	}
	if before > 0 {
		versions = slices.DeleteFunc(versions, func(t Target) bool { return t.Version >= before })
	}
	versions = versions[:min(len(versions), in.Limit+1)]
	return &Listed[Target]{Body: pageOf("target-versions", versions, in.Limit, func(t Target) string { return strconv.FormatInt(t.Version, 10) })}, nil
}
