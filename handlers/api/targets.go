package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
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
			"A target that is disabled sends again once it is changed. What GET answers may be sent back: its read-only fields are ignored.",
		RequestBody: body,
		Responses:   map[string]*huma.Response{"201": {Description: "Created: there was no such target, or it had been withdrawn."}},
		Errors:      []int{http.StatusPreconditionFailed},
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
	register(a, huma.Operation{
		OperationID: "preview-target", Method: http.MethodPost, Path: "/v1/targets/{handle}/preview", Tags: tags,
		Summary:     "See what a firing would send",
		Description: "Renders the target, one of its versions, or a draft that is not recorded yet, with a context. Sends and records nothing; secrets show as ••••.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[PreviewRequest](), true, "PreviewRequest")},
		}},
		Errors: []int{http.StatusNotFound},
	}, a.previewTarget)
}

// Target is a target as the API shows it.
type Target struct {
	domain.Target
	Version   int64     `json:"version" readOnly:"true" doc:"Of its configuration."`
	Revision  int64     `json:"revision" readOnly:"true" doc:"Of the last event about it; the ETag."`
	State     string    `json:"state" readOnly:"true" doc:"enabled, disabled or deleted"`
	Reason    *string   `json:"reason" doc:"Why it was last changed or switched, as far as somebody said."`
	ChangedAt time.Time `json:"changed_at" readOnly:"true"`
	ChangedBy string    `json:"changed_by" readOnly:"true" doc:"The actor."`
	Position  int64     `json:"position" readOnly:"true" doc:"Of the last event about it."`
}

// readOnly are the fields of Target that PUT ignores, because a change does not set them.
var readOnly = []string{"version", "revision", "state", "changed_at", "changed_by", "position"}

func targetOf(t targets.Target) Target {
	return Target{
		Target: t.Target, Version: t.Version, Revision: t.Revision, State: t.State, Reason: optional(t.Reason),
		ChangedAt: t.ChangedAt.UTC(), ChangedBy: t.ChangedBy, Position: t.Position,
	}
}

func (t Target) etag() string { return `"` + strconv.FormatInt(t.Revision, 10) + `"` }

// history gives every version of a target and what it is now, from its stream in the ledger: a change that was just
// answered is in it, which a projection would show some milliseconds later. The zero Target means there never was one.
func (a *api) history(ctx context.Context, handle string) (now Target, versions []Target, err error) {
	for r, err := range schema.Events(ctx, a.DB, schema.Filter{Stream: domain.TargetStream(handle)}) {
		if err != nil {
			return Target{}, nil, err
		}
		payload, err := domain.Decode(r.Type, r.Data, nil)
		if err != nil {
			return Target{}, nil, fmt.Errorf("event %d: %w", r.Position, errors.Join(errInternal, err))
		}
		now.Revision, now.State, now.ChangedAt, now.ChangedBy, now.Position = r.Version, r.State, r.RecordedAt, r.Actor, r.Position
		switch p := payload.(type) {
		case domain.TargetChanged:
			now.Target, now.Version, now.Reason = p.Target, r.Version, optional(p.Reason)
			versions = append(versions, now)
		case domain.TargetDisabled:
			now.Reason = optional(p.Reason)
		case domain.TargetEnabled:
			now.Reason = optional(p.Reason)
		case domain.TargetDeleted:
			now.Reason = optional(p.Reason)
		}
	}
	slices.Reverse(versions)
	return now, versions, nil
}

// current is the target of a handle, or ErrNotFound when there is none any more.
func (a *api) current(ctx context.Context, handle string) (Target, error) {
	now, _, err := a.history(ctx, handle)
	if err == nil && !now.exists() {
		err = fmt.Errorf("target: %w", schema.ErrNotFound)
	}
	return now, err
}

func (t Target) exists() bool { return t.Revision > 0 && t.State != "deleted" }

type listTargetsInput struct{ Paging }

type listTargetsOutput struct{ Body Page[Target] }

