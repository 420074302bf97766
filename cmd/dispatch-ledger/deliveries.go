package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/dispatcher"
)

func newDeliveries(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "deliveries", Short: "What people do to deliveries: retry, cancel, replay many"}
	cmd.AddCommand(deliveriesRetry(s), deliveriesCancel(s), deliveriesReplay(s), deliveriesReplays(s))
	return cmd
}

func (st *store) controls() dispatcher.Controls {
	return dispatcher.Controls{DB: st.db, Ledger: st.ledger, Vault: st.vault, Now: time.Now}
}

func deliveryID(text string) (uuid.UUID, error) {
	id, err := uuid.Parse(text)
	if err != nil {
		return id, usagef("%q is no delivery id", text)
	}
	return id, nil
}

func deliveriesRetry(s *settings) *cobra.Command {
	again := dispatcher.Again{Actor: actor()}
	cmd := &cobra.Command{
		Use: "retry ID", Short: "Try a delivery again that has ended, and say what has changed since it was planned", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := deliveryID(args[0])
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				r, err := st.controls().Retry(ctx, id, again)
				if err != nil {
					return err
				}
				if s.output == "json" {
					return s.printJSON(r)
				}
				_, err = fmt.Fprint(s.env.stdout, changedSince(r, again.DryRun))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&again.Reason, "reason", "", "why, in words")
	cmd.Flags().BoolVar(&again.DryRun, "dry-run", false, "only say what has changed")
	cmd.Flags().BoolVar(&again.Sent, "even-succeeded", false, "send it again although it succeeded, which may reach the person twice")
	return cmd
}

// changedSince tells what is different from when a delivery was planned.
func changedSince(r domain.DeliveryRequeued, dry bool) string {
	var b strings.Builder
	verb := "is tried again"
	if dry {
		verb = "would be tried again"
	}
	fmt.Fprintf(&b, "delivery %s: was %s, %s as attempt %d\n", r.DeliveryID, strings.ToUpper(string(r.Was)), verb, r.Attempt)
	if r.PlannedVersion == r.CurrentVersion {
		fmt.Fprintf(&b, "  target    %s version %d, unchanged\n", r.Target, r.PlannedVersion)
	} else {
		fmt.Fprintf(&b, "  target    %s version %d then, %d now; the request is sent as it was rendered then\n", r.Target, r.PlannedVersion, r.CurrentVersion)
	}
	fmt.Fprintf(&b, "  consent   then: %s, %s\n", r.ConsentThen.Decision, r.ConsentThen.Explain())
	fmt.Fprintf(&b, "            now:  %s, %s\n", r.ConsentNow.Decision, r.ConsentNow.Explain())
	if r.ConsentNow.Decision == domain.DecisionWithheld {
		b.WriteString("            it will be withheld, unless that changes before its request leaves\n")
	}
	return b.String()
}

func deliveriesCancel(s *settings) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "cancel ID", Short: "Stop a delivery that is still to be sent", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := deliveryID(args[0])
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				return st.controls().Cancel(ctx, id, actor(), reason)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, in words")
	return cmd
}
