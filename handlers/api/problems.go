package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/catalogue"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/omneo"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/trial"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Errors of the API itself.
var (
	errUnauthenticated = errors.New("no valid bearer token")
	errForbidden       = errors.New("the token's role does not allow this")
	errLocked          = errors.New("too many failed authentications from this address")
	errNoRoute         = errors.New("there is nothing at this path")
	errNoMethod        = errors.New("this path does not take this method")
	errPrecondition    = errors.New("If-Match does not name the current version")
	errHookNotSetUp    = errors.New("no secret is set for webhooks")
	errBadCursor       = errors.New("the cursor is not one of this list's")
	errNotRenderable   = errors.New("the target cannot be rendered with this context")
	errInternal        = errors.New("internal error")
)

// kind is what a class of errors answers.
type kind struct {
	err    error  // the sentinel
	status int    // of the HTTP response
	name   string // stable: the last part of the problem's type
	title  string // the same for every occurrence
	next   string // what the caller can do
	detail bool   // the error's own text is meant for the caller
}

// urn is the namespace of problem types.
const urn = "urn:dispatch-ledger:problem:"

// retryAfter is what a caller is told to wait, in seconds, when the service cannot answer at the moment.
const retryAfter = 2

// problems turns errors into answers, most specific first. What is not listed is either transient, and answered like a
// database that is away, or an internal error: logged with the request's id, answered with nothing but that id.
var problems = []kind{
	{err: errUnauthenticated, status: http.StatusUnauthorized, name: "unauthenticated", title: "Not authenticated", next: "Send Authorization: Bearer with a token made by 'dispatch-ledger token create'."},
	{err: errLocked, status: http.StatusTooManyRequests, name: "locked-out", title: "Too many failed authentications", next: "Wait as long as Retry-After says, then use a valid token.", detail: true},
	{err: errForbidden, status: http.StatusForbidden, name: "forbidden", title: "Not allowed", next: "Use a token with one of the roles named.", detail: true},
	{err: errNoRoute, status: http.StatusNotFound, name: "no-such-route", title: "No such route", next: "See /docs for the routes there are."},
	{err: errNoMethod, status: http.StatusMethodNotAllowed, name: "method-not-allowed", title: "Method not allowed", next: "Use one of the methods in Allow."},
	{err: errPrecondition, status: http.StatusPreconditionFailed, name: "version-mismatch", title: "The version has changed", next: "Read the current version, decide again, and send its ETag in If-Match.", detail: true},
	{err: errBadCursor, status: http.StatusUnprocessableEntity, name: "invalid", title: "The request is not valid", next: "Pass the value of next as it was, with the same filters; start again without a cursor.", detail: true},

	{err: errNotRenderable, status: http.StatusUnprocessableEntity, name: "not-renderable", title: "The target cannot be rendered with this context", next: "Correct the template or the context; a firing like this would be rejected."},

	{err: domain.ErrBreaksTargets, status: http.StatusConflict, name: "breaks-targets", title: "Targets would not compile any more", next: "Change the targets that errors names first; nothing was recorded."},

	{err: intake.ErrNotJSON, status: http.StatusBadRequest, name: "malformed", title: "The body is not JSON", next: "Send one JSON value in UTF-8.", detail: true},
	{err: intake.ErrMediaType, status: http.StatusUnsupportedMediaType, name: "unsupported-media-type", title: "Unsupported media type", next: "Send CloudEvents 1.0 in JSON.", detail: true},
	{err: omneo.ErrSignature, status: http.StatusUnauthorized, name: "bad-signature", title: "The webhook is not proven to be the CRM's", next: "Sign the raw body with the secret that 'dispatch-ledger secret set omneo_webhook_secret' holds; nothing was recorded.", detail: true},
	{err: errHookNotSetUp, status: http.StatusServiceUnavailable, name: "hook-not-set-up", title: "Webhooks are not set up", next: "Run 'dispatch-ledger secret set omneo_webhook_secret', then send the webhook again."},
	{err: schema.ErrTooLarge, status: http.StatusRequestEntityTooLarge, name: "too-large", title: "Too large", next: "Send less at a time: fewer events, or a smaller body.", detail: true},
	{err: schema.ErrIDReused, status: http.StatusConflict, name: "id-reused", title: "The id stands for other content", next: "Nothing was recorded. Give each event an id of its own; send a repeat unchanged."},
	{err: schema.ErrConflict, status: http.StatusPreconditionFailed, name: "version-mismatch", title: "The version has changed", next: "Read the current version, decide again, and send its ETag in If-Match."},
	{err: dispatcher.ErrState, status: http.StatusConflict, name: "delivery-state", title: "The delivery's state does not allow it", next: "Read the delivery and decide anew.", detail: true},
	{err: schema.ErrNotParked, status: http.StatusConflict, name: "not-parked", title: "The reader is not parked there", next: "Read GET /v1/projections and decide anew.", detail: true},
	{err: schema.ErrErased, status: http.StatusConflict, name: "erased", title: "The person was erased", next: "Nothing can be done: what was to be sent cannot be read any more."},
	{err: dispatcher.ErrNothingToSend, status: http.StatusUnprocessableEntity, name: "nothing-to-send", title: "No request was made out for this delivery", next: "Correct what kept it from being sent, then fire again."},
	{err: schema.ErrTokenExists, status: http.StatusConflict, name: "token-exists", title: "A token that is not revoked has this name", next: "Choose another name, or revoke that token first."},
	{err: schema.ErrInvalidToken, status: http.StatusUnprocessableEntity, name: "invalid", title: "The request is not valid", next: "Correct what errors points at and send it again; nothing was recorded.", detail: true},
	{err: schema.ErrInvalidSecret, status: http.StatusUnprocessableEntity, name: "invalid", title: "The request is not valid", next: "Correct what errors points at and send it again; nothing was recorded.", detail: true},
	{err: platforms.ErrSignature, status: http.StatusUnauthorized, name: "signature", title: "The webhook's signature does not verify", next: "Sign the raw body with the secret that the platform's policy names; nothing was recorded."},
	{err: platforms.ErrInbound, status: http.StatusBadRequest, name: "webhook-shape", title: "The webhook is not in its platform's shape", next: "Send what the platform documents; nothing was recorded.", detail: true},
	{err: reconciler.ErrNoWebhooks, status: http.StatusNotFound, name: "not-found", title: "Not found", next: "Check the name or id.", detail: true},
	{err: reconciler.ErrNotConnected, status: http.StatusNotFound, name: "not-connected", title: "The platform is not connected", next: "Give it a policy with PUT /v1/platforms/{name}.", detail: true},
	{err: platforms.ErrConnection, status: http.StatusUnprocessableEntity, name: "connection", title: "The platform's connection is incomplete", next: "Name the secrets and settings that it needs, and set the secrets first.", detail: true},
	{err: reconciler.ErrRunning, status: http.StatusConflict, name: "reconciliation-running", title: "A reconciliation of the platform is under way", next: "Wait for it, or stop it.", detail: true},
	{err: reconciler.ErrResolved, status: http.StatusConflict, name: "finding-resolved", title: "The finding is resolved already", next: "Read it: it says by whom and how."},
	{err: reconciler.ErrAction, status: http.StatusUnprocessableEntity, name: "invalid", title: "The request is not valid", next: "Choose another of the finding's actions.", detail: true},
	{err: intake.ErrInternalType, status: http.StatusUnprocessableEntity, name: "internal-event-type", title: "The event type is recorded by the ledger itself", next: "Send one of the accepted types; docs/events.md lists them."},
	{err: intake.ErrUnknownType, status: http.StatusUnprocessableEntity, name: "unknown-event-type", title: "Unknown event type", next: "Send one of the accepted types; docs/events.md lists them."},
	{err: catalogue.ErrSamePerson, status: http.StatusForbidden, name: "same-person", title: "The change takes two people", next: "Ask somebody else to approve it.", detail: true},
	{err: catalogue.ErrStale, status: http.StatusConflict, name: "proposal-stale", title: "The proposal cannot be approved any more", next: "Read the target, and propose the change again if it is still wanted.", detail: true},
	{err: trial.ErrNoContext, status: http.StatusUnprocessableEntity, name: "no-context", title: "There is no context to test with", next: "Give a context, name a past delivery, or write a sample into the target."},
	{err: trial.ErrNoReason, status: http.StatusUnprocessableEntity, name: "no-reason", title: "A past context is somebody's data", next: "Say in reason why you look at it; that is recorded."},
	{err: domain.ErrInvalid, status: http.StatusUnprocessableEntity, name: "invalid", title: "The request is not valid", next: "Correct what errors points at and send it again; nothing was recorded."},
	{err: schema.ErrTreeBehind, status: http.StatusNotFound, name: "not-covered-yet", title: "No checkpoint covers the event yet", next: "Try again after Retry-After; a checkpoint is signed every few seconds."},
	{err: schema.ErrNotFound, status: http.StatusNotFound, name: "not-found", title: "Not found", next: "Check the name or id."},
	{err: schema.ErrBusy, status: http.StatusServiceUnavailable, name: "busy", title: "The ledger is busy", next: "Send the same request again after Retry-After: a repeat is recognised."},
	{err: schema.ErrClosed, status: http.StatusServiceUnavailable, name: "shutting-down", title: "The service is shutting down", next: "Send the same request again after Retry-After: a repeat is recognised."},
	{err: schema.ErrBehind, status: http.StatusServiceUnavailable, name: "not-projected-yet", title: "The projections are not there yet", next: "Ask again after Retry-After, or without Ledger-Min-Position.", detail: true},
	{err: schema.ErrUnavailable, status: http.StatusServiceUnavailable, name: "unavailable", title: "The database is unavailable", next: "Send the same request again after Retry-After: a repeat is recognised, so nothing is recorded twice."},
}

