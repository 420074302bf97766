package console

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/projections/audit"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
)

func (c *console) findPerson(v *visit) error {
	text := v.value("id")
	if text == "" {
		return c.page(v, "people", "People", "")
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return notAPerson()
	}
	return v.back("/people/"+id.String(), "")
}

func notAPerson() error {
	return &api.Problem{Status: http.StatusUnprocessableEntity, Title: "This is not a person's id", Detail: "The CRM's id of a person is a UUID, such as 8fc344db-713e-4590-ab26-e82d77ba3313.", NextStep: "Look the person up in the CRM and copy the id."}
}

type personPage struct {
	ID           uuid.UUID
	Erased       bool
	Now          api.Consent
	Matrix       []matrixRow
	Purposes     []domain.Purpose
	Channels     []domain.Channel
	Deciders     []string
	History      []consent.Entry
	At           int      // which moment of the history is shown: the number of events known, of Moments
	Moments      []moment // each event that changed what was known
	Shown        moment   // the one that is shown
	Deliveries   []api.DeliverySummary
	Lists        []api.ListedAddress // what platforms say of the person's addresses
	Accesses     []api.Event
	MaySet       bool
	MayErase     bool
	MayAccess    bool
	MaySee       bool // who looked
	MayDelivered bool
	MayListed    bool
}

// moment is when the ledger learnt something of a person's consent.
type moment struct {
	Position int64
	At       time.Time
}

// matrixRow is a channel with the answer for each purpose.
type matrixRow struct {
	Channel domain.Channel
	Cells   []*consent.Entry // nil: never asked
}

// accesses are the types of event that say that somebody looked at a person's data.
var accesses = []string{"sealed.revealed"}

func (c *console) showPerson(v *visit) error {
	ctx := v.r.Context()
	id, err := uuid.Parse(v.r.PathValue("id"))
	if err != nil {
		return v.back("/people", "")
	}
	p := personPage{
		ID: id, Purposes: domain.Purposes, Channels: domain.Channels, Deciders: domain.DecidedBy, MaySet: v.may(api.PutConsent.ID), MayErase: v.may(api.EraseProfile.ID), MayAccess: v.may(api.AccessPage.ID),
		MaySee: v.may(api.ListEvents.ID), MayDelivered: v.may(api.ListDeliveries.ID), MayListed: v.may(api.ListSuppressions.ID),
	}
	history := api.GetConsentHistory.In()
	history.ID, history.Limit = id.String(), 500
	past, err := api.GetConsentHistory.Call(ctx, c.Service, v.who, history)
	if err != nil {
		return err
	}
	p.History = past.Body.Items
	for _, e := range p.History {
		if n := len(p.Moments); n == 0 || p.Moments[n-1].Position != e.Position {
			p.Moments = append(p.Moments, moment{e.Position, e.RecordedAt})
		}
	}
	p.At = len(p.Moments)
	if n, err := strconv.Atoi(v.value("at")); err == nil && n >= 1 && n <= len(p.Moments) {
		p.At = n
	}
	in := api.GetConsent.In()
	in.ID = id.String()
	if p.At > 0 {
		p.Shown = p.Moments[p.At-1]
		if p.At < len(p.Moments) {
			in.Position = p.Shown.Position
		}
	}
	held, err := api.GetConsent.Call(ctx, c.Service, v.who, in)
	if err != nil {
		return err
	}
	p.Now, p.Erased = held.Body, held.Body.Erased
	for _, channel := range domain.Channels {
		row := matrixRow{Channel: channel, Cells: make([]*consent.Entry, len(domain.Purposes))}
		for i, e := range p.Now.Items {
			if e.Channel == channel {
				row.Cells[slices.Index(domain.Purposes, e.Purpose)] = &p.Now.Items[i]
			}
		}
		p.Matrix = append(p.Matrix, row)
	}
	slices.Reverse(p.History)
	if p.MayDelivered {
		sent := api.ListDeliveries.In()
		sent.Profile, sent.Limit = id.String(), 20
		out, err := api.ListDeliveries.Call(ctx, c.Service, v.who, sent)
		if err != nil {
			return err
		}
		p.Deliveries = out.Body.Items
	}
	if p.MayListed {
		in := api.ListSuppressions.In()
		in.ID = id.String()
		out, err := api.ListSuppressions.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return err
		}
		p.Lists = out.Body.Items
	}
	if p.MaySee {
		in := api.ListEvents.In()
		in.Profile, in.Type, in.Limit, in.Order = id.String(), strings.Join(accesses, ","), pageSize, "desc"
		out, err := api.ListEvents.Call(ctx, c.Service, v.who, in)
		if err != nil {
			return err
		}
		p.Accesses = out.Body.Items
	}
	return c.page(v, "person", "Person "+id.String()[:8], p)
}

type consentChangesPage struct {
	Items    []audit.RecordedChange
	Next     *string
	Filter   map[string]string
	Channels []domain.Channel
	Purposes []domain.Purpose
	Statuses []domain.ConsentStatus
	Deciders []string
	Methods  []string
	Sources  []string
}

func (c *console) listConsentChanges(v *visit) (err error) {
	in := api.AuditConsentChanges.In()
	statuses := []domain.ConsentStatus{domain.OptedIn, domain.OptedOut, domain.Unknown}
	in.Channel, in.Purpose, in.Status, in.DecidedBy = one(v, "channel", domain.Channels), one(v, "purpose", domain.Purposes), one(v, "status", statuses), one(v, "decided_by", domain.DecidedBy)
	in.Method, in.Source, in.Cursor, in.Limit = v.value("method"), v.value("source"), v.value("cursor"), pageSize
	if in.From, in.To, err = v.period(); err != nil {
		return err
	}
	if v.wantsCSV() {
		return export(v, c, "consent-changes", api.AuditConsentChanges, in, &in.Paging)
	}
	out, err := api.AuditConsentChanges.Call(v.r.Context(), c.Service, v.who, in)
	if err != nil {
		return err
	}
	p := consentChangesPage{
		Items: out.Body.Items, Next: out.Body.Next, Channels: domain.Channels, Purposes: domain.Purposes, Statuses: statuses, Deciders: domain.DecidedBy,
		Filter: map[string]string{"channel": in.Channel, "purpose": in.Purpose, "status": in.Status, "decided_by": in.DecidedBy, "method": in.Method, "source": in.Source, "from": v.value("from"), "to": v.value("to")},
	}
	kinds, err := audit.ConsentKinds(v.r.Context(), c.DB)
	if err != nil {
		return err
	}
	for _, k := range kinds {
		if k.Method != "" && !slices.Contains(p.Methods, k.Method) {
			p.Methods = append(p.Methods, k.Method)
		}
		if !slices.Contains(p.Sources, k.Source) {
			p.Sources = append(p.Sources, k.Source)
		}
	}
	return c.page(v, "consent_changes", "Consent changes", p)
}
