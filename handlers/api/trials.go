package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/trial"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (a *api) trialRoutes() {
	tags := []string{"Targets"}
	register(a, huma.Operation{
		OperationID: "test-target", Method: http.MethodPost, Path: "/v1/targets/{handle}/test", Tags: tags,
		Summary: "Try a target out",
		Description: "Renders the target, one of its versions or a draft with a context, with a past delivery's, or with the target's own sample. To the inspector, nothing leaves: the request is made as it would leave, " +
			"with dots in the place of secrets, and can be looked at. To the url, it is a firing with the cause test, of the target as it is: consent is asked, and it is recorded like every delivery.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[TestRequest](), true, "TestRequest")},
		}},
		Responses: map[string]*huma.Response{"202": {Description: "At the url: nothing came of it yet; ask for the delivery later."}},
		Errors:    []int{http.StatusNotFound, http.StatusConflict},
	}, a.testTarget)
	register(a, huma.Operation{
		OperationID: "list-bins", Method: http.MethodGet, Path: "/v1/inspector", Tags: tags,
		Summary: "List the inspector's bins",
	}, a.listBins)
	register(a, huma.Operation{
		OperationID: "create-bin", Method: http.MethodPost, Path: "/v1/inspector", Tags: tags,
		Summary: "Make a bin of the inspector", Description: "A place that requests can be sent to and looked at, until it expires.",
		DefaultStatus: http.StatusCreated, Errors: []int{http.StatusBadRequest},
	}, a.createBin)
	register(a, huma.Operation{
		OperationID: "list-bin-requests", Method: http.MethodGet, Path: "/v1/inspector/{bin}/requests", Tags: tags,
		Summary: "Read what reached a bin", Description: "In order. A bin keeps the newest 200, and of each body 256 KiB.", Errors: []int{http.StatusNotFound},
	}, a.listBinRequests)
	register(a, huma.Operation{
		OperationID: "delete-bin", Method: http.MethodDelete, Path: "/v1/inspector/{bin}", Tags: tags,
		Summary: "Drop a bin, with all that reached it", DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound},
	}, a.deleteBin)
	a.pastContextRoutes()
}

// TestRequest is what is to be tried out.
type TestRequest struct {
	Context  json.RawMessage `json:"context,omitempty" doc:"An event context, a JSON object. Without it: the delivery's, or else the target's own sample."`
	Delivery *uuid.UUID      `json:"delivery,omitempty" format:"uuid" doc:"A past delivery whose context is used. It is somebody's data: reason is required, and that it was looked at is recorded."`
	Reason   string          `json:"reason,omitempty" maxLength:"1024" doc:"Why the past context may be looked at."`
	Version  int64           `json:"version,omitempty" doc:"Of the target; the current one by default."`
	Draft    json.RawMessage `json:"draft,omitempty" doc:"A target as PUT takes it, to be used instead of a recorded one."`
	To       string          `json:"to,omitempty" enum:"inspector,url" doc:"inspector by default."`
	Bin      string          `json:"bin,omitempty" doc:"Of the inspector; one is made by default."`
	Profile  *uuid.UUID      `json:"profile,omitempty" format:"uuid" doc:"To the url: the person whose consent is asked; that of the past delivery by default."`
	Wait     int             `json:"wait_seconds,omitempty" minimum:"0" maximum:"60" doc:"To the url: how long the answer waits for an outcome; 10 by default."`
}

// TestReport is what came of a test.
type TestReport struct {
	Method     string              `json:"method"`
	URL        string              `json:"url" doc:"Secrets show as ••••."`
	Headers    map[string][]string `json:"headers" doc:"Secrets show as ••••; signatures are real."`
	Body       string              `json:"body" doc:"Secrets show as ••••."`
	Unresolved []domain.Unresolved `json:"unresolved" nullable:"false" doc:"Variables that the context lacks, with line and column."`
	Condition  *bool               `json:"condition" doc:"What the target's condition says of this context; null when it has none."`
	Problem    *string             `json:"problem" doc:"Why the platform would not take the body, as far as is known."`
	NotSent    *string             `json:"not_sent" doc:"Why no request could be made."`
	Context    *string             `json:"context" doc:"Where the context came from: given, sample or past."`
	Inspector  *TestArrival        `json:"inspector" doc:"Where to look at it; null for a test at the url."`
	Delivery   *Delivery           `json:"delivery" doc:"At the url: the delivery, as far as it has come; null while it is not planned yet."`
	DeliveryID *uuid.UUID          `json:"delivery_id" nullable:"true" doc:"At the url."`
	Answer     *TestAnswer         `json:"answer" doc:"At the url: what the receiver said to the last attempt. That it was shown is recorded."`
}

