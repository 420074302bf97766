package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/broker"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
)

func newBroker(s *settings) *cobra.Command {
	var f brokerFlags
	cmd := &cobra.Command{Use: "broker", Short: "What lies on the broker: its streams, and messages that are no events"}
	f.addTo(cmd.PersistentFlags())
	status := &cobra.Command{
		Use: "status", Short: "How each stream stands: what waits in it, who leads it, how many copies are up to date", Args: cobra.NoArgs,
		Long: "Exit code 3 when a stream has no leader or lacks copies.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.onBroker(cmd.Context(), f, func(ctx context.Context, b *broker.Broker) error { return s.brokerStatus(ctx, b) })
		},
	}
	rejected := &cobra.Command{Use: "rejected", Short: "Messages on the stream of events that are no events, and were put aside for 30 days"}
	var after uint64
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "The oldest first: who published it, when, and what was wrong", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.onBroker(cmd.Context(), f, func(ctx context.Context, b *broker.Broker) error {
				found, err := b.Rejected(ctx, after, limit)
				if err != nil {
					return err
				}
				t := table{columns: []string{"number", "at", "emitter", "bytes", "reason"}}
				for _, r := range found {
					r.Sealed = nil
					t.add(r, strconv.FormatUint(r.Sequence, 10), stamp(r.At), r.Emitter, strconv.Itoa(r.Size), r.Reason)
				}
				return s.print(t)
			})
		},
	}
	list.Flags().Uint64Var(&after, "after", 0, "numbers above")
	list.Flags().IntVar(&limit, "limit", 100, "how many")
	var reason string
	show := &cobra.Command{
		Use: "show NUMBER --reason WHY", Short: "Print what a message holds. It may be personal data, so who looked and why is recorded", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.onRejected(cmd.Context(), f, args[0], func(ctx context.Context, st *store, _ *broker.Broker, r broker.Rejected, msg *message.Message) error {
				e, _, err := domain.New(uuid.New(), domain.SealedRevealed{What: domain.RevealedRejected, Reason: reason + " (sha256 " + r.SHA256 + ")"})
				if err != nil {
					return err
				}
				e.Actor, e.Source, e.OccurredAt = actor(), "/cli", time.Now()
				if _, err := st.ledger.Append(ctx, e); err != nil {
					return err
				}
				_, err = s.env.stdout.Write(append(msg.Payload, '\n'))
				return err
			})
		},
	}
	show.Flags().StringVar(&reason, "reason", "", "why, in words")
	if err := show.MarkFlagRequired("reason"); err != nil {
		panic(err)
	}
	var from string
	admit := &cobra.Command{
		Use: "admit NUMBER [--from FILE]", Short: "Take a message into the ledger after all, as its emitter's, and remove it here", Args: cobra.ExactArgs(1),
		Long: "What is still no event stays where it is, and the answer says why. --from gives a corrected body; the emitter stays the actor.\n" +
			"A message that was admitted before is recognised by its events' ids.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.onRejected(cmd.Context(), f, args[0], func(ctx context.Context, st *store, b *broker.Broker, r broker.Rejected, msg *message.Message) error {
				if from != "" {
					var err error
					if msg.Payload, err = os.ReadFile(from); err != nil {
						return err
					}
				}
				if err := st.intake().Handler("broker:"+r.Emitter, intake.Limits{}.WithDefaults())(msg); err != nil {
					return fmt.Errorf("message %d is not taken: %w; correct it with --from FILE, or have %s send it again", r.Sequence, err, r.Emitter)
				}
				return b.Forget(ctx, r.Sequence)
			})
		},
	}
	admit.Flags().StringVar(&from, "from", "", "file with the body to take in its place")
	drop := &cobra.Command{
		Use: "drop NUMBER", Short: "Remove a message that is of no use to anybody", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := sequence(args[0])
			if err != nil {
				return err
			}
			return s.onBroker(cmd.Context(), f, func(ctx context.Context, b *broker.Broker) error { return b.Forget(ctx, n) })
		},
	}
	rejected.AddCommand(list, show, admit, drop)
	cmd.AddCommand(status, rejected)
	return cmd
}

// onBroker connects for a command.
func (s *settings) onBroker(ctx context.Context, f brokerFlags, do func(context.Context, *broker.Broker) error) error {
	if f.url == "" || f.url == brokerEmbedded {
		return usagef("--broker is missing: name the servers, such as nats://a:4222; one that is embedded in a process is reached by that process alone")
	}
	log, err := s.logger()
	if err != nil {
		return err
	}
	c := f.config(s.name)
	c.Log = log
	b, err := broker.Connect(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, b), b.Close(ctx))
}

// onRejected opens a message that was put aside.
func (s *settings) onRejected(ctx context.Context, f brokerFlags, number string, do func(context.Context, *store, *broker.Broker, broker.Rejected, *message.Message) error) error {
	n, err := sequence(number)
	if err != nil {
		return err
	}
	return s.onBroker(ctx, f, func(ctx context.Context, b *broker.Broker) error {
		return s.with(ctx, func(ctx context.Context, st *store) error {
			r, msg, err := b.RejectedMessage(ctx, st.vault, n)
			if err != nil {
				return err
			}
			return do(ctx, st, b, r, msg)
		})
	})
}

func sequence(number string) (uint64, error) {
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || n == 0 {
		return 0, usagef("%q is no number of a message; broker rejected list shows them", number)
	}
	return n, nil
}

func (s *settings) brokerStatus(ctx context.Context, b *broker.Broker) error {
	state, err := b.State(ctx)
	if err != nil {
		return err
	}
	t := table{columns: []string{"stream", "messages", "bytes", "oldest", "in hand", "leader", "copies"}}
	whole := true
	for _, st := range state {
		whole = whole && st.Copies == st.Replicas
		t.add(st, st.Stream, strconv.FormatUint(st.Messages, 10), strconv.FormatUint(st.Bytes, 10), stamp(st.Oldest), strconv.Itoa(st.InHand), st.Leader, fmt.Sprintf("%d of %d", st.Copies, st.Replicas))
	}
	if err := s.print(t); err != nil || whole {
		return err
	}
	return errUntrue
}
