package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/importer"
)

// Bounds of an import over HTTP; larger files are for the command line, or for several requests.
const (
	importBytes   = 32 << 20
	rejectsListed = 1000
)

func (a *api) consentImportRoutes(tags []string) {
	text := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	register(a, huma.Operation{
		OperationID: "import-consent", Method: http.MethodPost, Path: "/v1/consent/imports", Tags: tags, MaxBodyBytes: importBytes,
		Summary: "Bring existing consent in from a file",
		Description: "CSV or NDJSON of at most 32 MiB: one answer a record (profile_id, channel, purpose, status, decided_at), or a profile with the CRM's own field names. " +
			"A record that cannot be read is listed with its line and the reason and keeps no other out; the first 1000 are listed. " +
			"The same file again records nothing twice, and goes on where an interrupted one stopped. `dry_run` says what would happen.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"text/csv": text, "application/x-ndjson": text}},
	}, a.importConsent)
}

type importConsentInput struct {
	Format    string `query:"format" enum:"csv,ndjson" required:"true"`
	DryRun    bool   `query:"dry_run" doc:"Say what would happen, and record nothing."`
	Name      string `query:"name" maxLength:"256" default:"upload" doc:"The file's name, for the record."`
	DecidedAt string `query:"decided_at" format:"date-time" doc:"When what has no time of its own was decided."`
	DecidedBy string `query:"decided_by" enum:"customer,staff,admin,import,platform" default:"import" doc:"Who decided what does not say so itself."`
	Method    string `query:"method" maxLength:"128" default:"import" doc:"How."`
	RawBody   []byte
}

// ConsentImport is what became of a file.
type ConsentImport struct {
	importer.Summary
	Rejects []importer.Reject `json:"rejects" nullable:"false" doc:"The first 1000."`
}

type importConsentOutput struct{ Body ConsentImport }

func (a *api) importConsent(ctx context.Context, in *importConsentInput) (*importConsentOutput, error) {
	at, err := parseTime("query.decided_at", in.DecidedAt)
	if err != nil {
		return nil, err
	}
	// A large file takes longer than a request may otherwise.
	sum := sha256.Sum256(in.RawBody)
	out := &importConsentOutput{Body: ConsentImport{Rejects: []importer.Reject{}}}
	im := importer.Importer{Intake: a.intake, DB: a.DB}
	out.Body.Summary, err = im.Run(ctx, importer.Job{
		Name: in.Name, Format: in.Format, SHA256: sum[:], Actor: PrincipalOf(ctx).Name, DryRun: in.DryRun,
		Defaults: importer.Defaults{DecidedAt: at.UTC().Truncate(time.Microsecond), DecidedBy: in.DecidedBy, Method: in.Method},
		Reject: func(r importer.Reject) error {
			if len(out.Body.Rejects) < rejectsListed {
				out.Body.Rejects = append(out.Body.Rejects, r)
			}
			return nil
		},
	}, bytes.NewReader(in.RawBody))
	if errors.Is(err, importer.ErrFile) {
		return nil, domain.Invalid("", "%s", err)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}
