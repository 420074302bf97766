package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
)

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