// TestArrival is where a test's request can be looked at.
type TestArrival struct {
	schema.Bin
	Request int64  `json:"request" doc:"Number of the request in the bin; 0 when none was made."`
	Page    string `json:"page" doc:"Path of the bin's page, with the key that opens it."`
}

// TestAnswer is what a receiver said.
type TestAnswer struct {
	Status  int                 `json:"status"`
	Headers map[string][]string `json:"headers"`
	Body    string              `json:"body" doc:"Its first 4 KiB."`
}

type testTargetInput struct {
	TargetInput
	RawBody []byte `contentType:"application/json"`
}

type testTargetOutput struct {
	Status int
	Body   TestReport
}

func (a *api) trials() trial.Trials {
	return trial.Trials{
		DB: a.DB, Ledger: a.Ledger, Vault: a.Vault, Inspector: a.Inspector, Variables: a.Variables, Environment: a.Environment, Now: a.Clock,
	}
}

func (a *api) testTarget(ctx context.Context, in *testTargetInput) (*testTargetOutput, error) {
	var request TestRequest
	dec := json.NewDecoder(bytes.NewReader(in.RawBody))
	dec.DisallowUnknownFields()
	if _, err := without(in.RawBody, nil); err != nil {
		return nil, err
	}
	if err := dec.Decode(&request); err != nil {
		return nil, domain.Invalid("", "holds a field that a test does not have, or one of another type")
	}
	switch {
	case request.To != "" && request.To != "inspector" && request.To != "url":
		return nil, domain.Invalid("/to", "is neither inspector nor url")
	case request.To == "url" && (request.Draft != nil || request.Version != 0):
		return nil, domain.Invalid("/to", "is url, where the target is tested as it is; without draft and version")
	case request.Wait < 0 || request.Wait > 60:
		return nil, domain.Invalid("/wait_seconds", "is not 0 to 60")
	case request.Version < 0 || request.Version > 0 && request.Draft != nil:
		return nil, domain.Invalid("/version", "is a recorded version, from 1, and not given beside draft")
	}
	target, err := a.previewed(ctx, in.Handle, PreviewRequest{Version: request.Version, Draft: request.Draft})
	if err != nil {
		return nil, err
	}
	version := request.Version
	if request.Draft == nil && version == 0 {
		now, err := a.catalogue.Current(ctx, in.Handle)
		if err != nil {
			return nil, err
		}
		version = now.Version
	}
	r := trial.Request{Target: target, Version: version, Context: request.Context, Reason: request.Reason, Bin: request.Bin}
	if request.Delivery != nil {
		r.Delivery = *request.Delivery
	}
	if request.To == "url" {
		return a.testAtURL(ctx, r, request)
	}
	report, err := a.trials().Rehearse(ctx, author(ctx), r)
	if err != nil {
		return nil, notRenderable(err)
	}
	out := &testTargetOutput{Status: http.StatusOK, Body: TestReport{
		Method: report.Method, URL: report.URL, Headers: report.Headers, Body: report.Body, Unresolved: report.Unresolved, Condition: report.Condition,
		Problem: optional(report.Problem), NotSent: optional(report.NotSent), Context: optional(report.Context),
		Inspector: &TestArrival{Bin: report.Bin, Request: report.Number, Page: a.binPage(report.Bin.ID)},
	}}
	if out.Body.Unresolved == nil {
		out.Body.Unresolved = []domain.Unresolved{}
	}
	return out, nil
}

func (a *api) binPage(id string) string {
	return pathOf("inspector", id) + "#" + a.Inspector.Inspector.Key(id)
}

