package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newBenchVerify(s *settings) *cobra.Command {
	var events, workers int
	cmd := &cobra.Command{
		Use: "verify", Args: cobra.NoArgs,
		Short: "Verifying the ledger from its rows, beside reading them and doing nothing",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.benchmark(cmd, func(ctx context.Context, st *store) error { return st.benchVerify(ctx, events, workers) })
		},
	}
	cmd.Flags().IntVar(&events, "events", 200_000, "mixed events in the ledger")
	cmd.Flags().IntVar(&workers, "workers", 0, "readers at once; 0 is one a processor")
	return cmd
}

func (st *store) benchVerify(ctx context.Context, n, workers int) error {
	if err := st.fill(ctx, n); err != nil {
		return err
	}
	if err := st.catchUp(ctx); err != nil { // the tree stands, as it does in use
		return err
	}
	c, err := st.checkpointer(ctx)
	if err != nil {
		return err
	}
	if _, err := c.Sign(ctx); err != nil {
		return err
	}
	var lines []measured
	measure := func(what string, do func() error) error {
		start := time.Now()
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		lines = append(lines, measured{what: what, rate: float64(n) / time.Since(start).Seconds()})
		return nil
	}
	whole := func(o schema.VerifyOptions) func() error {
		return func() error {
			o.Anchors = st.settings.anchors()
			r, err := schema.Verify(ctx, st.db, o)
			if err == nil && !r.OK() {
				err = fmt.Errorf("the ledger does not hold: %s", r)
			}
			return err
		}
	}
	read := func(use func(domain.Recorded)) func() error {
		return func() error {
			for e, err := range schema.Events(ctx, st.db, schema.Filter{}) {
				if err != nil {
					return err
				}
				use(e)
			}
			return nil
		}
	}
	var different int
	for _, m := range []struct {
		what string
		do   func() error
	}{
		{"every row read, nothing done with it", read(func(domain.Recorded) {})},
		{"every row read and hashed, one after the other", read(func(e domain.Recorded) {
			if leaf := domain.Leaf(domain.Digest(&e.Event), e.Position, e.Version, e.RecordedAt); string(leaf[:]) != string(e.Leaf) {
				different++
			}
		})},
		{"verify: leaves, tiles, roots, signatures; one reader", whole(schema.VerifyOptions{Workers: 1})},
		{"verify: the same, a reader a processor", whole(schema.VerifyOptions{Workers: workers})},
	} {
		if err := measure(m.what, m.do); err != nil {
			return err
		}
	}
	if different > 0 {
		return fmt.Errorf("%d events do not hash to their leaves", different)
	}
	fmt.Fprintf(st.settings.env.stdout, "%d mixed events\n", n)
	return printMeasured(st.settings.env.stdout, "reading", lines)
}
