//go:build unix

package local

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// user is who runs the server: ourselves, or somebody unprivileged when we are root.
type user struct {
	name     string
	uid, gid uint32
	drop     bool // we are root and become this user
}

// unprivileged are the users that root's server runs as, in order of preference.
var unprivileged = []string{"postgres", "_postgres", "pgsql", "nobody"}

// serverUser returns who runs the server on the cluster in data: its owner, if it exists.
func serverUser(data string) (user, error) {
	if os.Geteuid() != 0 {
		u := user{name: strconv.Itoa(os.Geteuid()), uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())} //nolint:gosec // ids are 32 bits wide
		if known, err := osuser.LookupId(u.name); err == nil {
			u.name = known.Username
		}
		return u, nil
	}
	if owner, ok := ownerOf(data); ok && owner != 0 {
		known, err := osuser.LookupId(strconv.FormatUint(uint64(owner), 10))
		if err != nil {
			return user{}, fmt.Errorf("%w: %s belongs to user %d, whom this machine does not know: %w", ErrUnreachable, data, owner, err)
		}
		return parseUser(known)
	}
	for _, name := range unprivileged {
		if known, err := osuser.Lookup(name); err == nil && known.Uid != "0" {
			return parseUser(known)
		}
	}
	return user{}, fmt.Errorf("%w: PostgreSQL does not run as root, and none of the users %s exists; run the ledger as an ordinary user or give it a DATABASE_URL",
		ErrUnreachable, strings.Join(unprivileged, ", "))
}

func parseUser(known *osuser.User) (user, error) {
	uid, err1 := strconv.ParseUint(known.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(known.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return user{}, fmt.Errorf("user %s: %w", known.Username, err)
	}
	return user{name: known.Username, uid: uint32(uid), gid: uint32(gid), drop: true}, nil
}

// names are the operating system users who may be the owner role: the server's, and ours.
func (u user) names() []string {
	names := []string{u.name}
	if us, err := osuser.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
		names = append(names, us.Username)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// prepare makes a command run as the user, in dir, in a session of its own that no terminal's signal reaches, with an
// environment that says nothing about other databases.
func (u user) prepare(cmd *exec.Cmd, dir string) *exec.Cmd {
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if u.drop {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.uid, Gid: u.gid}
	}
	return cmd
}

// give makes a file or directory the user's, with this mode.
func (u user) give(path string, mode os.FileMode) error {
	if u.drop {
		if err := os.Lchown(path, int(u.uid), int(u.gid)); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// owns says whether path is a directory that belongs to the user and is closed to everybody else.
func (u user) owns(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
		return false
	}
	owner, ok := ownerOf(path)
	return ok && owner == u.uid
}

func ownerOf(path string) (uid uint32, ok bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return stat.Uid, true
}
