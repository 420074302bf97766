// Command dispatch-ledger is the ledger of everything that a retail CRM sends through its comms platforms, and of the
// right to send it. See docs/cli.md, which is written by this program.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func main() {
	if _, set := os.LookupEnv("GOGC"); !set {
		// The service holds little and allocates much: at the default it would collect a heap of a few megabytes hundreds of
		// times a second. Measured with bench append: a third more events a second.
		debug.SetGCPercent(400)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, environ{lookup: os.LookupEnv, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}

// environ is the world as the program sees it, so that tests can be another.
type environ struct {
	lookup         func(string) (string, bool)
	stdin          io.Reader
	stdout, stderr io.Writer
}

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1 // one line on stderr says what, and what to do
	exitUsage  = 2
	exitUntrue = 3 // it ran, and what it checks does not hold
)

// errUntrue is a check that ran and does not hold. What does not was printed.
var errUntrue = errors.New("does not hold")

// usageError is a mistake in how the program was called.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run is the program: arguments in, exit code out.
func run(ctx context.Context, env environ, args []string) int {
	root := newRoot(env)
	root.SetArgs(args)
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var usage usageError
	switch {
	case errors.Is(err, errUntrue):
		return exitUntrue
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "required flag"):
		fmt.Fprintf(env.stderr, "dispatch-ledger: %s; see dispatch-ledger --help\n", oneLine(err))
		return exitUsage
	}
	fmt.Fprintf(env.stderr, "dispatch-ledger: %s\n", oneLine(err))
	return exitFailed
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// newRoot is the table of commands, one file each or one for a family.
func newRoot(env environ) *cobra.Command {
	s := &settings{env: env}
	root := &cobra.Command{
		Use:   "dispatch-ledger",
		Short: "The ledger of everything a retail CRM sends, and of the right to send it",
		Long: "Dispatch Ledger fires targets at comms platforms and keeps the evidence: every firing, consent change and attempt\n" +
			"is an event in an append-only ledger, and everything else follows from it.\n\n" +
			"Without --database-url or DATABASE_URL it runs a private PostgreSQL under --data-dir.",
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags(), env.lookup) },
	}
	s.addTo(root.PersistentFlags())
	root.AddCommand(
		newServe(s), newDemo(s),
		newRender(s), newLint(s), newTargets(s), newPartials(s), newFire(s), newConsent(s), newAudit(s), newDeliveries(s), newQueue(s),
		newPlatforms(s), newReconcile(s), newFindings(s),
		newRebuild(s), newVerify(s), newProjections(s), newCheckpoint(s), newEvidence(s), newExport(s), newArchive(s),
		newBroker(s), newErase(s), newAccess(s), newRetention(s), newKeys(s),
		newToken(s), newSecret(s), newMigrate(s), newSimulate(s), newBench(s), newVersion(s), newDocs(),
	)
	wrapUsage(root)
	return root
}

// wrapUsage makes mistakes in flags and arguments usage errors, in every command.
func wrapUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	} else if cmd.HasSubCommands() && cmd.RunE == nil {
		cmd.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for %q", args[0], c.CommandPath())
			}
			return c.Help()
		}
	}
	for _, sub := range cmd.Commands() {
		wrapUsage(sub)
	}
}

// fromEnvironment gives each flag that was not set the value of its environment name: flag beats environment beats
// default. The name is DISPATCH_LEDGER_ and the flag's, in capitals.
func fromEnvironment(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := environmentName(f.Name)
		if v, ok := lookup(name); ok && !f.Changed {
			if err := flags.Set(f.Name, v); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	return nil
}

func environmentName(flag string) string {
	return "DISPATCH_LEDGER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
