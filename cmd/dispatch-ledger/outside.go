package main

import (
	"context"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// outside are those who keep or confirm checkpoints beside the ledger.
type outside struct {
	witnesses []string // "URL VKEY"
	authority string   // URL
}

func (o *outside) addTo(flags *pflag.FlagSet) {
	flags.StringArrayVar(&o.witnesses, "witness", nil, `a witness that cosigns checkpoints (C2SP tlog-witness): its URL, a space and its public key (repeatable)`)
	flags.StringVar(&o.authority, "timestamp-authority", "", "URL of an RFC 3161 authority that confirms a checkpoint once a day; the token is recorded as an event")
}

// outsideClient talks to them; none of them holds the service up for long.
var outsideClient = &http.Client{Timeout: 20 * time.Second}

// addTo gives them to a checkpointer, and the part of the service that has checkpoints time-stamped, or nil.
func (o *outside) join(st *store, c *schema.Checkpointer) (*schema.Timestamper, error) {
	for _, w := range o.witnesses {
		address, key, ok := strings.Cut(strings.TrimSpace(w), " ")
		if err := checkWebURL(address); err != nil || !ok {
			return nil, usagef("--witness %q is no URL, space and public key", w)
		}
		witness, err := schema.NewWitness(address, strings.TrimSpace(key), outsideClient)
		if err != nil {
			return nil, usageError{err}
		}
		c.Witnesses = append(c.Witnesses, witness)
	}
	if o.authority == "" {
		return nil, nil
	}
	if err := checkWebURL(o.authority); err != nil {
		return nil, usagef("--timestamp-authority %q is no URL", o.authority)
	}
	return &schema.Timestamper{Ledger: st.ledger, URL: o.authority, Client: outsideClient, Clock: time.Now, Log: st.log}, nil
}

func checkWebURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return usagef("%q is no http or https URL", text)
	}
	return nil
}

// anchors are the memories of the last checkpoint outside the database.
func (s *settings) anchors() []schema.Anchor {
	all := []schema.Anchor{schema.FileAnchor{Path: filepath.Join(s.dataDir, "checkpoint")}}
	for _, u := range s.checkpointURLs {
		all = append(all, schema.HTTPAnchor{URL: u, Client: outsideClient})
	}
	return all
}

// newSigningKeys are the commands that change the keys that checkpoints are signed with.
func newSigningKeys(s *settings) []*cobra.Command {
	return []*cobra.Command{
		{
			Use: "add-key", Short: "Make a signing key that signs beside the others from now on, and print its public key", Args: cobra.NoArgs,
			Long: "To rotate: add a key, restart serve, give the public key to everybody who verifies, and retire the old one when they have it.",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					origin, err := schema.Origin(ctx, st.db)
					if err != nil {
						return err
					}
					public, err := st.vault.AddSigningKey(ctx, origin)
					if err != nil {
						return err
					}
					_, err = s.env.stdout.Write([]byte(public + "\n"))
					return err
				})
			},
		},
		{
			Use: "retire-key PUBLIC_KEY", Short: "Destroy a signing key; what it signed stays verifiable", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error { return st.vault.RetireSigningKey(ctx, args[0]) })
			},
		},
	}
}
