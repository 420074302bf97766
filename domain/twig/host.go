package twig

import (
	"errors"
	"io"

	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// gonja's renderer walks the tree of a compiled template. The tree is ours: one control structure whose Execute runs
// the body. Jinja's lexer, parser, evaluator, filters, loaders and methods are not reachable from a template.

// body is a template's body as a node of gonja.
type body struct {
	token *tokens.Token
	tmpl  *Template
}

func (b *body) Position() *tokens.Token { return b.token }
func (b *body) String() string          { return "twig(" + b.tmpl.src.name + ")" }

// Execute runs the body on the run that the renderer writes to.
func (b *body) Execute(renderer *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	r, ok := renderer.Output.(*run)
	if !ok {
		return errors.New("twig: renderer has a foreign output")
	}
	return r.execute(b.tmpl)
}

// Write makes a run the output of gonja's renderer.
func (r *run) Write(p []byte) (int, error) {
	r.writeRaw(string(p))
	return len(p), nil
}

var _ io.Writer = (*run)(nil)

// host is what gonja's renderer needs besides the tree. Nothing in it is ever changed.
var host = struct {
	config      *config.Config
	environment *exec.Environment
	template    *exec.Template
}{
	config: config.New(),
	environment: &exec.Environment{
		Filters:           exec.NewFilterSet(nil),
		Tests:             exec.NewTestSet(nil),
		ControlStructures: exec.NewControlStructureSet(nil),
		Context:           exec.EmptyContext(),
	},
}

func init() {
	const name = "/twig"
	loader := loaders.MustNewMemoryLoader(map[string]string{name: ""})
	t, err := exec.NewTemplate(name, host.config, loader, host.environment)
	if err != nil {
		panic(err) // an empty template parses, or gonja is broken
	}
	host.template = t
}

// tree makes the tree that gonja walks for a template.
func tree(t *Template) *nodes.Template {
	token := &tokens.Token{Line: 1, Col: 1}
	return &nodes.Template{
		Identifier: t.src.name,
		Nodes: []nodes.Node{&nodes.ControlStructureBlock{
			Location: token, Name: "twig", ControlStructure: &body{token: token, tmpl: t},
		}},
	}
}

// hosted renders a template with gonja's renderer.
func (r *run) hosted(t *Template) error {
	renderer := exec.Renderer{
		Config: host.config, Environment: host.environment, Template: host.template, RootNode: t.tree, Output: r,
	}
	return renderer.Execute()
}
