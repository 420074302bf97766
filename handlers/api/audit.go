package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

func (a *api) auditRoutes() {
	tags := []string{"Audit"}
	register(a, huma.Operation{
		OperationID: "audit-outcomes", Method: http.MethodGet, Path: "/v1/audit/outcomes", Tags: tags,
		Summary:     "How many deliveries, by outcome",
		Description: "Of those planned in a period, which is widened to whole quarters of an hour: by reaction, target, version of a target, quarter of an hour or day.",
	}, a.auditOutcomes)
	register(a, huma.Operation{
		OperationID: "audit-unknown-outcomes", Method: http.MethodGet, Path: "/v1/audit/unknown-outcomes", Tags: tags,
		Summary:     "Which requests have an unknown outcome?",
		Description: "Those whose process died after their intent was recorded, and those that were not answered in time: the platform may or may not have taken them. Newest first.",
	}, a.auditUnknown)
	register(a, huma.Operation{
		OperationID: "audit-consent-changes", Method: http.MethodGet, Path: "/v1/audit/consent-changes", Tags: tags,
		Summary: "Consent changes of a kind", Description: "By what was answered, who decided, how and from where. Filters combine. Newest first.",
	}, a.auditConsentChanges)
}

type auditOutcomesInput struct {
	Target   string `query:"target" doc:"Handle of the target."`
	Version  int64  `query:"version" minimum:"1" doc:"Version of the target."`
	Reaction string `query:"reaction" doc:"Handle of the reaction."`
	Platform string `query:"platform"`
	From     string `query:"from" format:"date-time"`
	To       string `query:"to" format:"date-time"`
	By       string `query:"by" enum:"none,reaction,target,version,period,day" default:"none" doc:"What to count apart; day is one in UTC, and widens the period to whole days."`
}

func (a *api) auditOutcomes(ctx context.Context, in *auditOutcomesInput) (*Listed[deliveries.Count], error) {
	f := deliveries.CountFilter{Target: in.Target, Version: in.Version, Reaction: in.Reaction, Platform: in.Platform}
	var err error
	if f.From, f.To, err = parsePeriod(in.From, in.To); err != nil {
		return nil, err
	}
	counts, err := deliveries.Counts(ctx, a.reads(ctx), f, deliveries.By(in.By))
	if err != nil {
		return nil, err
	}
	return &Listed[deliveries.Count]{Body: Page[deliveries.Count]{Items: counts}}, nil
}

// Unknown is a request of which nobody knows whether the platform took it.
type Unknown struct {
	DeliveryID uuid.UUID      `json:"delivery_id"`
	Attempt    int            `json:"attempt"`
	Position   int64          `json:"position" doc:"Of the event that says so."`
	Verdict    domain.Verdict `json:"verdict" enum:"lost,timeout"`
	At         time.Time      `json:"at" doc:"When the request left, or was claimed."`
	Worker     *string        `json:"worker"`
	Outcome    domain.Outcome `json:"outcome" doc:"What the delivery is now."`
	Target     string         `json:"target"`
	Reaction   string         `json:"reaction"`
	ProfileID  *uuid.UUID     `json:"profile_id" nullable:"true"`
}

type auditUnknownInput struct {
	Paging
	Open bool `query:"open" doc:"Leave out those whose delivery succeeded later."`
}

func (a *api) auditUnknown(ctx context.Context, in *auditUnknownInput) (*Listed[Unknown], error) {
	before, err := positionCursor("unknown", in.Cursor)
	if err != nil {
		return nil, err
	}
	found, err := deliveries.Unknown(ctx, a.reads(ctx), before, in.Open, in.Limit+1)
	if err != nil {
		return nil, err
	}
	items := make([]Unknown, len(found))
	for i, u := range found {
		f := u.Delivery.Firing
		items[i] = Unknown{
			DeliveryID: u.Delivery.ID, Attempt: u.Attempt, Position: u.Position, Verdict: u.Verdict, At: u.At.UTC(), Worker: optional(u.Worker),
			Outcome: u.Delivery.Outcome, Target: f.Target, Reaction: f.Reaction, ProfileID: optional(f.ProfileID),
		}
	}
	return &Listed[Unknown]{Body: pageOf("unknown", items, in.Limit, func(u Unknown) string { return strconv.FormatInt(u.Position, 10) })}, nil
}

type auditConsentInput struct {
	Paging
	Channel   string `query:"channel" enum:"email,sms,push,phone,post"`
	Purpose   string `query:"purpose" enum:"all,promo,discover,benefits,reminders,account,bookings,feedback,location,service"`
	Status    string `query:"status" enum:"opted_in,opted_out,unknown"`
	DecidedBy string `query:"decided_by" enum:"customer,staff,admin,import,platform"`
	Method    string `query:"method" doc:"Such as preference_centre, pos or sms_keyword."`
	Source    string `query:"source" doc:"Of the event, with {id} for each id in it."`
	From      string `query:"from" format:"date-time" doc:"Recorded at this time or later."`
	To        string `query:"to" format:"date-time" doc:"Recorded before this time."`
}

func (a *api) auditConsentChanges(ctx context.Context, in *auditConsentInput) (*Listed[audit.RecordedChange], error) {
	f := audit.ConsentFilter{Limit: in.Limit + 1, Kind: audit.ConsentKind{
		Channel: domain.Channel(in.Channel), Purpose: domain.Purpose(in.Purpose), Status: domain.ConsentStatus(in.Status), DecidedBy: in.DecidedBy, Method: in.Method, Source: in.Source,
	}}
	var err error
	if f.From, f.To, err = parsePeriod(in.From, in.To); err != nil {
		return nil, err
	}
	key, err := decodeCursor("consent-changes", in.Cursor)
	if err != nil {
		return nil, err
	}
	if key != "" {
		parts := strings.Split(key, "/")
		position, err := strconv.ParseInt(parts[0], 10, 64)
		if err != nil || len(parts) != 3 {
			return nil, errBadCursor
		}
		f.Before = audit.Place{Position: position, Channel: domain.Channel(parts[1]), Purpose: domain.Purpose(parts[2])}
	}
	found, err := audit.ConsentChanges(ctx, a.reads(ctx), f)
	if err != nil {
		return nil, err
	}
	return &Listed[audit.RecordedChange]{Body: pageOf("consent-changes", found, in.Limit, func(c audit.RecordedChange) string {
		return strconv.FormatInt(c.Position, 10) + "/" + string(c.Channel) + "/" + string(c.Purpose)
	})}, nil
}
