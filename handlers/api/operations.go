package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
	"github.com/dispatch-ledger/dispatch-ledger/projections/promptness"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// Service is the API's operations, for programs over HTTP and for the console, which calls them as they are.
type Service struct{ a *api }

// Open makes the service. It fails on a mistake in the configuration or in the tables of this package.
func Open(c Config) (*Service, error) {
	a, err := newAPI(c)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return &Service{a: a}, nil
}

// Handler serves the API over HTTP, and the fallback on the paths that are not the API's. Nil: they are not found.
func (s *Service) Handler(fallback http.Handler) http.Handler {
	if fallback != nil {
		s.a.Fallback = fallback
	}
	return s.a.handler()
}

// May reports whether a role may use an operation.
func May(role schema.Role, operation string) bool {
	r, ok := access[operation]
	return ok && r.allows(role)
}

// Roles names the roles that may use an operation, for people.
func Roles(operation string) string { return access[operation].names() }

// Problem gives the answer to an error, as programs get it, and logs what only the operator may know.
func (s *Service) Problem(ctx context.Context, err error) *Problem { return s.a.problem(ctx, err) }

// Admit authenticates a token as the API does: with the same lockout, for any role.
func (s *Service) Admit(ctx context.Context, token, remoteAddr string) (Principal, error) {
	who, err := s.a.doorman.admit(ctx, "Bearer "+token, remoteAddr, only(schema.Roles...))
	if errors.Is(err, errUnauthenticated) || errors.Is(err, errLocked) {
		s.a.metrics.refused.Inc()
	}
	return who, err
}

// Locked is the answer to an address that failed too often to sign in, by whatever way; nil for one that may try.
func (s *Service) Locked(ctx context.Context, remoteAddr string) *Problem {
	err := s.a.doorman.locked(host(remoteAddr))
	if err == nil {
		return nil
	}
	s.a.metrics.refused.Inc()
	return s.a.problem(ctx, err)
}

// Failed counts a failure to sign in against an address, as one with a token is counted.
func (s *Service) Failed(remoteAddr string) {
	s.a.metrics.refused.Inc()
	s.a.doorman.failed(host(remoteAddr))
}

// Operation is one of the API's, to be called from Go. What the API's description says of parameters, such as the bounds of
// limit, is the caller's to keep.
type Operation[I, O any] struct{ ID string }

// In gives the operation's parameters, to be filled in.
func (o Operation[I, O]) In() *I { return new(I) }

// May reports whether a role may use the operation.
func (o Operation[I, O]) May(role schema.Role) bool { return May(role, o.ID) }

// Call runs the operation in somebody's name, under the rule that holds for it over HTTP. An error is a [*Problem].
func (o Operation[I, O]) Call(ctx context.Context, s *Service, who Principal, in *I) (*O, error) {
	handle, ok := s.a.calls[o.ID].(func(context.Context, *I) (*O, error))
	if !ok {
		return nil, s.a.problem(ctx, fmt.Errorf("%w: operation %s is not registered with these types", errInternal, o.ID))
	}
	if r := access[o.ID]; !r.allows(who.Role) {
		return nil, s.a.problem(ctx, fmt.Errorf("%w: it is %s, and this takes %s", errForbidden, who.Role, r.names()))
	}
	out, err := handle(context.WithValue(ctx, principalKey{}, who), in)
	if err != nil {
		return nil, s.a.problem(ctx, err)
	}
	return out, nil
}

