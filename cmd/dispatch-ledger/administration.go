package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/broker"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulator"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/simulators"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newToken(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Access for programs and people: create, list, revoke"}
	var role, name string
	var expires time.Duration
	create := &cobra.Command{
		Use: "create --role ROLE --name NAME", Short: "Make a token and print it, this once", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
				request := schema.TokenRequest{Name: name, Role: schema.Role(role), CreatedBy: actor()}
				if expires > 0 {
					at := time.Now().Add(expires)
					request.ExpiresAt = &at
				}
				token, info, err := st.tokens.Create(ctx, request)
				if err != nil {
					return err
				}
				if _, err := st.record(ctx, domain.TokenCreated{Name: info.Name, Role: string(info.Role)}, nil); err != nil {
					return err
				}
				if info.Role == schema.RoleDispatcher {
					fleet, err := st.vault.Fleet(ctx)
					if err != nil {
						return err
					}
					token = broker.Credential{Token: token, Public: fleet.Public}.String()
				}
				_, err = fmt.Fprintln(s.env.stdout, token)
				return err
			})
		},
	}
	create.Flags().StringVar(&role, "role", "", "emitter, operator, compliance, privacy, analyst, admin, or dispatcher for serve --roles dispatch --join")
	create.Flags().StringVar(&name, "name", "", "whom it is for; stands as the actor in events")
	create.Flags().DurationVar(&expires, "expires", 0, "how long it is good for, such as 720h; 0 is until revoked")
	for _, required := range []string{"role", "name"} {
		if err := create.MarkFlagRequired(required); err != nil {
			panic(err)
		}
	}
	cmd.AddCommand(create,
		&cobra.Command{
			Use: "list", Short: "Whom access was given to", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					list, err := st.tokens.List(ctx)
					if err != nil {
						return err
					}
					t := table{columns: []string{"name", "role", "created", "by", "expires", "revoked", "last used"}}
					for _, x := range list {
						t.add(x, x.Name, string(x.Role), stamp(x.CreatedAt), x.CreatedBy, stampOf(x.ExpiresAt), stampOf(x.RevokedAt), stampOf(x.LastUsedAt))
					}
					return s.print(t)
				})
			},
		},
		&cobra.Command{
			Use: "revoke NAME", Short: "End an access", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error {
					if err := st.tokens.Revoke(ctx, args[0], actor()); err != nil {
						return err
					}
					_, err := st.record(ctx, domain.TokenRevoked{Name: args[0]}, nil)
					return err
				})
			},
		})
	return cmd
}

func newMigrate(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "migrate", Short: "Bring the database up to this version of the program; serve does it too", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd.Context(), func(context.Context, *store) error {
				_, err := fmt.Fprintln(s.env.stdout, "up to date")
				return err
			})
		},
	}
}

func newSimulate(s *settings) *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "simulate PLATFORM", Short: "Behave as a platform's API does: " + strings.Join(simulators.Names(), ", "), Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := s.logger()
			if err != nil {
				return err
			}
			h, err := simulators.New(args[0], simulator.Options{Now: time.Now})
			if err != nil {
				return usageError{err}
			}
			l, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return fmt.Errorf("listen on %s: %w; choose another address with --listen", listen, err)
			}
			fmt.Fprintf(s.env.stdout, "Simulating %s on http://%s (account demo, key demo-key)\n", args[0], l.Addr())
			return api.Serve(cmd.Context(), l, http.MaxBytesHandler(h, 16<<20), api.ServeConfig{Log: log})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8090", "address; port 0 takes a free one")
	return cmd
}

func newVersion(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Which version of the program this is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(s.env.stdout, "dispatch-ledger", version())
			return err
		},
	}
}

// version is the module's version, or the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			return "commit " + setting.Value[:12]
		}
	}
	return "development"
}
