package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/projections"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// rebuildFlags say what is rebuilt, how far and where.
type rebuildFlags struct {
	all        bool
	asOf       string
	toPosition int64
	into       string
	from       string
	slice      int64
	atOnce     int
	archives   []string
}

func newRebuild(s *settings) *cobra.Command {
	var f rebuildFlags
	cmd := &cobra.Command{
		Use: "rebuild [NAME…]", Short: "Build projections anew from the events: in place with one swap, as of a time, or an analyst's own",
		Long: "Without --as-of, --to-position, --into and --from each projection is built beside its live tables, which go on serving, and is\n" +
			"swapped in. With one of them it is built into a schema of its own, to be queried and then dropped (projections drop); asked for\n" +
			"again it is brought up to date. Whatever was interrupted goes on where it stopped.\n\n" +
			"--from takes a folder with tables.sql and apply.sql, see docs/analysts.md. It runs under a role that reads the ledger and\n" +
			"writes its own schema only.\n\n" +
			"Of a ledger whose first events were archived, --archive names the folders of all its archives: they are attached for as long\n" +
			"as it takes, and detached again.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(args); err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				return st.withArchives(ctx, f.archives, func() error {
					if f.aside() {
						return st.build(ctx, f, args)
					}
					return st.rebuild(ctx, f, args)
				})
			})
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.all, "all", false, "every projection")
	flags.StringVar(&f.asOf, "as-of", "", "what the ledger knew at this time, RFC 3339")
	flags.Int64Var(&f.toPosition, "to-position", 0, "up to this event")
	flags.StringVar(&f.into, "into", "", "SQL schema to build into; made when it is missing")
	flags.StringVar(&f.from, "from", "", "folder with tables.sql and apply.sql: a projection of your own, named after the folder unless NAME is given")
	flags.Int64Var(&f.slice, "slice", 0, "events in one transaction; 0 is 100,000")
	flags.StringArrayVar(&f.archives, "archive", nil, "folder of an archive that holds events from before the ledger's rows (repeatable)")
	flags.IntVar(&f.atOnce, "at-once", runtime.GOMAXPROCS(0), "how many projections are rebuilt at the same time")
	return cmd
}

// aside reports whether the live tables are left alone.
func (f rebuildFlags) aside() bool {
	return f.asOf != "" || f.toPosition != 0 || f.into != "" || f.from != ""
}

func (f rebuildFlags) check(args []string) error {
	switch {
	case f.all && (len(args) > 0 || f.aside()):
		return usagef("--all goes alone")
	case f.asOf != "" && f.toPosition != 0:
		return usagef("--as-of and --to-position both say how far; give one")
	case f.toPosition < 0:
		return usagef("--to-position is %d; positions count from 1", f.toPosition)
	case f.from != "" && len(args) > 1, f.from == "" && f.aside() && len(args) != 1:
		return usagef("name the one projection to build")
	case !f.aside() && !f.all && len(args) == 0:
		return usagef("name a projection, or give --all")
	}
	return nil
}

// rebuild swaps new tables in.
func (st *store) rebuild(ctx context.Context, f rebuildFlags, names []string) error {
	all := st.engine.Definitions()
	if !f.all {
		all = all[:0:0]
		for _, name := range names {
			d, err := st.engine.Find(name)
			if err != nil {
				return err
			}
			all = append(all, d)
		}
	}
	tell := st.progress()
	return st.engine.RebuildAll(ctx, all, f.atOnce, func(d projections.Definition) projections.RebuildOptions {
		return projections.RebuildOptions{Slice: f.slice, By: actor(), Progress: func(p projections.Progress) { tell(d.Name, p) }}
	})
}

// build builds one projection into a schema of its own.
func (st *store) build(ctx context.Context, f rebuildFlags, names []string) error {
	d, err := f.definition(st, names)
	if err != nil {
		return err
	}
	o := projections.BuildOptions{Into: f.into, UpTo: f.toPosition, Own: f.from != "", Slice: f.slice, By: actor()}
	if f.asOf != "" {
		at, err := time.Parse(time.RFC3339Nano, f.asOf)
		if err != nil {
			return usagef("--as-of is %q; a time looks like 2026-06-30T00:00:00Z", f.asOf)
		}
		if o.UpTo, err = schema.PositionAt(ctx, st.db, at); err != nil {
			return err
		}
		if o.UpTo == 0 {
			return fmt.Errorf("at %s the ledger held no event", f.asOf)
		}
	}
	tell := st.progress()
	o.Progress = func(p projections.Progress) { tell(d.Name, p) }
	built, err := st.engine.Build(ctx, d, o)
	if err != nil {
		return err
	}
	t := table{columns: []string{"schema", "position"}}
	t.add(map[string]any{"schema": built.Schema, "position": built.Position}, built.Schema, strconv.FormatInt(built.Position, 10))
	return st.settings.print(t)
}

// definition is the projection to build: one of ours, or that of a folder.
func (f rebuildFlags) definition(st *store, names []string) (projections.Definition, error) {
	if f.from == "" {
		return st.engine.Find(names[0])
	}
	dir, err := filepath.Abs(f.from)
	if err != nil {
		return projections.Definition{}, err
	}
	name := strings.ReplaceAll(strings.ToLower(filepath.Base(dir)), "-", "_")
	if len(names) > 0 {
		name = names[0]
	}
	return projections.Load(name, 1, os.DirFS(dir))
}

// progress tells on standard error how far runs have come, each at most once a second and at its end.
func (st *store) progress() func(name string, p projections.Progress) {
	var mu sync.Mutex
	told := map[string]time.Time{}
	return func(name string, p projections.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); p.Done < p.Total && now.Sub(told[name]) < time.Second {
			return
		} else {
			told[name] = now
		}
		fmt.Fprintf(st.settings.env.stderr, "%s: %d of %d events, %.0f/s, %s left\n", name, p.Done, p.Total, p.Rate, p.Left.Round(time.Second))
	}
}
