package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// metricsOf lists the names of the metrics that the program's source declares.
func metricsOf(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
				if name, err := strconv.Unquote(text.Value); err == nil && strings.HasPrefix(name, "ledger_") {
					names[name] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil || len(names) < 20 {
		t.Fatalf("%d metrics in the source, %v", len(names), err)
	}
	return names
}

// What an alert or the dashboard asks for is a metric that the program has, each alert has its runbook, and no runbook is left over.
func TestWhatIsWatchedIsMeasured(t *testing.T) {
	t.Parallel()
	var alerts struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations struct{ Summary, Runbook string }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "docs/ops/alerts.yml")), &alerts); err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "docs/ops/dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	asked := map[string]string{} // by where it is asked
	runbooks := read(t, "docs/ops/runbooks.md")
	known := map[string]bool{}
	for _, r := range alerts.Groups[0].Rules {
		asked["the alert "+r.Alert] = r.Expr
		known[r.Alert] = true
		if !strings.Contains(runbooks, "\n## "+r.Alert+"\n") || r.Annotations.Runbook != "docs/ops/runbooks.md#"+strings.ToLower(r.Alert) || r.Annotations.Summary == "" {
			t.Errorf("the alert %s has no runbook, does not name it, or says nothing: %+v", r.Alert, r.Annotations)
		}
	}
	for _, heading := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(runbooks, -1) {
		if !known[heading[1]] {
			t.Errorf("the runbook %s is for no alert", heading[1])
		}
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			asked["the panel "+p.Title] += " " + target.Expr
		}
	}
	metrics, suffix := metricsOf(t), regexp.MustCompile(`_(bucket|sum|count)$`)
	for where, expr := range asked {
		found := regexp.MustCompile(`\bledger_\w+`).FindAllString(expr, -1)
		if len(found) == 0 {
			t.Errorf("%s asks for none of ours: %s", where, expr)
		}
		for _, name := range found {
			if !metrics[name] && !metrics[suffix.ReplaceAllString(name, "")] {
				t.Errorf("%s asks for %s, which the program does not have", where, name)
			}
		}
	}
}

// What compose.yaml refers to is there: files that it mounts, services that others wait for, volumes, and environment variables
// that are flags of the command.
func TestComposeRefersToWhatIsThere(t *testing.T) {
	t.Parallel()
	var compose struct {
		Services map[string]struct {
			Command     []string
			Environment map[string]string
			Volumes     []string
			DependsOn   any `yaml:"depends_on"`
		}
		Volumes map[string]any
	}
	if err := yaml.UnmarshalWithOptions([]byte(read(t, "compose.yaml")), &compose, yaml.AllowDuplicateMapKey()); err != nil { // a merged key that is given anew
		t.Fatal(err)
	}
	if len(compose.Services) < 5 {
		t.Fatalf("%d services", len(compose.Services))
	}
	for name, s := range compose.Services {
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, err := os.Stat(filepath.Join("../..", from)); strings.HasPrefix(from, ".") && err != nil {
				t.Errorf("%s mounts %s, which is not there", name, from)
			}
			if _, ok := compose.Volumes[from]; !strings.HasPrefix(from, ".") && !ok {
				t.Errorf("%s mounts the volume %s, which is not declared", name, from)
			}
		}
		var before []string
		switch d := s.DependsOn.(type) {
		case []any:
			for _, other := range d {
				before = append(before, other.(string))
			}
		case map[string]any:
			for other := range d {
				before = append(before, other)
			}
		}
		for _, other := range before {
			if _, ok := compose.Services[other]; !ok {
				t.Errorf("%s waits for %s, which is no service", name, other)
			}
		}
		for variable := range s.Environment {
			flag, ours := strings.CutPrefix(variable, "DISPATCH_LEDGER_")
			if flag = strings.ToLower(strings.ReplaceAll(flag, "_", "-")); ours && commandFails(t, []string{"serve", "--" + flag + "=x"}) {
				t.Errorf("%s sets %s, and serve has no such flag", name, variable)
			}
		}
		if len(s.Command) > 0 && s.Command[0] == "serve" && commandFails(t, s.Command) {
			t.Errorf("%s runs %v, which is no command", name, s.Command)
		}
	}
}
