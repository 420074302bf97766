package api

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (a *api) verificationRoutes() {
	register(a, huma.Operation{
		OperationID: "get-verification", Method: http.MethodGet, Path: "/v1/verification", Tags: []string{"Events"},
		Summary: "When was the ledger last verified, and did it hold?", Description: "And how far the verification has come that this process is at.",
	}, a.getVerification)
	register(a, huma.Operation{
		OperationID: "start-verification", Method: http.MethodPost, Path: "/v1/verification", Tags: []string{"Events"},
		Summary:       "Verify the whole ledger",
		Description:   "Recomputes every leaf, tile, root and signature from the rows, in the background of this process, and records the result as ledger.verified. One at a time.",
		DefaultStatus: http.StatusAccepted,
	}, a.startVerification)
	register(a, huma.Operation{
		OperationID: "get-evidence", Method: http.MethodGet, Path: "/v1/deliveries/{id}/evidence", Tags: []string{"Deliveries"},
		Summary:     "One file that proves a delivery's whole story, offline",
		Description: "Its events with their inclusion proofs under the newest checkpoint; sealed parts stand as a hash. Verify it with 'dispatch-ledger evidence verify FILE --key PUBLIC_KEY'.",
		Responses: map[string]*huma.Response{"200": {Description: "An evidence bundle.", Content: map[string]*huma.MediaType{
			"application/json": {Schema: &huma.Schema{Type: huma.TypeObject}},
		}}},
		Errors: []int{http.StatusNotFound},
	}, a.getEvidence)
}

// verifier is the verification that this process is at.
type verifier struct {
	mu       sync.Mutex
	running  bool
	progress schema.VerifyProgress
	failed   string // why the last one could not be ended
}

// Verification is the last one and the one under way.
type Verification struct {
	Last    *Verified `json:"last" doc:"Null: none was recorded."`
	Running bool      `json:"running" doc:"This process is at one."`
	Done    int64     `json:"done" doc:"Events, of the one under way."`
	Total   int64     `json:"total"`
	Rate    float64   `json:"events_per_second"`
	Left    float64   `json:"left_seconds"`
	Failed  *string   `json:"failed" doc:"Why the last one of this process could not be ended."`
}

// Verified is a verification that has ended.
type Verified struct {
	domain.LedgerVerified
	Position int64     `json:"position" doc:"Of the event that records it."`
	At       time.Time `json:"at"`
	By       string    `json:"by"`
}

type getVerificationOutput struct{ Body Verification }

func (a *api) getVerification(ctx context.Context, _ *struct{}) (*getVerificationOutput, error) {
	out := &getVerificationOutput{}
	recorded, err := audit.Events(ctx, a.DB, schema.Filter{Stream: domain.LedgerVerified{}.Stream(), Descending: true, Limit: 1})
	if err != nil {
		return nil, err
	}
	for _, r := range recorded {
		last := Verified{Position: r.Position, At: r.RecordedAt, By: r.Actor}
		if err := json.Unmarshal(r.Data, &last.LedgerVerified); err != nil {
			return nil, err
		}
		out.Body.Last = &last
	}
	a.verifier.mu.Lock()
	defer a.verifier.mu.Unlock()
	p := a.verifier.progress
	out.Body.Running, out.Body.Done, out.Body.Total, out.Body.Rate, out.Body.Left = a.verifier.running, p.Done, p.Total, p.Rate, p.Left.Seconds()
	out.Body.Failed = optional(a.verifier.failed)
	return out, nil
}

func (a *api) startVerification(ctx context.Context, _ *struct{}) (*struct{}, error) {
	a.verifier.mu.Lock()
	defer a.verifier.mu.Unlock()
	if a.verifier.running {
		return nil, nil
	}
	a.verifier.running, a.verifier.progress, a.verifier.failed = true, schema.VerifyProgress{}, ""
	// It outlives the request, and ends with the process: nothing is lost but the time.
	go a.verify(context.WithoutCancel(ctx))
	return nil, nil
}

func (a *api) verify(ctx context.Context) {
	report, err := schema.Verify(ctx, a.DB, schema.VerifyOptions{Anchors: a.Anchors, Workers: 1, Clock: a.Clock, Progress: func(p schema.VerifyProgress) {
		a.verifier.mu.Lock()
		defer a.verifier.mu.Unlock()
		a.verifier.progress = p
	}})
	if err == nil {
		result := domain.LedgerVerified{Size: report.To, Holds: report.OK(), Problems: len(report.Problems) + report.More, Seconds: int64(report.Took.Seconds()), Checkpoints: report.Checkpoints}
		if !report.OK() {
			result.First = report.Problems[0].String()
		}
		err = a.recordBy(ctx, result)
	}
	a.verifier.mu.Lock()
	defer a.verifier.mu.Unlock()
	a.verifier.running = false
	if err != nil {
		a.Log.ErrorContext(ctx, "the ledger could not be verified", slog.Any("error", err))
		a.verifier.failed = "it could not be ended; the log says why"
	}
}

// recordBy appends an event in the name of whoever makes the request.
func (a *api) recordBy(ctx context.Context, payload domain.Payload) error {
	event, _, err := domain.New(uuid.New(), payload)
	if err != nil {
		return err
	}
	event.Actor, event.Source, event.OccurredAt = PrincipalOf(ctx).Name, source, a.Clock()
	_, err = a.Ledger.Append(ctx, event)
	return err
}

func (a *api) getEvidence(ctx context.Context, in *getDeliveryInput) (*textOutput, error) {
	id, err := parseUUID("path.id", in.ID)
	if err != nil {
		return nil, err
	}
	bundle, err := schema.CollectEvidence(ctx, a.DB, id, schema.EvidenceOptions{})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := bundle.Write(&out); err != nil {
		return nil, err
	}
	return &textOutput{ContentType: "application/json", Body: out.Bytes()}, nil
}