// internal is the answer to everything else.
var internal = kind{err: errInternal, status: http.StatusInternalServerError, name: "internal", title: "Internal error", next: "Tell the operator the request_id; the log says more under it."}

func kindOf(sentinel error) kind {
	for _, k := range problems {
		if k.err == sentinel { //nolint:errorlint // looks a row up by its key
			return k
		}
	}
	return internal
}

// Problem is an answer in the form of RFC 9457.
type Problem struct {
	Type      string         `json:"type" doc:"A stable URN of the kind of problem." example:"urn:dispatch-ledger:problem:invalid"`
	Title     string         `json:"title" doc:"What kind of problem it is, the same for each occurrence."`
	Status    int            `json:"status" doc:"The HTTP status."`
	Detail    string         `json:"detail,omitempty" doc:"What is wrong this time, without repeating what was sent."`
	NextStep  string         `json:"next_step,omitempty" doc:"What to do about it."`
	RequestID string         `json:"request_id,omitempty" doc:"The id that the log has this request under."`
	Errors    []ProblemField `json:"errors,omitempty" doc:"What is wrong, field by field."`

	header http.Header
	cause  error // for the log; nil when there is nothing to add
}

// ProblemField is one thing that is wrong with what was sent.
type ProblemField struct {
	Index     *int   `json:"index,omitempty" doc:"Of the event in the request, from 0."`
	Pointer   string `json:"pointer" doc:"RFC 6901 JSON pointer: into the event, or into the body where there is no event. Empty is all of it."`
	Parameter string `json:"parameter,omitempty" doc:"The parameter that is wrong, such as query.limit; absent when it is the body."`
	Detail    string `json:"detail" doc:"What is wrong with it."`
	Line      int    `json:"line,omitempty" doc:"In a template, from 1."`
	Column    int    `json:"column,omitempty" doc:"In a template, from 1."`
}

