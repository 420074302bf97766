package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
)

func (a *api) consentPolicyRoutes(tags []string) {
	register(a, huma.Operation{
		OperationID: "get-consent-policy", Method: http.MethodGet, Path: "/v1/consent/policy", Tags: tags,
		Summary:     "What does the ledger make of legacy consent?",
		Description: "What happens to a promotional message when nobody was ever asked, whether imported opt-ins count, and by when an opt-out must have had its effect. Position 0 is the default policy.",
	}, a.getConsentPolicy)
	register(a, huma.Operation{
		OperationID: "put-consent-policy", Method: http.MethodPut, Path: "/v1/consent/policy", Tags: tags,
		Summary:     "Change it",
		Description: "The change is an event; every decision from then on says that it was made under it. If-Match takes the position of the policy that was read, so that nobody's change is lost.",
		Errors:      []int{http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusPreconditionFailed, http.StatusRequestEntityTooLarge},
	}, a.putConsentPolicy)
}

// ConsentPolicy is the policy in force.
type ConsentPolicy struct {
	NeverAsked string           `json:"never_asked" enum:"withhold,send" doc:"What a promotional message does without any answer."`
	Channels   []domain.Channel `json:"channels,omitempty" doc:"Channels that send applies to; absent for all."`
	Until      *time.Time       `json:"until,omitempty" doc:"When send ends; required with it."`
	Imported   string           `json:"imported" enum:"accept,withhold" doc:"Whether an opt-in by an import or an administrator, without the customer's own time, is enough."`
	Promptness domain.Deadline  `json:"promptness" doc:"By when an opt-out must have had its effect."`
	Reason     string           `json:"reason,omitempty" maxLength:"2000" doc:"Why, in words."`
}

func (p ConsentPolicy) domain() domain.ConsentPolicy {
	d := domain.ConsentPolicy{NeverAsked: p.NeverAsked, Channels: p.Channels, Imported: p.Imported, Promptness: p.Promptness, Reason: p.Reason}
	if p.Until != nil {
		d.Until = p.Until.UTC()
	}
	return d
}

type consentPolicyOutput struct {
	ETag string `header:"ETag"`
	Body struct {
		ConsentPolicy
		Position int64 `json:"position" doc:"Of the event that made it; 0 for the default policy."`
	}
}

func policyTag(position int64) string { return strconv.Quote(strconv.FormatInt(position, 10)) }

func policyOutput(p domain.PolicyInForce) *consentPolicyOutput {
	out := &consentPolicyOutput{ETag: policyTag(p.Position)}
	out.Body.Position = p.Position
	out.Body.ConsentPolicy = ConsentPolicy{
		NeverAsked: p.NeverAsked, Channels: p.Channels, Until: utc(p.Until), Imported: p.Imported, Promptness: p.Promptness, Reason: p.Reason,
	}
	return out
}

func (a *api) getConsentPolicy(ctx context.Context, _ *struct{}) (*consentPolicyOutput, error) {
	p, err := consent.Policy(ctx, a.DB)
	if err != nil {
		return nil, err
	}
	return policyOutput(p), nil
}

type putConsentPolicyInput struct {
	IfMatch string `header:"If-Match" doc:"The ETag of the policy that was read."`
	Body    ConsentPolicy
}

func (a *api) putConsentPolicy(ctx context.Context, in *putConsentPolicyInput) (*consentPolicyOutput, error) {
	now, err := consent.Policy(ctx, a.DB)
	if err != nil {
		return nil, err
	}
	conditional := in.IfMatch != "" && in.IfMatch != "*"
	if conditional && in.IfMatch != policyTag(now.Position) {
		return nil, fmt.Errorf("%w: it is %s", errPrecondition, policyTag(now.Position))
	}
	changed := domain.ConsentPolicyChanged{ConsentPolicy: in.Body.domain()}
	e, _, err := domain.New(uuid.New(), changed)
	if err != nil {
		return nil, err
	}
	e.Actor, e.Source, e.OccurredAt = PrincipalOf(ctx).Name, source+"/v1/consent/policy", a.Clock().UTC()
	if conditional {
		version, err := consent.PolicyVersion(ctx, a.DB, now.Position)
		if err != nil {
			return nil, err
		}
		e.Expected = &version
	}
	appended, err := a.Ledger.Append(ctx, e)
	if err != nil {
		return nil, err
	}
	return policyOutput(domain.PolicyInForce{ConsentPolicy: changed.ConsentPolicy, Position: appended[0].Position}), nil
}
