package api

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func (a *api) administrationRoutes() {
	tags := []string{"Administration"}
	register(a, huma.Operation{
		OperationID: "list-tokens", Method: http.MethodGet, Path: "/v1/tokens", Tags: tags,
		Summary: "Whom access was given to", Description: "Revoked and expired ones included, oldest first; never the tokens themselves.",
	}, a.listTokens)
	register(a, huma.Operation{
		OperationID: "create-token", Method: http.MethodPost, Path: "/v1/tokens", Tags: tags,
		Summary: "Give somebody access", Description: "The token is in the answer, this once: the ledger keeps a hash.", DefaultStatus: http.StatusCreated,
		Errors: []int{http.StatusBadRequest, http.StatusConflict, http.StatusUnprocessableEntity},
	}, a.createToken)
	register(a, huma.Operation{
		OperationID: "revoke-token", Method: http.MethodPost, Path: "/v1/tokens/{name}/revoke", Tags: tags,
		Summary: "End an access", Description: "Sessions that were opened with the token end with it.", DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound},
	}, a.revokeToken)
	register(a, huma.Operation{
		OperationID: "list-secrets", Method: http.MethodGet, Path: "/v1/secrets", Tags: tags,
		Summary: "The named secrets that targets refer to", Description: "Names and fingerprints, never values.",
	}, a.listSecrets)
	register(a, huma.Operation{
		OperationID: "put-secret", Method: http.MethodPut, Path: "/v1/secrets/{name}", Tags: tags,
		Summary: "Set or rotate a secret", Description: "Nothing gives the value back.", DefaultStatus: http.StatusNoContent,
		Errors: []int{http.StatusBadRequest, http.StatusUnprocessableEntity},
	}, a.putSecret)
	register(a, huma.Operation{
		OperationID: "retire-secret", Method: http.MethodPost, Path: "/v1/secrets/{name}/retire", Tags: tags,
		Summary: "End a secret's rotation", Description: "The value before the current one, which stays beside it after a change, is deleted: the other side has changed over.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound},
	}, a.retireSecret)
	register(a, huma.Operation{
		OperationID: "delete-secret", Method: http.MethodDelete, Path: "/v1/secrets/{name}", Tags: tags,
		Summary: "Delete a secret with all its values", Description: "Targets that name it no longer send.",
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound},
	}, a.deleteSecret)
}

type listTokensInput struct{ Paging }

func (a *api) listTokens(ctx context.Context, in *listTokensInput) (*Listed[schema.Token], error) {
	after, err := positionCursor("tokens", in.Cursor)
	if err != nil {
		return nil, err
	}
	all, err := a.Tokens.List(ctx)
	if err != nil {
		return nil, err
	}
	items := []schema.Token{}
	for _, t := range all {
		if t.ID > after {
			items = append(items, t)
		}
	}
	items = items[:min(len(items), in.Limit+1)]
	return &Listed[schema.Token]{Body: pageOf("tokens", items, in.Limit, func(t schema.Token) string { return strconv.FormatInt(t.ID, 10) })}, nil
}

type createTokenInput struct {
	Body struct {
		Name      string      `json:"name" minLength:"1" maxLength:"200" doc:"Whom it is for; stands as the actor in events."`
		Role      schema.Role `json:"role" enum:"emitter,operator,compliance,privacy,analyst,admin"`
		ExpiresAt *time.Time  `json:"expires_at,omitempty" doc:"Absent: until it is revoked."`
	}
}

// CreatedToken is a new token.
type CreatedToken struct {
	schema.Token
	Secret string `json:"token" doc:"What goes into the Authorization header. It is shown this once."`
}

type createTokenOutput struct{ Body CreatedToken }