// Error gives the title and detail.
func (p *Problem) Error() string { return strings.TrimSuffix(p.Title+": "+p.Detail, ": ") }

// Unwrap gives the error that it answers.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus is the HTTP status, for Huma.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders are the headers that go with it, for Huma.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType is that of RFC 9457, for Huma.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// problemOf makes the answer to an error. Problems pass through.
func problemOf(ctx context.Context, err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		p.RequestID = requestID(ctx)
		return p
	}
	p = kindFor(err).problem(err)
	p.RequestID = requestID(ctx)
	return p
}

// kindFor finds what an error answers.
func kindFor(err error) kind {
	for _, k := range problems {
		if errors.Is(err, k.err) {
			return k
		}
	}
	if schema.Transient(err) {
		return kindOf(schema.ErrUnavailable)
	}
	return internal
}

func (k kind) problem(err error) *Problem {
	p := &Problem{Type: urn + k.name, Title: k.title, Status: k.status, NextStep: k.next, header: http.Header{}, cause: err}
	if k.detail {
		p.Detail = err.Error()
	}
	switch {
	case k.status == http.StatusServiceUnavailable || errors.Is(k.err, schema.ErrTreeBehind):
		p.header.Set("Retry-After", strconv.Itoa(retryAfter))
	case k.status == http.StatusUnauthorized:
		p.header.Set("WWW-Authenticate", `Bearer realm="dispatch-ledger"`)
	}
	p.Errors = fields(err)
	if p.Errors != nil {
		p.Detail = ""
	}
	return p
}

