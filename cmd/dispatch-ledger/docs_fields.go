package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

//go:generate go run . docs fields ../../docs/consent-fields.md

// fieldsPage is the table of the CRM's field names.
func fieldsPage(w io.Writer, _ *cobra.Command) error {
	var b strings.Builder
	b.WriteString("# The CRM's names for communication preferences\n\nWritten by `make generate` from the table in `domain/comms.go`, which webhooks and imports are read by. Names are found in any case, with\n" +
		"spaces or dashes for underscores. Where two names of one field disagree, the stricter value counts. `opt_in`: true is a yes to the\n" +
		"purpose, false a no, null no answer. `opt_out`: true is a no to everything on the channel, false takes that back.\n\n" +
		"| field | read as | kind | channel | purpose | meaning |\n|---|---|---|---|---|---|\n")
	for _, f := range domain.CommsFields {
		alias := ""
		if f.AliasOf != "" {
			alias = "`" + f.AliasOf + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", f.Name, alias, f.Kind, f.Channel, f.Purpose, f.Meaning)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
