package api

import (
	"maps"

	"github.com/danielgtaylor/huma/v2"
)

// describe is the head of the OpenAPI description.
func describe(version string) huma.Config {
	c := huma.DefaultConfig("Dispatch Ledger", version)
	c.Info.Description = "The ledger of everything that a CRM sends through its comms platforms, and of the right to send it. " +
		"Lists take limit and cursor and answer items and next, or CSV with Accept: text/csv, where the Link header says what follows; times are RFC 3339 in UTC; errors are application/problem+json with a stable type."
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", Description: "A token made by 'dispatch-ledger token create --role ROLE --name NAME'."},
	}
	c.Tags = []*huma.Tag{
		{Name: "Events", Description: "What happened: in as CloudEvents, out as the ledger holds it."},
		{Name: "Targets", Description: "Where things are sent, and what."},
		{Name: "Partials", Description: "Pieces that templates share."},
		{Name: "Consent", Description: "What people agreed to."},
		{Name: "Deliveries", Description: "What was sent to whom, what became of it, and why something was not sent."},
		{Name: "Queue", Description: "What is waiting to be sent, and what holds it."},
		{Name: "Platforms", Description: "Whose suppression lists are kept in step with our consent, and how."},
		{Name: "Reconciliation", Description: "What the platforms' lists and our consent differed in, what was done about it, and what a person decides."},
		{Name: "Audit", Description: "Questions that compliance asks of all of it."},
		{Name: "Administration", Description: "Who and what may be used: each act of it is an event."},
		{Name: "Privacy", Description: "What a person may ask for, and what is shown to whom."},
		{Name: "Operation", Description: "How the service does."},
	}
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", "" // served by docsRoutes, without a foreign script
	c.CreateHooks, c.Transformers = nil, []huma.Transformer{linkNext}
	c.Formats = maps.Clone(c.Formats)
	c.Formats[mediaTypeCSV] = csvFormat
	c.AllowAdditionalPropertiesByDefault = true // answers may grow; see finish for what is sent to us
	c.RejectUnknownQueryParameters = true       // a misspelt filter would otherwise select everything
	return c
}

// finish says in the description what Go types do not: which objects may be null, and which bodies may hold nothing
// that we do not know, because leaving it out would lose what the sender meant.
func finish(spec *huma.OpenAPI) {
	schemas := spec.Components.Schemas.Map()
	for name, properties := range map[string][]string{
		"Delivery": {"consent", "request"}, "DeliverySummary": {"consent"}, "Attempt": {"response", "request", "timings", "consent"}, "Event": {"sealed"}, "Platform": {"last_run", "coverage"}, "Run": {"held", "counts"}, "Access": {"erased"}, "Verification": {"last"},
		"TestReport": {"inspector", "delivery", "answer"},
	} {
		for _, property := range properties {
			schema := schemas[name].Properties[property]
			schemas[name].Properties[property] = &huma.Schema{
				Description: schema.Description,
				AnyOf:       []*huma.Schema{{Ref: schema.Ref}, {Type: "null"}},
			}
		}
	}
	for _, name := range []string{"TargetConfig", "Auth", "BasicAuth", "OAuth2", "TLS", "Breaker", "Retry", "Limits", "ConsentRule", "ConsentChange", "Contact"} {
		schemas[name].AdditionalProperties = false
	}
	for _, path := range spec.Paths {
		for _, o := range []*huma.Operation{path.Post, path.Put, path.Patch, path.Delete} {
			if o == nil || o.RequestBody == nil {
				continue
			}
			if body := o.RequestBody.Content["application/json"]; body != nil && body.Schema.Ref != "" { // one without is read by its handler
				spec.Components.Schemas.SchemaFromRef(body.Schema.Ref).AdditionalProperties = false
			}
		}
	}
}
