package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/api"
)

//go:generate go run . docs events ../../docs/events.md
//go:generate go run . docs cli ../../docs/cli.md
//go:generate go run . docs openapi ../../docs/openapi.json

// newDocs writes the pages that follow from the program, so that they cannot say anything else.
func newDocs() *cobra.Command {
	cmd := &cobra.Command{Use: "docs", Short: "Write the pages of docs that follow from the program", Hidden: true}
	page := func(name, short string, write func(io.Writer, *cobra.Command) error) *cobra.Command {
		return &cobra.Command{Use: name + " FILE", Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			var b bytes.Buffer
			if err := write(&b, cmd.Root()); err != nil {
				return err
			}
			return os.WriteFile(args[0], b.Bytes(), 0o644) //nolint:gosec // a page for everybody
		}}
	}
	cmd.AddCommand(page("events", "The event catalogue", eventsPage), page("cli", "The command line", cliPage), page("fields", "The CRM's field names", fieldsPage),
		page("openapi", "The description of the API", openapiPage))
	return cmd
}

// eventsPage is the event catalogue.
func eventsPage(w io.Writer, _ *cobra.Command) error {
	var b strings.Builder
	b.WriteString("# Event catalogue\n\nWritten by `make generate` from the declarations in `domain`. Fields marked *sealed* are personal data: they are stored encrypted\n" +
		"under the person's key, apart from the rest, and are gone when the person is erased.\n\n| type | appended by | when |\n|---|---|---|\n")
	for _, d := range domain.Declarations() {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s |\n", d.Type, strings.NewReplacer(".", "", "_", "_").Replace(d.Type), appendedBy(d), d.Summary)
	}
	for _, d := range domain.Declarations() {
		fmt.Fprintf(&b, "\n## %s\n\n%s Version %d.\n\n| field | | meaning |\n|---|---|---|\n", d.Type, d.Summary, d.Version)
		for _, f := range d.Fields() {
			sealed := ""
			if f.Sealed {
				sealed = "*sealed*"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.Name, sealed, f.Doc)
		}
		example, err := json.MarshalIndent(d.Example, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "\n```json\n%s\n```\n", example)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func appendedBy(d *domain.Declaration) string {
	if d.Origin == domain.FromOutside {
		return "producers, through `POST /v1/events`"
	}
	return "the service"
}

// openapiPage is the API's description.
func openapiPage(w io.Writer, _ *cobra.Command) error {
	reference, err := api.Reference()
	if err != nil {
		return err
	}
	_, err = w.Write(append(reference, '\n'))
	return err
}

// cliPage is the manual of the command line.
func cliPage(w io.Writer, root *cobra.Command) error {
	var b strings.Builder
	b.WriteString("# Command line\n\nWritten by `make generate` from the program. Exit codes: 0 done, 1 failed (one line on stderr says what, and what to do), 2 wrong\n" +
		"usage, 3 it ran, and what it checks does not hold. Every flag has an environment name; the flag wins.\n\n## Flags of every command\n\n")
	flagTable(&b, root.PersistentFlags())
	var each func(*cobra.Command)
	each = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			return
		}
		if cmd != root {
			fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n```\n%s\n```\n", strings.TrimPrefix(cmd.CommandPath(), root.Name()+" "), strings.TrimSuffix(cmd.Short, "."), cmd.UseLine())
			if cmd.Long != "" {
				fmt.Fprintf(&b, "\n%s\n", cmd.Long)
			}
			if cmd.LocalNonPersistentFlags().HasAvailableFlags() {
				b.WriteString("\n")
				flagTable(&b, cmd.LocalNonPersistentFlags())
			}
		}
		for _, sub := range cmd.Commands() {
			each(sub)
		}
	}
	each(root)
	_, err := io.WriteString(w, b.String())
	return err
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	b.WriteString("| flag | environment | default | meaning |\n|---|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value := f.DefValue
		if f.Name == "data-dir" {
			value = "~/.local/share/dispatch-ledger" // where it is depends on who runs the program
		}
		if value != "" && value != "[]" {
			value = "`" + value + "`"
		} else {
			value = ""
		}
		fmt.Fprintf(b, "| `--%s` | `%s` | %s | %s |\n", f.Name, environmentName(f.Name), value, strings.ReplaceAll(f.Usage, "|", "\\|"))
	})
}
