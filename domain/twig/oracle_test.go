package twig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var (
	oracleCases  = flag.Int("oracle", 0, "how many generated bodies to ask the PHP Twig of this machine about")
	oracleFirst  = flag.Int("oracle-first", 0, "number of the first one")
	oracleSeed   = flag.Uint64("oracle-seed", 1, "which of them")
	oracleTwig   = flag.String("oracle-twig", "", "the folder of Twig's classes; default Debian's php-twig")
	oracleShow   = flag.Int("oracle-show", 25, "how many differences to shrink and show")
	oracleRecord = flag.Bool("oracle-record", false, "ask anew about what testdata/oracle.jsonl holds, and write it")
)

// oracleCase is a template, a context, and what real Twig makes of them.
type oracleCase struct {
	Template  string            `json:"template"`
	Templates map[string]string `json:"templates,omitempty"`
	Context   json.RawMessage   `json:"context"`
	Output    *string           `json:"output,omitempty"` // Twig's; nil when it refuses
	Phase     string            `json:"phase,omitempty"`  // in which it refuses: compile or runtime
	Error     string            `json:"error,omitempty"`  // Twig's words
	Twig      string            `json:"twig,omitempty"`   // version that answered
	Now       int64             `json:"now,omitempty"`    // Twig's clock, in seconds
	Note      string            `json:"note,omitempty"`   // why we answer something else, "" for what must be the same
	Ours      string            `json:"ours,omitempty"`   // with Note: what we answer
}

// TestOracleRecorded replays what real Twig once answered differently from us, and a sample of what it did not: this
// needs no PHP.
func TestOracleRecorded(t *testing.T) {
	t.Parallel()
	cases := readOracle(t)
	if len(cases) < sampleBodies {
		t.Fatalf("%d recorded answers", len(cases))
	}
	for _, c := range cases {
		got := c.ours()
		want := c.theirs()
		if c.Note != "" {
			want = c.Ours
		}
		if got != want {
			t.Errorf("%s\nwith %s\ngot  %q\nwant %q (Twig %s)", c.Template, c.Context, got, want, c.Twig)
		}
	}
}

// TestOracle asks the PHP Twig of this machine about bodies of the kind that people write:
//
//	go test ./domain/twig -run TestOracle$ -oracle 20000 -oracle-seed 7
//
// Without -oracle it asks about a few if there is a PHP Twig, so that the harness itself does not rot.
func TestOracle(t *testing.T) {
	n := *oracleCases
	if n == 0 {
		n = 300
	}
	o, err := startOracle(t, *oracleTwig)
	if err != nil {
		if *oracleCases > 0 {
			t.Fatal(err)
		}
		t.Logf("recorded answers only: %v", err)
		return
	}
	if *oracleCases == 0 && strings.HasPrefix(o.version, "3.5.") {
		t.Logf("recorded answers only: Twig %s is older than what we follow", o.version)
		return
	}
	if *oracleRecord {
		o.record(t)
		return
	}
	shown := 0
	for i := *oracleFirst; i < *oracleFirst+n; i++ {
		g := &bodies{rand: rand.New(rand.NewPCG(*oracleSeed, uint64(i))), modern: !strings.HasPrefix(o.version, "3.5.")}
		c := g.body()
		o.ask(t, &c)
		if c.ours() == c.theirs() || c.Phase == "encoding" || accepted(c) {
			continue
		}
		if shown++; shown <= *oracleShow {
			c = o.shrink(t, c)
			t.Errorf("seed %d, body %d:\n%s\nwith %s\ngot  %q (%s)\nwant %q (Twig %s: %s)", *oracleSeed, i, c.Template, c.Context, c.ours(), c.why(), c.theirs(), c.Twig, c.Error)
		}
	}
	t.Logf("Twig %s: %d of %d bodies differ", o.version, shown, n)
}

// accepted are differences that are meant to be.
func accepted(c oracleCase) bool {
	ours := c.ours()
	if c.Output != nil && strings.HasPrefix(c.why(), "index.twig:") && strings.Contains(c.why(), ": date_modify: ") {
		return true // PHP goes on with false, which is now to the next filter
	}
	if c.Output != nil && strings.Contains(c.why(), "cannot be written as JSON") {
		return true // PHP prints nothing for INF and NAN
	}
	if c.Output == nil && c.Phase == "fatal" && strings.HasPrefix(ours, "error in ") {
		return true // we refuse when compiling what Twig's compiled template fails on
	}
	return strings.HasPrefix(ours, "error in runtime: "+CodeLimitMemory) || strings.HasPrefix(ours, "error in runtime: "+CodeLimitSteps)
}

// kind is how a case differs.
func (c oracleCase) kind() string {
	ours := c.ours()
	if !strings.HasPrefix(ours, "error in ") {
		ours = ""
	}
	return ours + "/" + c.Phase
}

func (c oracleCase) theirs() string {
	if c.Output == nil {
		return "error in " + strings.Replace(c.Phase, "fatal", "runtime", 1)
	}
	return *c.Output
}

// ours is what we answer, errors without their words.
func (c oracleCase) ours() string {
	o := Options{Mode: ModeText}
	if c.Templates != nil {
		o.Partials = lookup(c.Templates)
	}
	said := func(phase string, err error) string {
		var e *Error
		if !errors.As(err, &e) {
			return "no *Error: " + err.Error()
		}
		if e.Code == CodeInternal || strings.HasPrefix(e.Code, "limit") {
			return "error in " + phase + ": " + e.Code
		}
		return "error in " + phase
	}
	tm, err := Compile(c.Template, o)
	if err != nil {
		return said("compile", err)
	}
	data, err := DecodeContext(c.Context)
	if err != nil {
		return said("context", err)
	}
	r, err := tm.Render(context.Background(), data, RenderOptions{Now: func() time.Time { return time.Unix(c.Now, 0).UTC() }})
	if err != nil {
		return said("runtime", err)
	}
	return r.Output
}

