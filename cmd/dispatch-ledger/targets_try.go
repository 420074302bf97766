package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/trial"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// testTarget is the command that tries a target out.
func (s *settings) testTarget() *cobra.Command {
	var file, delivery, profile, draft, to string
	var version int64
	var f serveFlags
	var r trial.Request
	cmd := &cobra.Command{
		Use:   "test HANDLE [--context FILE]",
		Short: "Try a target out: in the inspector, where nothing leaves, or at its real URL; says which variables did not resolve",
		Long: "Renders the target with a context (--context), with that of a past delivery (--delivery, which takes a --reason and is recorded), or with the target's own\n" +
			"sample. The request goes to the inspector, with dots in the place of secrets, and shows live on the bin's page. With --to url it is a firing with\n" +
			"the cause test, of the target as it is: consent is asked, and it is recorded like every delivery.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if to != "inspector" && to != "url" {
				return usagef("--to is %q; it is inspector or url", to)
			}
			if to == "url" && (draft != "" || version != 0) {
				return usagef("--to url tests the target as it is, without --draft and --version")
			}
			if file != "" {
				if r.Context, err = readFile(s.env.stdin, file); err != nil {
					return err
				}
			}
			var person uuid.UUID
			for _, id := range []struct {
				flag, text string
				into       *uuid.UUID
			}{{"delivery", delivery, &r.Delivery}, {"profile", profile, &person}} {
				if id.text == "" {
					continue
				}
				if *id.into, err = uuid.Parse(id.text); err != nil {
					return usagef("--%s %q is no UUID", id.flag, id.text)
				}
			}
			o, err := f.workers()
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				if err := st.tried(ctx, args[0], draft, version, &r); err != nil {
					return err
				}
				trials := st.trials(o)
				if to == "url" {
					return st.fireTest(ctx, trials, r, person, o)
				}
				report, err := trials.Rehearse(ctx, author(), r)
				if err != nil {
					return err
				}
				return st.printReport(report)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "context", "", "JSON file with the event context; - reads standard input; without it, the target's own sample")
	flags.StringVar(&delivery, "delivery", "", "a past delivery, by its id, whose context is used")
	flags.StringVar(&r.Reason, "reason", "", "why the past context may be looked at; recorded")
	flags.StringVar(&draft, "draft", "", "target file to be used instead of the recorded target")
	flags.Int64Var(&version, "version", 0, "of the target; the current one by default")
	flags.StringVar(&to, "to", "inspector", "inspector, or url: the real one")
	flags.StringVar(&r.Bin, "bin", "", "of the inspector; one is made by default")
	flags.StringVar(&profile, "profile", "", "with --to url: the person whose consent is asked")
	flags.StringSliceVar(&f.allowNetworks, "allow-network", nil, "with --to url: network that targets may reach besides public addresses (repeatable)")
	flags.StringToStringVar(&f.variables, "variable", nil, "constant that templates may name, as serve has it (repeatable)")
	flags.StringVar(&f.environment, "environment", "", "which of the target's environments it is tested in")
	return cmd
}

func (st *store) trials(o workerOptions) trial.Trials {
	return trial.Trials{
		DB: st.db, Ledger: st.ledger, Vault: st.vault, Inspector: st.inspector(), Variables: o.variables, Environment: o.environment, Now: time.Now,
	}
}

// tried finds what is tried out: a draft, or a version of the target.
func (st *store) tried(ctx context.Context, handle, draft string, version int64, r *trial.Request) error {
	if draft != "" {
		content, err := readFile(st.settings.env.stdin, draft)
		if err != nil {
			return err
		}
		changed, err := domain.ParseTargetFile(content)
		if err != nil {
			return fmt.Errorf("%s: %w", draft, err)
		}
		if changed.Handle != handle {
			return fmt.Errorf("%s: is of the target %s, not of %s", draft, changed.Handle, handle)
		}
		r.Target = changed.Target
		return nil
	}
	t, err := st.catalogue().Version(ctx, handle, version)
	if err != nil {
		return err
	}
	r.Target, r.Version = t.Target, t.Version
	return nil
}

func (st *store) fireTest(ctx context.Context, trials trial.Trials, r trial.Request, profile uuid.UUID, o workerOptions) error {
	id, err := trials.Fire(ctx, author(), r, profile)
	if err != nil {
		return err
	}
	d, err := st.follow(ctx, id, o)
	if err != nil {
		return err
	}
	if err := st.printDelivery(d); err != nil {
		return err
	}
	answer, err := trials.Answer(ctx, author(), d)
	if err != nil || answer == nil || answer.ResponseBody == "" {
		return err
	}
	_, err = fmt.Fprintf(st.settings.env.stdout, "the receiver said:\n%s\n", answer.ResponseBody)
	return err
}

func (st *store) printReport(r trial.Report) error {
	s := st.settings
	if s.output == "json" {
		return s.printJSON(r)
	}
	out := s.env.stdout
	fmt.Fprintf(out, "%s %s\n", r.Method, r.URL)
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		for _, value := range r.Headers[name] {
			fmt.Fprintf(out, "%s: %s\n", name, value)
		}
	}
	fmt.Fprintf(out, "\n%s\n\n", r.Body)
	for _, u := range r.Unresolved {
		fmt.Fprintf(out, "unresolved: %s, %s line %d, column %d\n", u.Name, u.Part, u.Line, u.Column)
	}
	if r.Condition != nil && !*r.Condition {
		fmt.Fprintln(out, "the target's condition is not met by this context: a firing like this would be withheld")
	}
	if r.Problem != "" {
		fmt.Fprintf(out, "the platform would not take the body: %s\n", r.Problem)
	}
	if r.NotSent != "" {
		return errors.New("not sent: " + r.NotSent)
	}
	fmt.Fprintf(out, "in the inspector: request %d of bin %s until %s\n", r.Number, r.Bin.ID, stamp(r.Bin.ExpiresAt))
	fmt.Fprintf(out, "look at it where serve listens: /inspector/%s#%s\n", r.Bin.ID, r.Key)
	return nil
}

// sweepInspector deletes the bins whose time is over, until ctx ends.
func (st *store) sweepInspector(ctx context.Context, i *schema.Inspector) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if err := i.Sweep(ctx); err != nil && ctx.Err() == nil {
			st.log.WarnContext(ctx, "sweeping the inspector failed; trying again in a minute")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
