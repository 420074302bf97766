//go:build !unix

package local

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

type user struct{ name string }

// serverUser refuses: sockets, sessions and file owners are what a private server's safety rests on.
func serverUser(string) (user, error) {
	return user{}, fmt.Errorf("%w: a private PostgreSQL runs on Unix, not on %s; give the ledger a DATABASE_URL", ErrUnreachable, runtime.GOOS)
}

func (u user) names() []string                             { return []string{u.name} }
func (u user) prepare(cmd *exec.Cmd, dir string) *exec.Cmd { cmd.Dir = dir; return cmd }
func (u user) give(path string, mode os.FileMode) error    { return os.Chmod(path, mode) }
func (u user) owns(string) bool                            { return false }
