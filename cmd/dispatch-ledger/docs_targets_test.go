package main

import (
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Every target on the page for those who write them compiles, every command on it is one, and every field is on it.
func TestThePageAboutTargets(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/targets.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	files := 0
	for _, part := range strings.Split(string(page), "```yaml\n")[1:] {
		file, _, _ := strings.Cut(part, "```")
		changed, err := domain.ParseTargetFile([]byte(file))
		if err == nil {
			_, err = domain.CompileTarget(changed.Target, domain.Partials{})
		}
		if err != nil {
			t.Errorf("%v\n%s", err, file)
		}
		if seen[changed.Handle] {
			t.Errorf("two targets are called %s", changed.Handle)
		}
		seen[changed.Handle] = true
		files++
	}
	if files < 10 {
		t.Errorf("%d targets on the page, want them all", files)
	}
	commands := 0
	for _, part := range strings.Split(string(page), "```sh\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		for line := range strings.Lines(block) {
			_, line, _ = strings.Cut("\n"+line, "dispatch-ledger ")
			line, _, _ = strings.Cut(line, "#")
			line, _, _ = strings.Cut(line, "<")
			if commandFails(t, words(strings.TrimSpace(line))) {
				t.Errorf("no such command: dispatch-ledger %s", line)
			}
			commands++
		}
	}
	if commands < 20 {
		t.Errorf("%d commands on the page, want them all", commands)
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[domain.Target]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !strings.Contains(string(page), "`"+name+"`") && !strings.Contains(string(page), "\n"+name+":") && !strings.Contains(string(page), "`"+name+":") {
			t.Errorf("the page does not say what %s is", name)
		}
	}
}

// commandFails reports whether a line does not parse as one of the program's commands.
func commandFails(t *testing.T, args []string) bool {
	t.Helper()
	root := newRoot(environ{lookup: func(string) (string, bool) { return "", false }, stdout: io.Discard, stderr: io.Discard})
	cmd, rest, err := root.Find(args)
	if err != nil || cmd == root || !cmd.Runnable() {
		return true
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return true
	}
	return cmd.Args != nil && cmd.Args(cmd, cmd.Flags().Args()) != nil
}

// words splits a command line; what is quoted is one word.
func words(line string) (out []string) {
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			out = append(out, part)
			continue
		}
		out = append(out, strings.Fields(part)...)
	}
	return out
}
