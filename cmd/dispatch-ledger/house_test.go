package main

import (
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dispatch-ledger/dispatch-ledger"

// doors says which rooms each room may import. Tests keep to it like the rest.
var doors = map[string][]string{
	"domain":      {"domain"},
	"schema":      {"schema", "domain"},
	"projections": {"projections", "schema", "domain"},
	"handlers":    {"handlers", "projections", "schema", "domain"},
	"cmd":         {"cmd", "handlers", "projections", "schema", "domain"},
}

// impure is what the domain may not import: clocks come as values, and the outside world stays outside.
var impure = []string{"database/sql", "log", "log/slog", "net", "net/http", "os", "os/exec", "syscall"}

// TestHouse keeps the doors between the rooms one-way, the domain pure, and Go out of every other folder.
func TestHouse(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-e", "-f",
		`{{.ImportPath}} {{join .Imports " "}}{{"\n"}}{{.ImportPath}}_test {{join .TestImports " "}} {{join .XTestImports " "}}`, module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		packages := strings.Fields(line)
		for _, fault := range faults(packages[0], packages[1:]) {
			t.Error(fault)
		}
	}

	root, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range goFiles(t, strings.TrimSpace(string(root))) {
		if doors[room(path)] == nil {
			t.Errorf("%s: Go code lives in the five rooms %v", path, rooms())
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pkg, imported string
		want          int
	}{
		"a door that is open":                      {"handlers/api", "schema", 0},
		"a door inside a room":                     {"handlers/api", "handlers/planner", 0},
		"a door that is closed":                    {"schema", "projections/consent", 1},
		"a library":                                {"schema", "", 0},
		"from a room's test to its room":           {"domain_test", "domain", 0},
		"from the domain to a room":                {"domain", "schema", 1},
		"a folder whose name begins like a room's": {"domain", "domains", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			imported := "github.com/lib/pq"
			if tc.imported != "" {
				imported = module + "/" + tc.imported
			}
			if got := faults(module+"/"+tc.pkg, []string{imported}); len(got) != tc.want {
				t.Errorf("faults = %q, want %d", got, tc.want)
			}
		})
	}
	if got := faults(module+"/domain/twig", impure); len(got) != len(impure) {
		t.Errorf("faults of an impure domain = %q, want one for each of %q", got, impure)
	}
	if got := faults(module+"/domain/twig_test", impure); len(got) != 0 {
		t.Errorf("faults of the domain's tests = %q, want none", got)
	}
	if got := faults(module+"/schema", impure); len(got) != 0 {
		t.Errorf("faults of an impure schema = %q, want none", got)
	}
}

// faults says what a package imports that it may not. Tests, whose package ends in _test, may touch the world.
func faults(pkg string, imports []string) (faults []string) {
	path, test := strings.CutSuffix(strings.TrimPrefix(pkg, module+"/"), "_test")
	from := room(path)
	for _, path := range imports {
		if from == "domain" && !test && slices.Contains(impure, path) {
			faults = append(faults, pkg+" imports "+path+": the domain is pure")
		}
		to, ours := strings.CutPrefix(path, module+"/")
		if to = room(to); ours && !slices.Contains(doors[from], to) {
			faults = append(faults, pkg+" imports "+path+": the door from "+from+" to "+to+" is closed")
		}
	}
	return faults
}

// room is the first element of a slash-separated path.
func room(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

func rooms() []string {
	var names []string
	for name := range doors {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// goFiles lists every Go file below root, relative to it, hidden folders excepted.
func goFiles(t *testing.T, root string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case !entry.IsDir() && strings.HasSuffix(path, ".go"):
			relative, err := filepath.Rel(root, path)
			paths = append(paths, filepath.ToSlash(relative))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatalf("no Go file below %s", root)
	}
	return paths
}
