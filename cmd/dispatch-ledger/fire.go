package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/projections/deliveries"
)

func newFire(s *settings) *cobra.Command {
	var target, profile, file, reaction string
	var wait bool
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "fire --target HANDLE --profile ID --context FILE",
		Short: "Fire a target by hand; --wait follows the delivery to its outcome",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				content, err := readFile(s.env.stdin, file)
				if err != nil {
					return err
				}
				fired := domain.ReactionFired{Reaction: reaction, Target: target, Cause: "manual", Context: content}
				if profile != "" {
					if fired.ProfileID, err = uuid.Parse(profile); err != nil {
						return usagef("--profile %q is no UUID; give the CRM's id of the person", profile)
					}
				}
				data, err := json.Marshal(fired)
				if err != nil {
					return fmt.Errorf("%s: is not JSON: %w", file, err)
				}
				accepted, err := st.intake().Accept(ctx, actor(), []intake.Event{{ID: uuid.NewString(), Source: "/cli", Type: "reaction.fired", Time: time.Now(), Data: data}})
				if err != nil {
					return err
				}
				id := domain.DeliveryID(accepted[0].EventID, target)
				fmt.Fprintf(s.env.stderr, "fired at position %d, delivery %s\n", accepted[0].Position, id)
				if !wait {
					return nil
				}
				o, err := f.workers()
				if err != nil {
					return err
				}
				d, err := st.follow(ctx, id, o)
				if err != nil {
					return err
				}
				return st.printDelivery(d)
			})
		},
	}
	cmd.Flags().StringVar(&target, "target", "", "handle of the target")
	cmd.Flags().StringVar(&profile, "profile", "", "the person, by the CRM's id; may be left out for a target about nobody")
	cmd.Flags().StringVar(&file, "context", "", "JSON file with the event context; - reads standard input")
	cmd.Flags().StringVar(&reaction, "reaction", "manual", "handle that the firing is recorded under")
	cmd.Flags().BoolVar(&wait, "wait", false, "follow the delivery to its outcome; where this command runs the database itself, it also does the work")
	cmd.Flags().StringSliceVar(&f.allowNetworks, "allow-network", nil, "network that targets may reach besides public addresses (repeatable)")
	for _, required := range []string{"target", "context"} {
		if err := cmd.MarkFlagRequired(required); err != nil {
			panic(err)
		}
	}
	return cmd
}

func (st *store) intake() *intake.Service {
	return &intake.Service{Ledger: st.ledger, Vault: st.vault, Clock: time.Now}
}

// follow waits until nothing more happens to a delivery. Where this process runs the database, nobody else can be
// doing the work, so it does it.
func (st *store) follow(ctx context.Context, id uuid.UUID, o workerOptions) (d deliveries.Delivery, err error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	if st.private {
		go func() { done <- st.work(ctx, o) }()
		defer func() { err = errors.Join(err, <-done) }()
	}
	defer cancel()
	return st.settle(ctx, id)
}