func (a *api) createToken(ctx context.Context, in *createTokenInput) (out *createTokenOutput, err error) {
	out = &createTokenOutput{}
	err = a.act(ctx, func(tx *sql.Tx) (domain.Payload, error) {
		out.Body.Secret, out.Body.Token, err = a.Tokens.CreateIn(ctx, tx, schema.TokenRequest{
			Name: in.Body.Name, Role: in.Body.Role, CreatedBy: PrincipalOf(ctx).Name, ExpiresAt: in.Body.ExpiresAt,
		})
		return domain.TokenCreated{Name: in.Body.Name, Role: string(in.Body.Role)}, err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

type revokeTokenInput struct {
	Name string `path:"name" maxLength:"200"`
}

func (a *api) revokeToken(ctx context.Context, in *revokeTokenInput) (*struct{}, error) {
	var done func()
	err := a.act(ctx, func(tx *sql.Tx) (_ domain.Payload, err error) {
		done, err = a.Tokens.RevokeIn(ctx, tx, in.Name, PrincipalOf(ctx).Name)
		if errors.Is(err, schema.ErrUnknownToken) {
			err = fmt.Errorf("token: %w", schema.ErrNotFound)
		}
		return domain.TokenRevoked{Name: in.Name}, err
	})
	if err == nil {
		done()
	}
	return nil, err
}

type listSecretsInput struct{ Paging }

func (a *api) listSecrets(ctx context.Context, in *listSecretsInput) (*Listed[schema.SecretInfo], error) {
	after, err := decodeCursor("secrets", in.Cursor)
	if err != nil {
		return nil, err
	}
	all, err := a.Vault.Secrets(ctx)
	if err != nil {
		return nil, err
	}
	items := []schema.SecretInfo{}
	for _, s := range all {
		if s.Name > after {
			items = append(items, s)
		}
	}
	slices.SortFunc(items, func(x, y schema.SecretInfo) int { return cmp.Compare(x.Name, y.Name) })
	items = items[:min(len(items), in.Limit+1)]
	return &Listed[schema.SecretInfo]{Body: pageOf("secrets", items, in.Limit, func(s schema.SecretInfo) string { return s.Name })}, nil
}

type putSecretInput struct {
	Name string `path:"name" maxLength:"128"`
	Body struct {
		Value string `json:"value" minLength:"1" maxLength:"65536" doc:"It is sealed, used when a request leaves, and shown to nobody."`
	}
}

func (a *api) putSecret(ctx context.Context, in *putSecretInput) (*struct{}, error) {
	err := a.act(ctx, func(tx *sql.Tx) (domain.Payload, error) {
		secret, err := a.Vault.SetSecret(ctx, tx, in.Name, in.Body.Value, PrincipalOf(ctx).Name)
		return domain.SecretChanged{Name: in.Name, Fingerprint: secret.Fingerprint}, err
	})
	if err == nil {
		a.Vault.ForgetSecret(in.Name)
	}
	return nil, err
}

type secretInput struct {
	Name string `path:"name" maxLength:"128"`
}

func (a *api) retireSecret(ctx context.Context, in *secretInput) (*struct{}, error) {
	return nil, a.dropSecret(ctx, in.Name, "value before the current one", a.Vault.EndSecretOverlap, domain.SecretRetired{Name: in.Name})
}

func (a *api) deleteSecret(ctx context.Context, in *secretInput) (*struct{}, error) {
	return nil, a.dropSecret(ctx, in.Name, "value", a.Vault.DeleteSecret, domain.SecretDeleted{Name: in.Name})
}

// dropSecret deletes values of a secret, of which there has to be one.
func (a *api) dropSecret(ctx context.Context, name, what string, drop func(context.Context, schema.Querier, string) (bool, error), p domain.Payload) error {
	err := a.act(ctx, func(tx *sql.Tx) (domain.Payload, error) {
		found, err := drop(ctx, tx, name)
		if err == nil && !found {
			err = fmt.Errorf("%s of secret %q: %w", what, name, schema.ErrNotFound)
		}
		return p, err
	})
	if err == nil {
		a.Vault.ForgetSecret(name)
	}
	return err
}

// act does something administrative in the caller's name and records it, in one transaction.
func (a *api) act(ctx context.Context, do func(*sql.Tx) (domain.Payload, error)) error {
	return a.Ledger.Act(ctx, domain.Event{Actor: PrincipalOf(ctx).Name, Source: source, OccurredAt: a.Clock()}, do)
}
