package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newSecret(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "Named secrets that targets refer to: set, rotate, retire, delete, list"}
	var generate bool
	change := func(use, short string, check func(ctx context.Context, st *store, name string) error) *cobra.Command {
		c := &cobra.Command{
			Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				value, err := s.secretValue(generate)
				if err != nil {
					return err
				}
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					if err := check(ctx, st, args[0]); err != nil {
						return err
					}
					if err := st.setSecret(ctx, args[0], value); err != nil {
						return err
					}
					if generate { // this once
						_, err = fmt.Fprintln(s.env.stdout, value)
					}
					return err
				})
			},
		}
		c.Flags().BoolVar(&generate, "generate", false, "make a random signing secret (whsec_…) and print it, this once, instead of reading standard input")
		return c
	}
	cmd.AddCommand(
		change("set", "Set a secret; its value is all of standard input, without line breaks at its end", func(context.Context, *store, string) error { return nil }),
		change("rotate", "Give a secret a new value; the one before stays beside it until it is retired", func(ctx context.Context, st *store, name string) error {
			_, err := st.vault.Secret(ctx, name)
			return err
		}),
		&cobra.Command{
			Use: "retire NAME", Short: "End a rotation: the value before the current one is deleted", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					return st.dropSecret(ctx, args[0], "has no value before the current one", st.vault.EndSecretOverlap, domain.SecretRetired{Name: args[0]})
				})
			},
		},
		&cobra.Command{
			Use: "delete NAME", Short: "Delete a secret with all its values; targets that name it no longer send", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					return st.dropSecret(ctx, args[0], "is not set", st.vault.DeleteSecret, domain.SecretDeleted{Name: args[0]})
				})
			},
		},
		&cobra.Command{
			Use: "list", Short: "The secrets there are, never their values", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					list, err := st.vault.Secrets(ctx)
					if err != nil {
						return err
					}
					t := table{columns: []string{"name", "version", "fingerprint", "rotating", "updated", "by"}}
					for _, x := range list {
						t.add(x, x.Name, fmt.Sprint(x.Version), x.Fingerprint, yes(x.Overlap), stamp(x.UpdatedAt), x.UpdatedBy)
					}
					return s.print(t)
				})
			},
		})
	return cmd
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// secretValue reads a secret's value, or makes one that signs.
func (s *settings) secretValue(generate bool) (string, error) {
	if generate {
		key := make([]byte, 32)
		if _, err := rand.Read(key); err != nil {
			return "", err
		}
		return "whsec_" + base64.StdEncoding.EncodeToString(key), nil
	}
	content, err := io.ReadAll(io.LimitReader(s.env.stdin, schema.SecretSizeMax+2))
	value := strings.TrimRight(string(content), "\r\n")
	if err != nil || value == "" {
		return "", errors.New("no value on standard input; try: printf %s \"$KEY\" | dispatch-ledger secret set NAME")
	}
	return value, nil
}

// setSecret stores a secret and records that it was set, in one transaction.
func (st *store) setSecret(ctx context.Context, name, value string) error {
	err := st.ledger.Act(ctx, domain.Event{Actor: actor(), Source: "/cli"}, func(tx *sql.Tx) (domain.Payload, error) {
		secret, err := st.vault.SetSecret(ctx, tx, name, value, actor())
		return domain.SecretChanged{Name: name, Fingerprint: secret.Fingerprint}, err
	})
	st.vault.ForgetSecret(name)
	return err
}

// dropSecret deletes values of a secret and records it, in one transaction.
func (st *store) dropSecret(ctx context.Context, name, nothing string, drop func(context.Context, schema.Querier, string) (bool, error), p domain.Payload) error {
	return st.ledger.Act(ctx, domain.Event{Actor: actor(), Source: "/cli"}, func(tx *sql.Tx) (domain.Payload, error) {
		found, err := drop(ctx, tx, name)
		if err == nil && !found {
			err = fmt.Errorf("secret %s %s; see dispatch-ledger secret list", name, nothing)
		}
		return p, err
	})
}
