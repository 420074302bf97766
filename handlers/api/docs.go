package api

import (
	"cmp"
	"database/sql"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

var (
	//go:embed docs.html
	docsPage string
	//go:embed docs.css
	docsStyle string
)

var docsTemplate = template.Must(template.New("docs").Parse(docsPage))

// docsRoutes serve the API's description: as OpenAPI for programs, and as a page for people that needs no script.
func (a *api) docsRoutes() {
	description, err := json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
	if err != nil {
		a.errs = append(a.errs, fmt.Errorf("OpenAPI: %w", err))
		return
	}
	a.handle("openapi", "/openapi.json", serve("application/openapi+json;version=3.1", description, nil))
	var page strings.Builder
	if err := docsTemplate.Execute(&page, a.docs()); err != nil {
		a.errs = append(a.errs, fmt.Errorf("docs page: %w", err))
		return
	}
	a.handle("docs", "/docs", serve("text/html; charset=utf-8", []byte(page.String()), map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}))
	a.handle("docs-style", "/docs/style.css", serve("text/css; charset=utf-8", []byte(docsStyle), nil))
}

// Reference gives the API's description as /openapi.json serves it, for a version of the program that is not told. It
// needs no database: the description follows from the routes alone.
func Reference() ([]byte, error) {
	db, err := sql.Open("postgres", "") // is never connected to
	if err != nil {
		return nil, err
	}
	defer db.Close()
	a, err := newAPI(Config{Ledger: &schema.Ledger{}, Vault: &schema.Vault{}, DB: db, Auth: &schema.Tokens{}})
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
}

// serve answers with a fixed text.
func serve(contentType string, text []byte, more map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range more {
			w.Header().Set(name, value)
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "public, max-age=300")
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = w.Write(text) // a reader that is gone does not miss it
	})
}

// docsData is what the page shows: the same description that /openapi.json holds.
type docsData struct {
	Title, Version, Description string
	Groups                      []docsGroup
	Events                      []*domain.Declaration
	Problems                    []docsProblem
}

type docsGroup struct {
	Name, Description string
	Operations        []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary string
	Paragraphs                []string
	Parameters                []docsParameter
	Takes                     []string // media types
	Answers                   []string // status and what it means
	position                  int
}

type docsParameter struct{ Name, In, Doc string }

type docsProblem struct {
	Type, Title, Next string
	Status            int
}

func (a *api) docs() docsData {
	spec := a.huma.OpenAPI()
	data := docsData{Title: spec.Info.Title, Version: spec.Info.Version, Description: spec.Info.Description}
	for _, tag := range spec.Tags {
		g := docsGroup{Name: tag.Name, Description: tag.Description}
		for path, item := range spec.Paths {
			for position, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
				if op != nil && slices.Contains(op.Tags, tag.Name) {
					g.Operations = append(g.Operations, describeOperation(path, position, op))
				}
			}
		}
		slices.SortFunc(g.Operations, func(x, y docsOperation) int {
			return cmp.Or(cmp.Compare(x.Path, y.Path), cmp.Compare(x.position, y.position))
		})
		data.Groups = append(data.Groups, g)
	}
	for _, d := range domain.Declarations() {
		if d.Origin == domain.FromOutside {
			data.Events = append(data.Events, d)
		}
	}
	seen := map[string]bool{}
	for _, k := range append(slices.Clone(problems), internal) {
		if !seen[k.name] {
			data.Problems = append(data.Problems, docsProblem{Type: urn + k.name, Title: k.title, Next: k.next, Status: k.status})
		}
		seen[k.name] = true
	}
	return data
}

func describeOperation(path string, position int, op *huma.Operation) docsOperation {
	d := docsOperation{ID: op.OperationID, Method: op.Method, Path: path, Summary: op.Summary, position: position}
	if op.Description != "" {
		d.Paragraphs = strings.Split(op.Description, "\n\n")
	}
	for _, p := range op.Parameters {
		d.Parameters = append(d.Parameters, docsParameter{Name: p.Name, In: p.In, Doc: p.Description})
	}
	if op.RequestBody != nil {
		for mediaType := range op.RequestBody.Content {
			d.Takes = append(d.Takes, mediaType)
		}
		slices.Sort(d.Takes)
	}
	for status, response := range op.Responses {
		d.Answers = append(d.Answers, strings.TrimSpace(status+" "+response.Description))
	}
	slices.Sort(d.Answers)
	return d
}
