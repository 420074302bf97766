package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/projections/consent"
)

// consentPolicy shows the ledger's policy, or changes what the flags name.
func consentPolicy(s *settings) *cobra.Command {
	var neverAsked, imported, until, reason, calendar, zone string
	var channels []string
	var days int
	var within time.Duration
	cmd := &cobra.Command{
		Use: "policy", Short: "What the ledger makes of legacy consent, and how promptly opt-outs must be honoured; flags change it",
		Long: "Without flags it shows the policy in force. A flag changes that part of it and keeps the others; the change is an event, and every decision from then on names it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ends, err := parseTime("until", until)
			if err != nil {
				return err
			}
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				p, err := consent.Policy(ctx, st.db)
				if err != nil {
					return err
				}
				changed := false
				set := func(flag string, change func()) {
					if cmd.Flags().Changed(flag) {
						change()
						changed = true
					}
				}
				set("never-asked", func() {
					if p.NeverAsked = neverAsked; neverAsked != domain.PolicySend {
						p.Channels, p.Until = nil, time.Time{}
					}
				})
				set("channel", func() {
					p.Channels = nil
					for _, c := range channels {
						p.Channels = append(p.Channels, domain.Channel(c))
					}
				})
				set("until", func() { p.Until = ends.UTC() })
				set("imported", func() { p.Imported = imported })
				set("within", func() { p.Promptness = domain.Deadline{Within: domain.Duration(within)} })
				if p.Promptness.Within > 0 && !cmd.Flags().Changed("within") && (cmd.Flags().Changed("business-days") || cmd.Flags().Changed("calendar")) {
					p.Promptness = domain.DefaultDeadline()
				}
				set("business-days", func() { p.Promptness.BusinessDays = days })
				set("calendar", func() { p.Promptness.Calendar = calendar })
				set("time-zone", func() { p.Promptness.TimeZone = zone })
				if changed {
					p.Reason = reason
					if p.Position, err = st.changePolicy(ctx, p); err != nil {
						return err
					}
				}
				return st.printPolicy(p)
			})
		},
	}
	cmd.Flags().StringVar(&neverAsked, "never-asked", "", "what a promotional message does without any answer: withhold or send")
	cmd.Flags().StringSliceVar(&channels, "channel", nil, "channel that send applies to (repeatable); all without one")
	cmd.Flags().StringVar(&until, "until", "", "when send ends, RFC 3339")
	cmd.Flags().StringVar(&imported, "imported", "", "opt-ins by an import or an administrator: accept or withhold")
	cmd.Flags().IntVar(&days, "business-days", 0, "business days in which an opt-out must have had its effect")
	cmd.Flags().StringVar(&calendar, "calendar", "", "whose public holidays are no business days: "+strings.Join(domain.Calendars(), ", "))
	cmd.Flags().StringVar(&zone, "time-zone", "", "where a day begins and ends, such as Australia/Sydney")
	cmd.Flags().DurationVar(&within, "within", 0, "so long instead of business days, such as 240h")
	cmd.Flags().StringVar(&reason, "reason", "", "why, in words; kept in the ledger")
	return cmd
}

// changePolicy records a policy, unless somebody has changed it since p was read, and gives the event's position.
func (st *store) changePolicy(ctx context.Context, p domain.PolicyInForce) (int64, error) {
	e, _, err := domain.New(uuid.New(), domain.ConsentPolicyChanged{ConsentPolicy: p.ConsentPolicy})
	if err != nil {
		return 0, err
	}
	version, err := consent.PolicyVersion(ctx, st.db, p.Position)
	if err != nil {
		return 0, err
	}
	e.Actor, e.Source, e.OccurredAt, e.Expected = actor(), "/cli", time.Now().UTC(), &version
	appended, err := st.ledger.Append(ctx, e)
	if err != nil {
		return 0, err
	}
	return appended[0].Position, nil
}

func (st *store) printPolicy(p domain.PolicyInForce) error {
	if st.settings.output == "json" {
		return st.settings.printJSON(struct {
			domain.ConsentPolicy
			Position int64 `json:"position"`
		}{p.ConsentPolicy, p.Position})
	}
	promptness, err := json.Marshal(p.Promptness)
	if err != nil {
		return err
	}
	position := "the default policy"
	if p.Position > 0 {
		position = "event " + strconv.FormatInt(p.Position, 10)
	}
	t := table{columns: []string{"never_asked", "channels", "until", "imported", "promptness", "by", "reason"}}
	t.add(nil, p.NeverAsked, fmt.Sprint(p.Channels), stamp(p.Until), p.Imported, string(promptness), position, p.Reason)
	return st.settings.print(t)
}