func (a *api) listTargets(ctx context.Context, in *listTargetsInput) (*listTargetsOutput, error) {
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
	return &listTargetsOutput{Body: pageOf("targets", items, in.Limit, func(t Target) string { return t.Handle })}, nil
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
	t, err := a.current(ctx, in.Handle)
	if err != nil {
		return nil, err
	}
	return answer(http.StatusOK, t), nil
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

// change is load, decide, record: decide says what the target as it stands becomes, nil when nothing is to be
// recorded. A change that states no precondition is decided again when somebody else's came between.
func (a *api) change(ctx context.Context, handle string, p Precondition, decide func(now Target) (domain.Payload, error)) (before, after Target, err error) {
	const tries = 5
	for try := 1; ; try++ {
		if before, _, err = a.history(ctx, handle); err != nil {
			return before, after, err
		}
		if err = p.holds(before); err != nil {
			return before, after, err
		}
		payload, err := decide(before)
		if err != nil || payload == nil {
			return before, before, err
		}
		event, _, err := domain.New(uuid.New(), payload)
		if err != nil {
			return before, after, err
		}
		event.Actor, event.Source, event.OccurredAt = PrincipalOf(ctx).Name, source, a.Clock()
		event.Expected = &before.Revision
		_, err = a.Ledger.Append(ctx, event)
		if errors.Is(err, schema.ErrConflict) && !p.conditional() && try < tries {
			continue
		}
		if err != nil {
			return before, after, err
		}
		after, _, err = a.history(ctx, handle)
		return before, after, err
	}
}

// source is where the events come from that the API itself records.
const source = "/api"

type putTargetInput struct {
	TargetInput
	Precondition
	RawBody []byte `contentType:"application/json"`
}

func (a *api) putTarget(ctx context.Context, in *putTargetInput) (*targetOutput, error) {
	changed, err := a.parseTarget(ctx, in.Handle, in.RawBody)
	if err != nil {
		return nil, err
	}
	before, after, err := a.change(ctx, in.Handle, in.Precondition, func(now Target) (domain.Payload, error) {
		if now.State == "enabled" && sameTarget(now.Target, changed.Target) {
			return nil, nil
		}
		return changed, nil
	})
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	if !before.exists() {
		status = http.StatusCreated
	}
	return answer(status, after), nil
}

func sameTarget(a, b domain.Target) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// parseTarget reads, completes, checks and compiles the target of a PUT.
func (a *api) parseTarget(ctx context.Context, handle string, body []byte) (domain.TargetChanged, error) {
	body, err := without(body, readOnly)
	if err != nil {
		return domain.TargetChanged{}, err
	}
	changed, err := domain.ParseTarget(body, handle)
	if err != nil {
		return changed, err
	}
	partials, err := targets.Partials(ctx, a.DB)
	if err != nil {
		return changed, err
	}
	_, err = domain.CompileTarget(changed.Target, partials)
	return changed, err
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
	_, _, err := a.change(ctx, in.Handle, in.Precondition, func(now Target) (domain.Payload, error) {
		if !now.exists() {
			return nil, fmt.Errorf("target: %w", schema.ErrNotFound)
		}
		return domain.TargetDeleted{Handle: in.Handle, Reason: in.Reason}, nil
	})
	return nil, err
}

// SwitchReason says why a target is switched off or on.
type SwitchReason struct {
	_      struct{} `additionalProperties:"false"`
	Reason string   `json:"reason,omitempty" maxLength:"1024" doc:"Why, in words."`
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
		_, after, err := a.change(ctx, in.Handle, in.Precondition, func(now Target) (domain.Payload, error) {
			switch {
			case !now.exists():
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
		return answer(http.StatusOK, after), nil
	}
}

type listTargetVersionsInput struct {
	TargetInput
	Paging
}

func (a *api) listTargetVersions(ctx context.Context, in *listTargetVersionsInput) (*listTargetsOutput, error) {
	before, err := positionCursor("target-versions", in.Cursor)
	if err != nil {
		return nil, err
	}
	_, versions, err := a.history(ctx, in.Handle)
	if err != nil {
		return nil, err
	}
	if versions == nil {
		return nil, fmt.Errorf("target: %w", schema.ErrNotFound)
	}
	if before > 0 {
		versions = slices.DeleteFunc(versions, func(t Target) bool { return t.Version >= before })
	}
	versions = versions[:min(len(versions), in.Limit+1)]
	return &listTargetsOutput{Body: pageOf("target-versions", versions, in.Limit, func(t Target) string { return strconv.FormatInt(t.Version, 10) })}, nil
}

// PreviewRequest is what is to be rendered.
type PreviewRequest struct {
	Context json.RawMessage `json:"context" doc:"The event context: a JSON object."`
	Version int64           `json:"version,omitempty" doc:"Of the target; the current one by default."`
	Draft   json.RawMessage `json:"draft,omitempty" doc:"A target as PUT takes it, to be used instead of a recorded one."`
}

// Preview is the request that a firing would send.
type Preview struct {
	Method     string              `json:"method"`
	URL        string              `json:"url"`
	Headers    map[string]string   `json:"headers" doc:"Secrets show as ••••."`
	Body       string              `json:"body" doc:"Secrets show as ••••."`
	Unresolved []domain.Unresolved `json:"unresolved" nullable:"false" doc:"Variables that the context lacks."`
	Condition  *bool               `json:"condition" doc:"What the target's condition says of this context; null when it has none."`
}

type previewTargetInput struct {
	TargetInput
	RawBody []byte `contentType:"application/json"`
}

type previewTargetOutput struct{ Body Preview }

// masked stands where a secret would.
const masked = "••••"

func (a *api) previewTarget(ctx context.Context, in *previewTargetInput) (*previewTargetOutput, error) {
	request, err := parsePreview(in.RawBody)
	if err != nil {
		return nil, err
	}
	target, err := a.previewed(ctx, in.Handle, request)
	if err != nil {
		return nil, err
	}
	partials, err := targets.Partials(ctx, a.DB)
	if err != nil {
		return nil, err
	}
	compiled, err := domain.CompileTarget(target, partials)
	if err != nil {
		return nil, err
	}
	data, err := twig.DecodeContext(request.Context)
	if err != nil {
		return nil, domain.Invalid("/context", "is not a context that a template can read")
	}
	rendering, err := compiled.Render(ctx, data, domain.Environment{Name: a.Environment, Variables: a.Variables, Now: a.Clock, Secret: func(string) string { return masked }})
	if err != nil {
		return nil, notRenderable(err)
	}
	out := &previewTargetOutput{Body: Preview{
		Method: compiled.Method, URL: rendering.URL, Headers: rendering.Headers, Body: rendering.Body, Unresolved: rendering.Unresolved,
	}}
	if out.Body.Unresolved == nil {
		out.Body.Unresolved = []domain.Unresolved{}
	}
	if compiled.Condition != nil {
		holds, err := compiled.Holds(request.Context)
		if err != nil {
			return nil, notRenderable(err)
		}
		out.Body.Condition = &holds
	}
	return out, nil
}

// notRenderable marks what lies in the template or the context.
func notRenderable(err error) error {
	var rendering *domain.RenderError
	if errors.As(err, &rendering) {
		return fmt.Errorf("%w: %w", errNotRenderable, err)
	}
	return err
}

func parsePreview(body []byte) (request PreviewRequest, err error) {
	if _, err := without(body, nil); err != nil {
		return request, err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&request); err != nil {
		return request, domain.Invalid("", "holds a field that is not context, version or draft, or one of another type")
	}
	if c := bytes.TrimSpace(request.Context); len(c) == 0 || c[0] != '{' {
		return request, domain.Invalid("/context", "is not a JSON object")
	}
	if request.Version < 0 || request.Version > 0 && request.Draft != nil {
		return request, domain.Invalid("/version", "is a recorded version, from 1, and not given beside draft")
	}
	return request, nil
}

// previewed finds the target that is to be rendered.
func (a *api) previewed(ctx context.Context, handle string, request PreviewRequest) (domain.Target, error) {
	if request.Draft != nil {
		changed, err := a.parseTarget(ctx, handle, request.Draft)
		return changed.Target, below("/draft", err)
	}
	now, versions, err := a.history(ctx, handle)
	if err != nil {
		return domain.Target{}, err
	}
	if request.Version == 0 && now.exists() {
		return now.Target, nil
	}
	for _, v := range versions {
		if v.Version == request.Version {
			return v.Target, nil
		}
	}
	return domain.Target{}, fmt.Errorf("target: %w", schema.ErrNotFound)
}

// below moves what is wrong with a part of the body to where the part stands.
func below(pointer string, err error) error {
	var template *domain.TemplateError
	var invalid *domain.InvalidError
	switch {
	case errors.As(err, &template):
		moved := *template
		moved.Pointer = pointer + moved.Pointer
		return &moved
	case errors.As(err, &invalid):
		return domain.Invalid(pointer+invalid.Pointer, "%s", invalid.Message)
	}
	return err
}
