package local

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// EnvBinDir names the environment variable with the directory of the server's binaries.
const EnvBinDir = "DISPATCH_LEDGER_POSTGRES_BIN"

// MajorMin is the oldest major version that the ledger runs on.
const MajorMin = 15

// binDirs are the places where packages put the server's binaries, beside PATH.
var binDirs = []string{
	"/usr/lib/postgresql/*/bin",     // Debian, Ubuntu
	"/usr/pgsql-*/bin",              // the PostgreSQL project's packages for Fedora and RHEL
	"/usr/libexec/postgresql*",      // Alpine
	"/usr/lib/postgresql*/bin",      // SUSE
	"/usr/lib64/postgresql-*/bin",   // Gentoo
	"/usr/local/pgsql/bin",          // built from source
	"/usr/local/lib/postgresql/bin", // the images' own builds
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
	"/opt/local/lib/postgresql*/bin", // MacPorts
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// howToInstall is the next step when there is no server, by package manager.
const howToInstall = "install it (apt-get install postgresql, dnf install postgresql-server, apk add postgresql, " +
	"pacman -S postgresql, zypper install postgresql-server, brew install postgresql@17), " +
	"name its directory in " + EnvBinDir + ", or give the URL of a database of your own in DATABASE_URL"

// install is one set of server binaries.
type install struct {
	bin   string // directory of postgres and initdb
	major int
}

// command prepares one of the binaries.
func (i install) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(i.bin, name), args...) //nolint:gosec // a directory of the operator's own choice
}

// findInstall returns the newest usable server, or for a cluster that exists the one of its own major version.
func findInstall(ctx context.Context, binDir string, h home) (install, error) {
	want, err := h.major()
	if err != nil {
		return install{}, err
	}
	explicit := cmp.Or(binDir, os.Getenv(EnvBinDir))
	dirs := []string{explicit}
	if explicit == "" {
		dirs = candidates()
	}
	var found []install
	var refusals []string
	for _, dir := range dirs {
		i, err := probe(ctx, dir, h.user)
		if err != nil {
			refusals = append(refusals, err.Error())
			continue
		}
		found = append(found, i)
	}
	if i, ok := choose(found, want); ok {
		return i, nil
	}

	seen := "looked on PATH and where packages put it"
	if explicit != "" {
		seen = "looked in " + explicit + " alone"
	}
	for _, i := range found {
		refusals = append(refusals, fmt.Sprintf("%s is version %d", i.bin, i.major))
	}
	if len(refusals) > 0 {
		seen += ": " + strings.Join(refusals, "; ")
	}
	if want != 0 {
		return install{}, fmt.Errorf("%w: %s was made by version %d and needs the same (%s); %s",
			ErrNoPostgres, h.data(), want, seen, howToInstall)
	}
	return install{}, fmt.Errorf("%w: version %d or newer is needed (%s); %s", ErrNoPostgres, MajorMin, seen, howToInstall)
}

// choose picks the version that is wanted, or the newest usable one if want is 0.
func choose(found []install, want int) (install, bool) {
	found = slices.DeleteFunc(slices.Clone(found), func(i install) bool {
		return i.major < MajorMin || want != 0 && i.major != want
	})
	if len(found) == 0 {
		return install{}, false
	}
	return slices.MaxFunc(found, func(a, b install) int { return cmp.Compare(a.major, b.major) }), true
}

// candidates lists the directories that hold a server, each once, PATH first.
func candidates() []string {
	var dirs []string
	add := func(dir string) {
		if resolved, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil {
			dir = filepath.Dir(resolved)
		} else {
			return
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) {
			add(dir)
		}
	}
	for _, pattern := range binDirs {
		matches, _ := filepath.Glob(pattern) // the patterns are constants and well-formed
		for _, dir := range matches {
			add(dir)
		}
	}
	return dirs
}

var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

// probe asks the binaries of one directory for their version, as the user who will run them.
func probe(ctx context.Context, dir string, u user) (install, error) {
	i := install{bin: dir}
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return install{}, fmt.Errorf("%s holds no initdb", dir)
	}
	out, err := u.prepare(i.command(ctx, "postgres", "--version"), "/").Output()
	if err != nil {
		return install{}, fmt.Errorf("%s does not run as user %s: %w", filepath.Join(dir, "postgres"), u.name, err)
	}
	m := versionLine.FindSubmatch(bytes.TrimSpace(out))
	if m == nil {
		return install{}, fmt.Errorf("%s names no version: %q", filepath.Join(dir, "postgres"), out)
	}
	i.major, err = strconv.Atoi(string(m[1]))
	return i, err
}