// testAtURL fires the target and waits for what comes of it.
func (a *api) testAtURL(ctx context.Context, r trial.Request, request TestRequest) (*testTargetOutput, error) {
	var profile uuid.UUID
	if request.Profile != nil {
		profile = *request.Profile
	}
	trials := a.trials()
	id, err := trials.Fire(ctx, author(ctx), r, profile)
	if err != nil {
		return nil, err
	}
	patience := 10 * time.Second
	if request.Wait > 0 {
		patience = time.Duration(request.Wait) * time.Second
	}
	out := &testTargetOutput{Status: http.StatusAccepted, Body: TestReport{Method: r.Target.Method, URL: r.Target.URL, Headers: map[string][]string{}, Unresolved: []domain.Unresolved{}, DeliveryID: &id}}
	d, err := trials.Await(ctx, id, patience)
	if errors.Is(err, schema.ErrNotFound) {
		return out, nil // not planned yet: whoever asks for the delivery later finds it
	}
	if err != nil {
		return nil, err
	}
	shown, err := a.getDelivery(ctx, &getDeliveryInput{ID: id.String()})
	if err != nil {
		return nil, err
	}
	out.Body.Delivery, out.Body.Unresolved = &shown.Body, shown.Body.Unresolved
	if !d.Outcome.Final() {
		return out, nil
	}
	out.Status = http.StatusOK
	answer, err := trials.Answer(ctx, author(ctx), d)
	if err != nil {
		return nil, err
	}
	if answer != nil {
		out.Body.Answer = &TestAnswer{Status: answer.Status, Headers: answer.ResponseHeaders, Body: answer.ResponseBody}
	}
	return out, nil
}

// Bin is a bin of the inspector.
type Bin struct {
	schema.Bin
	Path string `json:"path" doc:"Where requests are sent to, on this service."`
	Page string `json:"page" doc:"Path of the bin's page, with the key that opens it."`
}

func (a *api) binOf(b schema.Bin) Bin {
	return Bin{Bin: b, Path: pathOf("inspector", b.ID), Page: a.binPage(b.ID)}
}

type listBinsOutput struct {
	Body struct {
		Items []Bin `json:"items" nullable:"false"`
	}
}

func (a *api) listBins(ctx context.Context, _ *struct{}) (*listBinsOutput, error) {
	bins, err := a.Inspector.Inspector.Bins(ctx)
	if err != nil {
		return nil, err
	}
	out := &listBinsOutput{}
	out.Body.Items = make([]Bin, len(bins))
	for i, b := range bins {
		out.Body.Items[i] = a.binOf(b)
	}
	return out, nil
}

// NewBin says what a bin is to be like.
type NewBin struct {
	Lasts  string `json:"lasts,omitempty" doc:"Such as 2h, at most 720h; 24h by default."`
	Status int    `json:"status,omitempty" minimum:"200" maximum:"599" doc:"HTTP status that it answers with; 200 by default. With 503 one sees retries."`
}

type createBinInput struct{ Body *NewBin }

type binOutput struct{ Body Bin }

func (a *api) createBin(ctx context.Context, in *createBinInput) (*binOutput, error) {
	var lasts domain.Duration
	status := 0
	if in.Body != nil {
		if in.Body.Lasts != "" {
			if err := lasts.UnmarshalText([]byte(in.Body.Lasts)); err != nil || time.Duration(lasts) > schema.BinLongest {
				return nil, domain.Invalid("/lasts", "is not a duration such as 2h, at most %s", schema.BinLongest)
			}
		}
		status = in.Body.Status
	}
	b, err := a.Inspector.Inspector.Create(ctx, PrincipalOf(ctx).Name, time.Duration(lasts), status)
	if err != nil {
		return nil, err
	}
	return &binOutput{Body: a.binOf(b)}, nil
}

type BinInput struct {
	Bin string `path:"bin" maxLength:"64"`
}

type listBinRequestsInput struct {
	BinInput
	After int64 `query:"after" minimum:"0" doc:"Number of the last request that is known already."`
}

type listBinRequestsOutput struct {
	Body struct {
		Items []schema.Inspected `json:"items" nullable:"false"`
	}
}

func (a *api) listBinRequests(ctx context.Context, in *listBinRequestsInput) (*listBinRequestsOutput, error) {
	if _, err := a.Inspector.Inspector.Bin(ctx, in.Bin); err != nil {
		return nil, err
	}
	found, err := a.Inspector.Inspector.Requests(ctx, in.Bin, in.After, schema.BinRequestsMax)
	if err != nil {
		return nil, err
	}
	out := &listBinRequestsOutput{}
	out.Body.Items = found
	return out, nil
}

func (a *api) deleteBin(ctx context.Context, in *BinInput) (*struct{}, error) {
	return nil, a.Inspector.Inspector.Delete(ctx, in.Bin)
}
