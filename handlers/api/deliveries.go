package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

func (a *api) deliveryRoutes() {
	tags := []string{"Deliveries"}
	register(a, huma.Operation{
		OperationID: "list-deliveries", Method: http.MethodGet, Path: "/v1/deliveries", Tags: tags,
		Summary: "What was sent, and what was not", Description: "Newest first. Filters combine.", Errors: []int{http.StatusUnprocessableEntity},
	}, a.listDeliveries)
	register(a, huma.Operation{
		OperationID: "get-delivery", Method: http.MethodGet, Path: "/v1/deliveries/{id}", Tags: tags,
		Summary: "Read one delivery, with every attempt", Errors: []int{http.StatusNotFound},
	}, a.getDelivery)
}

// Firing is what a delivery answers.
type Firing struct {
	ID       uuid.UUID `json:"id"`
	Position int64     `json:"position"`
	Reaction string    `json:"reaction"`
	Cause    string    `json:"cause" doc:"reaction, automation, incentive, manual or test"`
	Trigger  *string   `json:"trigger" doc:"The CRM event behind it."`
}

// DeliveryTarget is the target's version that a delivery was planned with.
type DeliveryTarget struct {
	Handle   string  `json:"handle"`
	Version  *int64  `json:"version" doc:"Null when there was no such target."`
	Platform *string `json:"platform"`
}

// DeliverySummary is a delivery in a list.
type DeliverySummary struct {
	ID            uuid.UUID           `json:"id"`
	Position      int64               `json:"position" doc:"Of the event that answered the firing."`
	Firing        Firing              `json:"firing"`
	Target        DeliveryTarget      `json:"target"`
	ProfileID     *uuid.UUID          `json:"profile_id" nullable:"true"`
	Outcome       domain.Outcome      `json:"outcome" enum:"pending,sending,retrying,held,succeeded,failed,withheld,rejected,cancelled,expired"`
	Reason        *string             `json:"reason" doc:"Why it was not sent, or failed: a code."`
	Detail        *string             `json:"detail" doc:"The same in a sentence."`
	PlannedAt     time.Time           `json:"planned_at"`
	FinishedAt    *time.Time          `json:"finished_at"`
	NextAttemptAt *time.Time          `json:"next_attempt_at"`
	Consent       *domain.Decision    `json:"consent" doc:"What the target's consent rule answered, and by which event."`
	Unresolved    []domain.Unresolved `json:"unresolved" nullable:"false" doc:"Variables that the context lacked."`
	BodySHA256    *string             `json:"body_sha256" doc:"Hex, of the rendered body with its secrets masked."`
	Against       *string             `json:"against" doc:"It was sent although the person's answer was against it: why the decision flagged it, such as opted_out."`
	AttemptsMade  int                 `json:"attempts_made"`
	AttemptsMax   int                 `json:"attempts_max"`
}

// Delivery is a delivery with all that is known of it.
type Delivery struct {
	DeliverySummary
	Request  *Sealed   `json:"request" doc:"URL, headers and body; null when nothing was to be sent."`
	Attempts []Attempt `json:"attempts" nullable:"false"`
}

// Attempt is one request to a platform.
type Attempt struct {
	Attempt       int               `json:"attempt" doc:"From 1."`
	StartedAt     time.Time         `json:"started_at"`
	DurationMS    *float64          `json:"duration_ms" doc:"Milliseconds; null when nobody knows."`
	Status        *int              `json:"status" doc:"HTTP status; null when no answer arrived."`
	Verdict       domain.Verdict    `json:"verdict" enum:"accepted,duplicate,partial,retry,permanent,refused,auth_expired,network_error,timeout,lost"`
	Reason        *string           `json:"reason"`
	Outcome       domain.Outcome    `json:"outcome" doc:"What the delivery was from then on."`
	NextAttemptAt *time.Time        `json:"next_attempt_at"`
	Address       *string           `json:"address" doc:"The IP address and port that it went to."`
	Worker        *string           `json:"worker" doc:"The process that made it."`
	Consent       *domain.Decision  `json:"consent" doc:"What the consent rule answered for this attempt, where it differs from the plan's."`
	Timings       *domain.Timings   `json:"timings" doc:"Where the time went; null when no connection was asked for."`
	BodySHA256    *string           `json:"body_sha256" doc:"Hex, of the body as it was sent, secrets and idempotency key included."`
	RateLimit     *domain.RateLimit `json:"rate_limit,omitempty" doc:"What the platform's rate-limit headers said. Absent when it sent none, and once the attempt is archived."`
	Probe         bool              `json:"probe" doc:"It tried whether a paused target answers again."`
	Request       *Sealed           `json:"request" doc:"Headers as they were sent, secrets masked; null when no request was made out."`
	Response      *Sealed           `json:"response" doc:"Headers and body of the answer; null when none arrived."`
	Position      int64             `json:"position"`
}

