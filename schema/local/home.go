package local

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	fallbackDir  = "/var/lib/dispatch-ledger"
	locationName = "postgres.location"
	logName      = "postgres.log"
)

// home is the folder that holds one cluster and what belongs to it, and the user who runs its server.
type home struct {
	dataDir string // the ledger's data directory, absolute
	dir     string // the folder, absolute
	user    user
}

func (h home) file(name string) string { return filepath.Join(h.dir, name) }
func (h home) data() string            { return h.file("data") }

// findHome says where the cluster is: where the data directory's location file says, else in the data directory. It
// makes the data directory, and nothing more.
func findHome(cfg Config, log *slog.Logger) (home, error) {
	if cfg.DataDir == "" {
		return home{}, errors.New("no data directory was given for the private PostgreSQL")
	}
	dataDir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return home{}, err
	}
	if err := makeDir(dataDir); err != nil {
		return home{}, fmt.Errorf("make the data directory: %w", err)
	}
	h := home{dataDir: dataDir, dir: filepath.Join(dataDir, "postgres")}
	pointer := filepath.Join(dataDir, locationName)
	text, err := os.ReadFile(pointer)
	switch {
	case err == nil:
		// The path stands in the last line.
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		h.dir = lines[len(lines)-1]
		if !filepath.IsAbs(h.dir) {
			return home{}, fmt.Errorf("%w: %s names no absolute path in its last line", ErrUnreachable, pointer)
		}
		if _, err := os.Stat(h.dir); err != nil {
			return home{}, fmt.Errorf("%w: %s says that the database is elsewhere: %w; bring it back, or remove the file to begin an empty ledger",
				ErrUnreachable, pointer, err)
		}
		log.Debug("the private PostgreSQL lives outside the data directory", slog.String("dir", h.dir))
	case !errors.Is(err, fs.ErrNotExist):
		return home{}, err
	}
	h.user, err = serverUser(h.data())
	return h, err
}

// settle makes the folder, elsewhere if the server's user cannot reach it in the data directory.
func (h *home) settle(ctx context.Context, cfg Config, i install, log *slog.Logger) error {
	parent := filepath.Dir(h.dir)
	ok, err := h.canEnter(ctx, i, parent)
	if err != nil {
		return err
	}
	if !ok {
		if _, err := os.Stat(h.dir); err == nil {
			return fmt.Errorf("%w: user %s, who runs PostgreSQL, may not enter %s; allow it to each of its parents (chmod o+x)", ErrUnreachable, h.user.name, parent)
		}
		if err := h.move(ctx, cmp.Or(cfg.Fallback, fallbackDir), i, log); err != nil {
			return err
		}
	}
	for _, dir := range []string{h.dir, h.file("conf")} {
		if err := makeDir(dir); err != nil {
			return fmt.Errorf("make a directory for the private PostgreSQL: %w", err)
		}
	}
	return nil
}

// move puts a folder that does not exist yet below fallback, and leaves word of it in the data directory.
func (h *home) move(ctx context.Context, fallback string, i install, log *slog.Logger) error {
	if err := makeDir(fallback); err != nil {
		return fmt.Errorf("%w: user %s, who runs PostgreSQL, may not enter %s, and %s cannot be made: %w; choose another data directory",
			ErrUnreachable, h.user.name, h.dataDir, fallback, err)
	}
	ok, err := h.canEnter(ctx, i, fallback)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: user %s, who runs PostgreSQL, may enter neither %s nor %s; choose a data directory that it can enter, or allow it (chmod o+x)",
			ErrUnreachable, h.user.name, h.dataDir, fallback)
	}
	h.dir = filepath.Join(fallback, filepath.Base(h.dataDir)+"-"+digest(h.dataDir))
	if err := makeDir(h.dir); err != nil {
		return err
	}
	pointer := filepath.Join(h.dataDir, locationName)
	text := "The ledger's private PostgreSQL may not run as root, and the user who runs it may not enter this directory.\n" +
		"So its data is here:\n" + h.dir + "\n"
	if err := os.WriteFile(pointer, []byte(text), 0o600); err != nil {
		return err
	}
	log.WarnContext(ctx, "the private PostgreSQL may not enter the data directory and lives elsewhere",
		slog.String("data_dir", h.dataDir), slog.String("user", h.user.name), slog.String("dir", h.dir), slog.String("noted_in", pointer))
	return nil
}

// canEnter asks the machine itself, access lists and all, by starting the server's binary in the directory.
func (h home) canEnter(ctx context.Context, i install, dir string) (bool, error) {
	_, err := h.user.prepare(i.command(ctx, "postgres", "--version"), dir).Output()
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	return err == nil, err
}

// major is the cluster's major version, 0 if there is no cluster.
func (h home) major() (int, error) {
	text, err := os.ReadFile(filepath.Join(h.data(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("%w: %w; the cluster belongs to another user", ErrUnreachable, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// outlived says whether the machine was started anew since the cluster was last used, and notes the present boot. Where
// the machine gives its boots no name, none is ever noticed.
func (h home) outlived() bool {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false
	}
	last, err := os.ReadFile(h.file("boot"))
	if err == nil && string(last) == string(boot) {
		return false
	}
	return os.WriteFile(h.file("boot"), boot, 0o600) == nil
}

// socketName is the server's socket in its directory; the number is PostgreSQL's way of naming it, nothing listens there.
const socketName = ".s.PGSQL.5432"

// socketPathMax is the longest socket path, in bytes, that every Unix accepts: 103 on macOS and the BSDs, 107 on Linux.
const socketPathMax = 103

// socketDir makes a directory for the socket that only the server's user can enter: in the folder, or where its path is
// too long a short one for this folder alone. It returns "" if there is none.
func (h home) socketDir() string {
	for _, dir := range []string{h.file("run"), h.runtimeDir()} {
		if len(filepath.Join(dir, socketName)) > socketPathMax || strings.ContainsAny(dir, `,'"\`) {
			continue
		}
		if err := os.Mkdir(dir, 0o700); err == nil {
			if h.user.give(dir, 0o700) != nil {
				continue
			}
		}
		if h.user.owns(dir) { // in a directory that others write to, it may be somebody else's
			return dir
		}
	}
	return ""
}

// runtimeDir is the short place for the socket: the same for the same folder, so that nothing piles up.
func (h home) runtimeDir() string {
	base := os.TempDir()
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && os.Geteuid() != 0 {
		base = dir
	}
	return filepath.Join(base, "dispatch-ledger-"+digest(h.dir))
}

// tidy removes what lies outside the folder once the server has stopped.
func (h home) tidy() {
	if dir := h.runtimeDir(); h.user.owns(dir) {
		_ = os.Remove(dir) // what stays is used again by the next start
	}
}

// digest tells paths apart, in 8 characters.
func digest(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:4])
}

// makeDir makes a directory and its parents. For root, those it makes can be entered by the server's user, whatever the
// umask; those that exist stay as they are.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return err
	}
	if err == nil && os.Geteuid() == 0 {
		err = os.Chmod(dir, 0o711) //nolint:gosec // to pass through, not to list
	}
	return err
}
