package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/reconciler"
	"github.com/dispatch-ledger/dispatch-ledger/projections/suppressions"
)

func (a *api) platformRoutes() {
	tags := []string{"Platforms"}
	register(a, huma.Operation{
		OperationID: "list-platforms", Method: http.MethodGet, Path: "/v1/platforms", Tags: tags,
		Summary: "List the connected platforms", Description: "Each with its policy, what can be read and written there, what it cannot do, and where it stands: what is unconfirmed, since when, what waits to be written, what waits for a person, and how many of our addresses it knows.",
	}, a.listPlatforms)
	register(a, huma.Operation{
		OperationID: "get-platform", Method: http.MethodGet, Path: "/v1/platforms/{name}", Tags: tags,
		Summary: "Read a platform's policy and where it stands", Description: "Its ETag is what If-Match takes.", Errors: []int{http.StatusNotFound},
	}, a.getPlatform)
	register(a, huma.Operation{
		OperationID: "put-platform", Method: http.MethodPut, Path: "/v1/platforms/{name}", Tags: tags,
		Summary:     "Connect a platform, or change its policy",
		Description: "Records a new version of the policy. Credentials are named, never given: set the secrets first. What is left out has its default, and the answer shows it.",
		RequestBody: rawJSON(),
		Errors:      []int{http.StatusBadRequest, http.StatusPreconditionFailed, http.StatusUnprocessableEntity},
	}, a.putPlatform)
	register(a, huma.Operation{
		OperationID: "list-profile-suppressions", Method: http.MethodGet, Path: "/v1/profiles/{id}/suppressions", Tags: tags,
		Summary: "Read what the platforms' lists say about a person", Description: "By the hashes of the person's addresses, those that they no longer have included.",
	}, a.listProfileSuppressions)
	register(a, huma.Operation{
		OperationID: "receive-webhook", Method: http.MethodPost, Path: "/v1/hooks/{platform}", Tags: tags,
		Summary: "Receive a platform's webhook",
		Description: "Verified over the raw body with the secret that the platform's policy names, in the platform's own way. The same notification twice is one event. " +
			"What nothing proves (platforms that do not sign) may suppress and may not lift.",
		RequestBody:   rawJSON(),
		DefaultStatus: http.StatusAccepted, MaxBodyBytes: 8 << 20, Errors: []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusNotFound},
	}, a.receiveWebhook)
}

// rawJSON describes a body that the operation reads itself, byte for byte.
func rawJSON() *huma.RequestBody {
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}}}}
}

// Platform is a platform's connection as the API shows it.
type Platform = reconciler.Platform

func (a *api) listPlatforms(ctx context.Context, in *struct{ Paging }) (*Listed[Platform], error) {
	after, err := decodeCursor("platforms", in.Cursor)
	if err != nil {
		return nil, err
	}
	policies, err := suppressions.Policies(ctx, a.DB)
	if err != nil {
		return nil, err
	}
	items := []Platform{}
	for _, p := range policies {
		if p.Name <= after || len(items) > in.Limit {
			continue
		}
		described, err := a.Reconciler.Describe(ctx, p)
		if err != nil {
			return nil, err
		}
		items = append(items, described)
	}
	return &Listed[Platform]{Body: pageOf("platforms", items, in.Limit, func(p Platform) string { return p.Name })}, nil
}

// PlatformInput names a platform's connection. As to its being exported, see [RunInput].
type PlatformInput struct {
	Name string `path:"name" maxLength:"128"`
}

type platformOutput struct {
	ETag string `header:"ETag"`
	Body Platform
}

func (a *api) getPlatform(ctx context.Context, in *PlatformInput) (*platformOutput, error) {
	p, err := suppressions.PolicyOf(ctx, a.DB, in.Name)
	if err != nil {
		return nil, err
	}
	described, err := a.Reconciler.Describe(ctx, p)
	if err != nil {
		return nil, err
	}
	return &platformOutput{ETag: strconv.Quote(strconv.FormatInt(p.Version, 10)), Body: described}, nil
}

type putPlatformInput struct {
	PlatformInput

	IfMatch string `header:"If-Match" doc:"The ETag that the change was decided on; absent changes whatever there is."`
	Reason  string `query:"reason" maxLength:"2000" doc:"Why, in words."`
	RawBody []byte `contentType:"application/json"`
}

func (a *api) putPlatform(ctx context.Context, in *putPlatformInput) (*platformOutput, error) {
	p, err := domain.ParsePlatformPolicy(in.RawBody)
	if err != nil {
		return nil, err
	}
	if p.Name == "" {
		p.Name = in.Name
	}
	if p.Name != in.Name {
		return nil, domain.Invalid("/name", "is not the name in the path")
	}
	version := int64(-1)
	if tag := strings.Trim(strings.TrimSpace(in.IfMatch), `"`); tag != "" && tag != "*" {
		if version, err = strconv.ParseInt(tag, 10, 64); err != nil || version < 0 {
			return nil, errPrecondition
		}
	}
	if version, err = a.Reconciler.SetPolicy(ctx, p, version, PrincipalOf(ctx).Name, in.Reason); err != nil {
		return nil, err
	}
	p.Normalize()
	described, err := a.Reconciler.Describe(ctx, suppressions.Policy{PlatformPolicy: p, Version: version, ChangedAt: a.Clock(), ChangedBy: PrincipalOf(ctx).Name})
	if err != nil {
		return nil, err
	}
	return &platformOutput{ETag: strconv.Quote(strconv.FormatInt(version, 10)), Body: described}, nil
}

// ListedAddress is what a platform's list says about one of a person's addresses.
type ListedAddress struct {
	suppressions.Listed

	AddressHash string `json:"address_hash"`
}

func (a *api) listProfileSuppressions(ctx context.Context, in *RunInput) (*Listed[ListedAddress], error) {
	listed, err := suppressions.ListedFor(ctx, a.DB, in.uuid())
	if err != nil {
		return nil, err
	}
	items := make([]ListedAddress, len(listed))
	for i, l := range listed {
		items[i] = ListedAddress{Listed: l, AddressHash: suppressions.HashOf(l.Hash)}
		items[i].SeenAt = l.SeenAt.UTC()
		items[i].At = utcOf(l.At)
	}
	return &Listed[ListedAddress]{Body: Page[ListedAddress]{Items: items}}, nil
}

type receiveWebhookInput struct {
	Platform string `path:"platform" maxLength:"128"`
	RawBody  []byte `contentType:"application/json"`

	header http.Header
}

// Resolve keeps the request's headers, of which signatures are.
func (in *receiveWebhookInput) Resolve(ctx huma.Context) []error {
	in.header = http.Header{}
	ctx.EachHeader(func(name, value string) { in.header.Add(name, value) })
	return nil
}

type receiveWebhookOutput struct{ Body reconciler.Received }

func (a *api) receiveWebhook(ctx context.Context, in *receiveWebhookInput) (*receiveWebhookOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got, err := a.Reconciler.Receive(ctx, in.Platform, in.header, in.RawBody)
	if err != nil {
		return nil, err
	}
	return &receiveWebhookOutput{Body: got}, nil
}