// The operations that the console calls.
var (
	ListDeliveries      = Operation[listDeliveriesInput, Listed[DeliverySummary]]{"list-deliveries"}
	GetDelivery         = Operation[getDeliveryInput, getDeliveryOutput]{"get-delivery"}
	RetryDelivery       = Operation[retryDeliveryInput, retryDeliveryOutput]{"retry-delivery"}
	CancelDelivery      = Operation[cancelDeliveryInput, struct{}]{"cancel-delivery"}
	ReplayDeliveries    = Operation[replayInput, replayOutput]{"replay-deliveries"}
	ListReplays         = Operation[Paging, Listed[Replay]]{"list-replays"}
	GetReplay           = Operation[oneReplayInput, oneReplayOutput]{"get-replay"}
	CancelReplay        = Operation[oneReplayInput, struct{}]{"cancel-replay"}
	ListEvents          = Operation[listEventsInput, Listed[Event]]{"list-events"}
	GetEvent            = Operation[getEventInput, getEventOutput]{"get-event"}
	GetProof            = Operation[getEventInput, textOutput]{"get-proof"}
	ListTargets         = Operation[listTargetsInput, Listed[Target]]{"list-targets"}
	GetTarget           = Operation[TargetInput, targetOutput]{"get-target"}
	PutTarget           = Operation[putTargetInput, targetOutput]{"put-target"}
	DeleteTarget        = Operation[deleteTargetInput, struct{}]{"delete-target"}
	DisableTarget       = Operation[switchTargetInput, targetOutput]{"disable-target"}
	EnableTarget        = Operation[switchTargetInput, targetOutput]{"enable-target"}
	ListTargetVersions  = Operation[listTargetVersionsInput, Listed[Target]]{"list-target-versions"}
	PreviewTarget       = Operation[previewTargetInput, previewTargetOutput]{"preview-target"}
	MoveTarget          = Operation[moveTargetInput, targetOutput]{"move-target"}
	RollBackTarget      = Operation[rollBackTargetInput, targetOutput]{"roll-back-target"}
	TestTarget          = Operation[testTargetInput, testTargetOutput]{"test-target"}
	OpenPastContext     = Operation[openPastContextInput, openPastContextOutput]{"open-past-context"}
	ListProposals       = Operation[listProposalsInput, Listed[Proposal]]{"list-proposals"}
	ListTargetProposals = Operation[listTargetProposalsInput, Listed[Proposal]]{"list-target-proposals"}
	ApproveProposal     = Operation[decideInput, targetOutput]{"approve-target-proposal"}
	DeclineProposal     = Operation[decideInput, proposalOutput]{"decline-target-proposal"}
	GetConsent          = Operation[getConsentInput, getConsentOutput]{"get-consent"}
	GetConsentHistory   = Operation[getConsentHistoryInput, Listed[consent.Entry]]{"get-consent-history"}
	PutConsent          = Operation[putConsentInput, putConsentOutput]{"put-consent"}
	ListSuppressions    = Operation[RunInput, Listed[ListedAddress]]{"list-profile-suppressions"}
	AccessPage          = Operation[accessProfileInput, accessPageOutput]{"access-page"}
	AuditOutcomes       = Operation[auditOutcomesInput, Listed[deliveries.Count]]{"audit-outcomes"}
	AuditUnknown        = Operation[auditUnknownInput, Listed[Unknown]]{"audit-unknown-outcomes"}
	AuditConsentChanges = Operation[auditConsentInput, Listed[audit.RecordedChange]]{"audit-consent-changes"}
	ListProjections     = Operation[struct{ Paging }, Listed[projections.Status]]{"list-projections"}
	RebuildProjection   = Operation[ReaderInput, struct{}]{"rebuild-projection"}
	ResumeReader        = Operation[ReaderInput, struct{}]{"resume-reader"}
	SkipEvent           = Operation[skipEventInput, skipEventOutput]{"skip-event"}
	GetVerification     = Operation[struct{}, getVerificationOutput]{"get-verification"}
	StartVerification   = Operation[struct{}, struct{}]{"start-verification"}
	GetEvidence         = Operation[getDeliveryInput, textOutput]{"get-evidence"}
	RevealDelivery      = Operation[revealDeliveryInput, getDeliveryOutput]{"reveal-delivery"}
	RevealEvent         = Operation[revealEventInput, getEventOutput]{"reveal-event"}
	EraseProfile        = Operation[eraseProfileInput, eraseProfileOutput]{"erase-profile"}
	ListQueue           = Operation[struct{}, listQueueOutput]{"list-queue"}
	PauseTarget         = Operation[pauseTargetInput, struct{}]{"pause-target"}
	ResumeTarget        = Operation[resumeTargetInput, struct{}]{"resume-target"}
	ListReconciliations = Operation[listReconciliationsInput, Listed[suppressions.Run]]{"list-reconciliations"}
	GetReconciliation   = Operation[RunInput, runOutput]{"get-reconciliation"}
	ListRunFindings     = Operation[listRunFindingsInput, Listed[suppressions.Difference]]{"list-reconciliation-findings"}
	ApproveRun          = Operation[decideRunInput, struct{}]{"approve-reconciliation"}
	StopRun             = Operation[decideRunInput, struct{}]{"stop-reconciliation"}
	ListPlatforms       = Operation[struct{ Paging }, Listed[Platform]]{"list-platforms"}
	GetPlatform         = Operation[PlatformInput, platformOutput]{"get-platform"}
	PutPlatform         = Operation[putPlatformInput, platformOutput]{"put-platform"}
	ListOptOuts         = Operation[listOptOutsInput, Listed[promptness.OptOut]]{"list-opt-outs"}
	SumOptOuts          = Operation[Span, sumOptOutsOutput]{"sum-opt-outs"}
	GetConsentPolicy    = Operation[struct{}, consentPolicyOutput]{"get-consent-policy"}
	PutConsentPolicy    = Operation[putConsentPolicyInput, consentPolicyOutput]{"put-consent-policy"}
	ListRetentions      = Operation[struct{}, listRetentionsOutput]{"list-retentions"}
	PutRetention        = Operation[putRetentionInput, putRetentionOutput]{"put-retention"}
	StartReconciliation = Operation[startReconciliationInput, startReconciliationOutput]{"start-reconciliation"}
	ListFindings        = Operation[listFindingsInput, Listed[suppressions.Finding]]{"list-findings"}
	ResolveFinding      = Operation[resolveFindingInput, resolveFindingOutput]{"resolve-finding"}
	ResolveFindings     = Operation[resolveFindingsInput, resolveFindingsOutput]{"resolve-findings"}
	ListTokens          = Operation[listTokensInput, Listed[schema.Token]]{"list-tokens"}
	CreateToken         = Operation[createTokenInput, createTokenOutput]{"create-token"}
	RevokeToken         = Operation[revokeTokenInput, struct{}]{"revoke-token"}
	ListSecrets         = Operation[listSecretsInput, Listed[schema.SecretInfo]]{"list-secrets"}
	PutSecret           = Operation[putSecretInput, struct{}]{"put-secret"}
)
