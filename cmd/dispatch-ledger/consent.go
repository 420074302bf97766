package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
)

func newConsent(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "consent", Short: "A person's consent: set it by hand, show it, its history, the rules that it is read by"}
	cmd.AddCommand(
		consentSet(s),
		consentView(s, "show", "The answers that hold, now or at a moment", consent.Dossier.Held),
		consentView(s, "history", "Every answer, in the order the ledger heard of them", func(d consent.Dossier) []consent.Entry { return d.Answers }),
		consentImport(s), consentPromptness(s), consentFields(s), consentPolicy(s),
	)
	return cmd
}

// consentView is a command that shows some of a person's answers at a moment.
func consentView(s *settings, use, short string, entries func(consent.Dossier) []consent.Entry) *cobra.Command {
	var asOf, known, delivery string
	var at consent.AsOf
	cmd := &cobra.Command{Use: use + " PROFILE_ID", Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		id, err := uuid.Parse(args[0])
		if err != nil {
			return usagef("%q is no profile id", args[0])
		}
		if at.Decided, err = parseTime("as-of", asOf); err != nil {
			return err
		}
		if at.Known, err = parseTime("known-at", known); err != nil {
			return err
		}
		var sent uuid.UUID
		if delivery != "" {
			if sent, err = uuid.Parse(delivery); err != nil {
				return usagef("--delivery %q is no delivery id", delivery)
			}
		}
		return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
			if sent != uuid.Nil {
				if at.Position, err = consent.DecidedOn(ctx, st.db, sent); err != nil {
					return err
				}
			}
			dossier, err := consent.Read(ctx, st.db, id, at)
			if err != nil {
				return err
			}
			t := table{columns: []string{"channel", "purpose", "status", "decided", "by", "method", "recorded", "recorded_by", "profile", "position"}}
			for _, e := range entries(dossier) {
				t.add(e, string(e.Channel), string(e.Purpose), string(e.Status), stamp(e.DecidedAt), e.DecidedBy, e.Method, stamp(e.RecordedAt), e.Actor, e.ProfileID.String(), strconv.FormatInt(e.Position, 10))
			}
			if err := s.print(t); err != nil || s.output != "table" {
				return err
			}
			for _, m := range dossier.Merges {
				fmt.Fprintf(s.env.stdout, "profile %s was merged into %s at %s (event %d)\n", m.LoserID, m.WinnerID, stamp(m.MergedAt), m.Position)
			}
			return nil
		})
	}}
	cmd.Flags().StringVar(&asOf, "as-of", "", "decisions made up to this time: what held then")
	cmd.Flags().StringVar(&known, "known-at", "", "what the ledger had heard of by this time: what we knew then")
	cmd.Flags().Int64Var(&at.Position, "position", 0, "what the ledger held up to this position: what we knew then")
	cmd.Flags().StringVar(&delivery, "delivery", "", "what we knew when this delivery was last decided on")
	cmd.MarkFlagsMutuallyExclusive("known-at", "position", "delivery")
	return cmd
}

func consentFields(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "fields", Short: "What the CRM's field names mean: the table that webhooks and imports are read by", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			t := table{columns: []string{"field", "read_as", "channel", "purpose", "kind", "meaning"}}
			for _, f := range domain.CommsFields {
				t.add(f, f.Name, f.Canonical(), string(f.Channel), string(f.Purpose), string(f.Kind), f.Meaning)
			}
			return s.print(t)
		},
	}
}

func consentSet(s *settings) *cobra.Command {
	var channel, purpose, status, by, method, decided, note string
	var evidence map[string]string
	cmd := &cobra.Command{
		Use:   "set PROFILE_ID --channel C --purpose P --status S",
		Short: "Record an answer by hand, with who decided and the evidence",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := uuid.Parse(args[0])
			if err != nil {
				return usagef("%q is no profile id", args[0])
			}
			at, err := parseTime("decided-at", decided)
			if err != nil {
				return err
			}
			if at.IsZero() {
				at = time.Now()
			}
			data, err := json.Marshal(domain.ConsentChanged{
				ProfileID: id, Changes: []domain.ConsentChange{{Channel: domain.Channel(channel), Purpose: domain.Purpose(purpose), Status: domain.ConsentStatus(status)}},
				DecidedAt: at.UTC(), DecidedBy: by, Method: method, Note: note, Evidence: evidence,
			})
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				got, err := st.intake().Accept(ctx, actor(), []intake.Event{{ID: uuid.NewString(), Source: "/cli", Type: "consent.changed", Data: data}})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(s.env.stdout, "recorded at position %d\n", got[0].Position)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&channel, "channel", "", "email, sms, push, phone or post")
	cmd.Flags().StringVar(&purpose, "purpose", "", "all (the global opt-out), promo or a category")
	cmd.Flags().StringVar(&status, "status", "", "opted_in, opted_out or unknown")
	cmd.Flags().StringVar(&by, "by", "staff", "who decided: customer, staff, admin, import or platform")
	cmd.Flags().StringVar(&method, "method", "cli", "how")
	cmd.Flags().StringVar(&decided, "decided-at", "", "when, RFC 3339; now when empty")
	cmd.Flags().StringVar(&note, "note", "", "why, in words; kept sealed")
	cmd.Flags().StringToStringVar(&evidence, "evidence", nil, "what proves it, such as form=7 (repeatable); kept sealed")
	for _, required := range []string{"channel", "purpose", "status"} {
		if err := cmd.MarkFlagRequired(required); err != nil {
			panic(err)
		}
	}
	return cmd
}