func summaryOf(d deliveries.Delivery) DeliverySummary {
	s := DeliverySummary{
		ID: d.ID, Position: d.Position, ProfileID: optional(d.Firing.ProfileID), Outcome: d.Outcome, Reason: optional(d.Reason), Detail: optional(d.Detail),
		PlannedAt: d.PlannedAt.UTC(), FinishedAt: utcOf(d.FinishedAt), NextAttemptAt: utcOf(d.NextAttemptAt),
		Consent: d.Consent, Unresolved: d.Unresolved, BodySHA256: optional(d.BodySHA256), Against: optional(d.Against), AttemptsMade: d.Attempts, AttemptsMax: d.MaxAttempts,
	}
	f := d.Firing
	s.Firing = Firing{ID: f.FiringID, Position: f.FiringPosition, Reaction: f.Reaction, Cause: f.Cause, Trigger: optional(f.Trigger)}
	s.Target = DeliveryTarget{Handle: f.Target, Version: optional(f.TargetVersion), Platform: optional(f.Platform)}
	if s.Unresolved == nil {
		s.Unresolved = []domain.Unresolved{}
	}
	return s
}

type listDeliveriesInput struct {
	Paging
	Target   string `query:"target" doc:"Handle of the target."`
	Profile  string `query:"profile" format:"uuid" doc:"The person, by the CRM's id."`
	Reaction string `query:"reaction" doc:"Handle of the reaction."`
	Outcome  string `query:"outcome" doc:"One outcome, or several with commas."`
	Platform string `query:"platform"`
	Version  int64  `query:"version" minimum:"1" doc:"Of the target."`
	Reason   string `query:"reason" doc:"Why it was withheld or rejected: a code, such as consent or unresolved."`
	Against  string `query:"against" enum:"opted_out,any" doc:"Sent although the person's answer was against it, by the decision on the delivery: opted_out, or any (never asked, too)."`
	From     string `query:"from" format:"date-time" doc:"Planned at this time or later."`
	To       string `query:"to" format:"date-time" doc:"Planned before this time."`
}

func (a *api) listDeliveries(ctx context.Context, in *listDeliveriesInput) (*Listed[DeliverySummary], error) {
	f := deliveries.Filter{Target: in.Target, Reaction: in.Reaction, Platform: in.Platform, Version: in.Version, Reason: in.Reason, Limit: in.Limit + 1}
	switch in.Against {
	case "opted_out":
		f.Against = deliveries.AgainstOptOut
	case "any":
		f.Against = deliveries.AgainstAny
	}
	var err error
	if f.Before, err = positionCursor("deliveries", in.Cursor); err != nil {
		return nil, err
	}
	if f.Profile, err = parseUUID("query.profile", in.Profile); err != nil {
		return nil, err
	}
	if f.From, f.To, err = parsePeriod(in.From, in.To); err != nil {
		return nil, err
	}
	if in.Platform != "" && !slices.Contains(domain.Platforms, in.Platform) {
		return nil, badParameter("query.platform", "is none of %s", strings.Join(domain.Platforms, ", "))
	}
	if in.Outcome != "" {
		for name := range strings.SplitSeq(in.Outcome, ",") {
			if !slices.Contains(domain.Outcomes, domain.Outcome(name)) {
				return nil, badParameter("query.outcome", "is none of %v", domain.Outcomes)
			}
			f.Outcomes = append(f.Outcomes, domain.Outcome(name))
		}
	}
	found, err := deliveries.List(ctx, a.reads(ctx), f)
	if err != nil {
		return nil, err
	}
	items := make([]DeliverySummary, len(found))
	for i, d := range found {
		items[i] = summaryOf(d)
	}
	return &Listed[DeliverySummary]{Body: pageOf("deliveries", items, in.Limit, func(d DeliverySummary) string { return strconv.FormatInt(d.Position, 10) })}, nil
}

type getDeliveryInput struct {
	ID string `path:"id" format:"uuid"`
}

type getDeliveryOutput struct{ Body Delivery }

func (a *api) getDelivery(ctx context.Context, in *getDeliveryInput) (*getDeliveryOutput, error) {
	id, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	d, err := deliveries.Get(ctx, a.reads(ctx), id)
	if err != nil {
		return nil, err
	}
	sealed, err := a.sealedOf(ctx, id)
	if err != nil {
		return nil, err
	}
	return &getDeliveryOutput{Body: deliveryOf(d, sealed)}, nil
}

// deliveryOf shows a delivery with what is sealed of its events, by position.
func deliveryOf(d deliveries.Delivery, sealed map[int64]*Sealed) Delivery {
	out := Delivery{DeliverySummary: summaryOf(d), Attempts: make([]Attempt, len(d.Trail))}
	if d.BodySHA256 != "" { // a request was made out
		out.Request = sealed[d.Position]
	}
	for i, t := range d.Trail {
		out.Attempts[i] = Attempt{
			Attempt: t.Attempt, StartedAt: t.StartedAt.UTC(), DurationMS: t.DurationMS, Status: optional(t.Status), Verdict: t.Verdict, Reason: optional(t.Reason),
			Outcome: t.Outcome, NextAttemptAt: utcOf(t.NextAttemptAt), Address: optional(t.Address), Worker: optional(t.Worker), Consent: t.Consent, Position: t.Position,
		}
		a := &out.Attempts[i]
		a.RateLimit = t.RateLimit
		a.Timings, a.BodySHA256, a.Probe = t.Timings, optional(t.BodySHA256), t.Probe
		if t.BodySHA256 != "" {
			a.Request = sealed[t.Position]
		}
		if t.Status != 0 {
			out.Attempts[i].Response = sealed[t.Position]
		}
	}
	return out
}
