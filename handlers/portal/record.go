package portal

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// The ways in which people decide here, as consent.changed names them.
const (
	byCentre   = "preference_centre"
	byPage     = "unsubscribe_page"
	byOneClick = "list_unsubscribe"
)

// agentMax bounds what is kept of a User-Agent, in bytes.
const agentMax = 512

// decision is what a person decided at one go.
type decision struct {
	method  string
	changes []domain.ConsentChange
	wording map[string]string // what the page said at each, by the choice's key
}

// record appends what a person decided, with the evidence for it, and gives the position.
func (p *portal) record(r *http.Request, link domain.Link, locale *Locale, d decision) (int64, error) {
	now := p.Clock().UTC().Truncate(time.Microsecond)
	agent := r.UserAgent()
	if len(agent) > agentMax {
		agent = strings.ToValidUTF8(agent[:agentMax], "")
	}
	evidence := map[string]string{
		"ip": p.address(r).String(), "user_agent": strings.ToValidUTF8(agent, "\uFFFD"),
		"language": locale.Tag, "form_version": locale.Version,
		"link_expires_at": link.ExpiresAt.Format(time.RFC3339),
	}
	if link.DeliveryID != uuid.Nil {
		evidence["delivery_id"] = link.DeliveryID.String()
	}
	for key, text := range d.wording {
		evidence["wording "+key] = text
	}
	data, err := json.Marshal(domain.ConsentChanged{
		ProfileID: link.ProfileID, Changes: d.changes, DecidedAt: now, DecidedBy: "customer", Method: d.method, Evidence: evidence,
	})
	if err != nil {
		return 0, err
	}
	accepted, err := p.Intake.Accept(r.Context(), Actor, []intake.Event{{
		ID: domain.NewID().String(), Source: "/portal", Type: domain.TypeOf(domain.ConsentChanged{}), Time: now, Data: data,
	}})
	if err != nil {
		return 0, err
	}
	p.saved.WithLabelValues(d.method).Inc()
	return accepted[0].Position, nil
}

// saved reads what was recorded at a position, if it was recorded here and for this person; nil otherwise: the position
// stands in the address, where anybody may write anything.
func (p *portal) recorded(ctx context.Context, profile uuid.UUID, position string) ([]domain.ConsentChange, error) {
	at, err := strconv.ParseInt(position, 10, 64)
	if err != nil || at <= 0 {
		return nil, nil
	}
	for e, err := range schema.Events(ctx, p.DB, schema.Filter{After: at - 1, UpTo: at, Subject: profile}) {
		if err != nil {
			return nil, err
		}
		var c domain.ConsentChanged
		if e.Actor != Actor || e.Type != domain.TypeOf(c) || json.Unmarshal(e.Data, &c) != nil {
			return nil, nil
		}
		return c.Changes, nil
	}
	return nil, nil
}