// why is our error in its own words, for whoever reads a failure.
func (c oracleCase) why() string {
	tm, err := Compile(c.Template, Options{Mode: ModeText, Partials: lookup(c.Templates)})
	if err == nil {
		data, _ := DecodeContext(c.Context)
		_, err = tm.Render(context.Background(), data, RenderOptions{Now: fixedNow})
	}
	return fmt.Sprint(err)
}

func readOracle(t *testing.T) []oracleCase {
	t.Helper()
	f, err := os.Open("testdata/oracle.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []oracleCase
	d := json.NewDecoder(f)
	for d.More() {
		var c oracleCase
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// record asks Twig again about every recorded case, adds bodies up to sampleBodies, and writes the file anew.
func (o *oracle) record(t *testing.T) {
	t.Helper()
	cases := readOracle(t)
	for i := uint64(0); len(cases) < sampleBodies; i++ {
		g := &bodies{rand: rand.New(rand.NewPCG(*oracleSeed, i))}
		c := g.body()
		c.prune()
		if o.ask(t, &c); c.Output != nil && c.ours() == *c.Output && len(c.Template) > 200 {
			cases = append(cases, c)
		}
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, c := range cases {
		o.ask(t, &c)
		c.Ours, c.Error = "", ""
		if ours := c.ours(); ours != c.theirs() {
			c.Ours = ours
			if c.Note == "" {
				t.Errorf("%s\ngot  %q (%s)\nwant %q: mend it, or say why in its note", c.Template, ours, c.why(), c.theirs())
			}
		}
		if err := e.Encode(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("testdata/oracle.jsonl", []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

const sampleBodies = 320

// prune drops what the template does not name.
func (c *oracleCase) prune() {
	var vars map[string]json.RawMessage
	if json.Unmarshal(c.Context, &vars) != nil || strings.Contains(c.Template, "_context") {
		return
	}
	for name := range vars {
		if !strings.Contains(c.Template, name) && !(strings.Contains(c.Template, "footer") && (name == "profile" || name == "items")) && !(strings.Contains(c.Template, "base") && name == "id") {
			delete(vars, name)
		}
	}
	for name := range c.Templates {
		if !strings.Contains(c.Template, name) {
			delete(c.Templates, name)
		}
	}
	c.Context, _ = json.Marshal(vars)
}

// oracle is a PHP process that answers one case a line.
type oracle struct {
	version string
	folder  string
	in      *json.Encoder
	out     *bufio.Reader
}

func startOracle(t *testing.T, folder string) (*oracle, error) {
	t.Helper()
	php, err := exec.LookPath("php")
	if err != nil {
		return nil, err
	}
	args := []string{"testdata/oracle.php"}
	if folder != "" {
		args = append(args, folder)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	cmd := exec.CommandContext(ctx, php, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	t.Cleanup(func() {
		_ = in.Close()
		cancel()
		_ = cmd.Wait()
	})
	o := &oracle{folder: folder, in: json.NewEncoder(in), out: bufio.NewReader(out)}
	line, err := o.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &struct{ Version *string }{&o.version})
	}
	if err != nil || o.version == "" {
		return nil, fmt.Errorf("PHP has no Twig: %q, %w", line, err)
	}
	return o, nil
}

// ask fills in what Twig answers.
func (o *oracle) ask(t *testing.T, c *oracleCase) {
	t.Helper()
	c.Output, c.Phase, c.Error, c.Twig = nil, "", "", o.version
	var line []byte
	err := o.in.Encode(c)
	if err == nil {
		line, err = o.out.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, c)
	}
	if err == nil && c.Phase == "fatal" {
		var again *oracle
		if again, err = startOracle(t, o.folder); err == nil {
			*o = *again
		}
	}
	if err != nil {
		t.Fatalf("%s: the oracle answers %q, %v", c.Template, line, err)
	}
}

// shrink makes a case that differs smaller, as long as it differs: whole pieces of the template first, then
// characters, then variables of the context.
func (o *oracle) shrink(t *testing.T, c oracleCase) oracleCase {
	t.Helper()
	asked := 0
	differs := func(c *oracleCase) bool {
		if asked++; asked > 600 {
			return false
		}
		o.ask(t, c)
		return c.Phase != "encoding" && c.ours() != c.theirs() && !accepted(*c)
	}
	kind := c.kind() // a smaller case must differ in the same way
	for size := len([]rune(c.Template)) / 2; size > 0; {
		smaller := false
		for at := 0; at+size <= len([]rune(c.Template)); {
			d, runes := c, []rune(c.Template)
			d.Template = string(runes[:at]) + string(runes[at+size:])
			if differs(&d) && d.kind() == kind {
				c, smaller = d, true
			} else {
				at += max(1, size/2)
			}
		}
		if !smaller || size > len(c.Template) {
			size /= 2
		}
	}
	var vars map[string]json.RawMessage
	if json.Unmarshal(c.Context, &vars) == nil {
		for _, name := range sortedKeys(vars) {
			kept := vars[name]
			delete(vars, name)
			d := c
			d.Context, _ = json.Marshal(vars)
			if differs(&d) && d.kind() == kind {
				c = d
			} else {
				vars[name] = kept
			}
		}
	}
	o.ask(t, &c)
	return c
}