// fields lists what an error points at.
func fields(err error) []ProblemField {
	var refused *intake.RefusedError
	var template *domain.TemplateError
	var rendering *domain.RenderError
	var invalid *domain.InvalidError
	var breaks *domain.BreaksError
	switch {
	case errors.As(err, &breaks):
		var out []ProblemField
		for _, handle := range slices.Sorted(maps.Keys(breaks.Targets)) {
			field := ProblemField{Detail: "target " + handle + ": " + breaks.Targets[handle].Error()}
			if errors.As(breaks.Targets[handle], &template) {
				field.Line, field.Column = template.Line, template.Column
			}
			out = append(out, field)
		}
		return out
	case errors.As(err, &refused):
		out := make([]ProblemField, len(refused.Refusals))
		for i, r := range refused.Refusals {
			out[i] = ProblemField{Index: &r.Index, Pointer: r.Pointer, Detail: r.Detail}
		}
		return out
	case errors.As(err, &template):
		return []ProblemField{{Pointer: template.Pointer, Detail: template.Message, Line: template.Line, Column: template.Column}}
	case errors.As(err, &rendering):
		return []ProblemField{{Pointer: "/" + rendering.Part, Detail: rendering.Message, Line: rendering.Line, Column: rendering.Column}}
	case errors.As(err, &invalid):
		return []ProblemField{{Pointer: invalid.Pointer, Detail: invalid.Message}}
	}
	return nil
}

// Huma keeps the function that makes its own errors in a variable. This one gives them the shape of ours and leaves
// out what Huma would repeat of the request. It does the same for every API of the process, so it is set once.
func init() { //nolint:gochecknoinits // Huma's extension point is a package variable
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		k := internal
		switch {
		case status == http.StatusRequestEntityTooLarge:
			k = kindOf(schema.ErrTooLarge)
		case status == http.StatusUnsupportedMediaType:
			k = kindOf(intake.ErrMediaType)
		case status == http.StatusRequestTimeout:
			k = kind{status: status, name: "timeout", title: "The request took too long to arrive", next: "Send it again, faster or smaller."}
		case status == http.StatusBadRequest:
			k = kindOf(intake.ErrNotJSON)
		case status >= 400 && status < 500:
			k = kindOf(domain.ErrInvalid)
		}
		p := &Problem{Type: urn + k.name, Title: k.title, Status: k.status, NextStep: k.next, header: http.Header{}}
		if k.status == 0 {
			p.Status = status
		}
		if status < 500 {
			p.Detail = message
		}
		for _, err := range errs {
			if err == nil || status >= 500 {
				continue
			}
			detailer, ok := err.(huma.ErrorDetailer)
			if !ok {
				continue
			}
			p.Errors = append(p.Errors, fieldAt(detailer.ErrorDetail()))
		}
		if status >= 500 {
			p.cause = errors.Join(append([]error{errors.New(message)}, errs...)...)
		}
		return p
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, message string, errs ...error) huma.StatusError {
		err := huma.NewError(status, message, errs...)
		var p *Problem
		if errors.As(err, &p) {
			p.RequestID = requestID(ctx.Context())
		}
		return err
	}
}

// fieldName is what the name of a field looks like, with its place in lists.
var fieldName = regexp.MustCompile(`^[a-z][A-Za-z0-9_-]{0,63}(\[\d+\])*$`)

// fieldAt turns Huma's location (body.items[3].name, query.limit) into ours, and leaves the value out. The name of a field that is not
// known here is the sender's own words: it is repeated where it reads like a field's, so that a misspelt one is found.
func fieldAt(d *huma.ErrorDetail) ProblemField {
	path, inBody := strings.CutPrefix(d.Location, "body")
	if !inBody {
		return ProblemField{Parameter: d.Location, Detail: d.Message}
	}
	if d.Message == validation.MsgUnexpectedProperty {
		names := strings.Split(strings.TrimPrefix(path, "."), ".")
		if odd := slices.IndexFunc(names, func(name string) bool { return !fieldName.MatchString(name) }); odd >= 0 {
			path, d = strings.TrimSuffix("."+strings.Join(names[:odd], "."), "."), &huma.ErrorDetail{Message: "unexpected property, whose name is left out because it does not read like a field's"}
		}
	}
	return ProblemField{Pointer: strings.NewReplacer(".", "/", "[", "/", "]", "").Replace(path), Detail: d.Message}
}

// writeProblem answers a request that no operation has seen.
func writeProblem(w http.ResponseWriter, p *Problem) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // a caller that is gone does not miss it
}
