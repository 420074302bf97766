package api

import (
	"context"
	"database/sql"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// questions are the operations that look at what is recorded and projected, and whether a replica may answer them. Whatever
// somebody decides by at once (a consent in force, a finding to resolve) is asked of the primary.
var questions = map[string]bool{
	"list-events":                  true,
	"get-event":                    true,
	"list-deliveries":              true,
	"get-delivery":                 true,
	"audit-outcomes":               true,
	"audit-unknown-outcomes":       true,
	"audit-consent-changes":        true,
	"get-consent-history":          true,
	"list-opt-outs":                true,
	"sum-opt-outs":                 true,
	"list-reconciliations":         true,
	"list-reconciliation-findings": true,
	"get-consent":                  false,
	"list-findings":                false,
}

// Headers of questions and their answers.
const (
	minPositionHeader = "Ledger-Min-Position"
	databaseHeader    = "Ledger-Database"
	lagHeader         = "Ledger-Lag-Positions"
	lagSecondsHeader  = "Ledger-Lag-Seconds"
)

type (
	readsKey    struct{}
	exchangeKey struct{}
)

// reads is the database that a question is asked of.
func (a *api) reads(ctx context.Context) *sql.DB {
	if db, ok := ctx.Value(readsKey{}).(*sql.DB); ok {
		return db
	}
	return a.DB
}

// describeQuestion says in the API's description how to ask.
func describeQuestion(op *huma.Operation) {
	minimum := 0.0
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: minPositionHeader, In: "header", Schema: &huma.Schema{Type: "integer", Format: "int64", Minimum: &minimum},
		Description: "A position that the answer must know of, such as that of an event just accepted. The answer waits a moment for it, else it is 503.",
	})
	op.Middlewares = append(op.Middlewares, func(ctx huma.Context, next func(huma.Context)) { next(huma.WithValue(ctx, exchangeKey{}, ctx)) })
	op.Errors = append(op.Errors, http.StatusServiceUnavailable)
}

// asking chooses whom an operation's question is asked of, says so in the answer's headers, and asks the primary when the
// replica fails on the way.
func asking[I, O any](a *api, operation string, handle func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	replicated := questions[operation]
	return func(ctx context.Context, in *I) (*O, error) {
		exchange, ok := ctx.Value(exchangeKey{}).(huma.Context)
		if !ok {
			return handle(ctx, in)
		}
		var position int64
		if text := exchange.Header(minPositionHeader); text != "" {
			var err error
			if position, err = strconv.ParseInt(text, 10, 64); err != nil || position < 0 {
				return nil, badParameter("header."+minPositionHeader, "is no position: a number from 0")
			}
		}
		if !replicated || a.Replica == nil {
			if err := schema.AwaitProjected(ctx, a.DB, position, schema.ProjectedPatience); err != nil {
				return nil, err
			}
			return handle(ctx, in)
		}
		db, replica, err := a.Replica.Choose(ctx, position)
		if err != nil {
			return nil, err
		}
		if !replica {
			exchange.SetHeader(databaseHeader, "primary")
			return handle(ctx, in)
		}
		lag, _ := a.Replica.Lag()
		out, err := handle(context.WithValue(ctx, readsKey{}, db), in)
		if err != nil && schema.Transient(err) && ctx.Err() == nil {
			a.Replica.Failed(ctx, err)
			exchange.SetHeader(databaseHeader, "primary")
			return handle(ctx, in)
		}
		exchange.SetHeader(databaseHeader, "replica")
		exchange.SetHeader(lagHeader, strconv.FormatInt(lag.Positions, 10))
		exchange.SetHeader(lagSecondsHeader, strconv.FormatFloat(lag.Seconds, 'f', 3, 64))
		return out, err
	}
}

// replicaState is what /readyz says of the replica. That it is not asked does not make the service unready: the primary is.
type replicaState struct {
	Asked bool `json:"asked" doc:"Whether questions go to it at the moment; otherwise the primary answers them."`
	schema.Lag
}

func (a *api) replicaState() *replicaState {
	if a.Replica == nil {
		return nil
	}
	lag, asked := a.Replica.Lag()
	return &replicaState{asked, lag}
}
