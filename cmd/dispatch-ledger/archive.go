package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/export"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

func newArchive(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use: "archive", Short: "The ledger's oldest events, as files instead of rows: list, write, detach, verify, attach",
		Long: "write and detach are two steps on purpose: keep a second copy of the files before the rows go. Proofs, checkpoints and verify go on\n" +
			"without them; rebuilding a projection needs them back.",
	}
	at := func(use, short string, do func(context.Context, *store, string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error { return do(ctx, st, args[0]) })
			},
		}
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "What can be archived, and what is", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.with(cmd.Context(), func(ctx context.Context, st *store) error { return st.listArchives(ctx) })
			},
		},
		at("write DIR", "Write the oldest full partition to files and prove it from them", func(ctx context.Context, st *store, dir string) error { return st.writeArchive(ctx, dir) }),
		at("detach DIR", "Prove an archive from its files once more, then take its rows out of the database", func(ctx context.Context, st *store, dir string) error { return st.detachArchive(ctx, dir) }),
		at("verify DIR", "Prove an archived stretch from its files, against the ledger's record of it; exit code 3 when it does not hold", func(ctx context.Context, st *store, dir string) error { return st.verifyArchive(ctx, dir) }),
		at("attach DIR", "Put the rows of the archive that was detached last back into the database", func(ctx context.Context, st *store, dir string) error { return st.attachArchive(ctx, dir) }),
	)
	return cmd
}

func (st *store) listArchives(ctx context.Context) error {
	archived, err := schema.Archived(ctx, st.db)
	if err != nil {
		return err
	}
	kept, err := schema.Partitions(ctx, st.db)
	if err != nil {
		return err
	}
	t := table{columns: []string{"from", "to", "state", "manifest sha256"}}
	row := func(from, to int64, state, sum string) {
		t.add(map[string]any{"from": from + 1, "to": to, "state": state, "manifest_sha256": sum}, strconv.FormatInt(from+1, 10), strconv.FormatInt(to, 10), state, sum)
	}
	for _, a := range archived {
		row(a.From, a.To, "archived", a.ManifestSHA256)
	}
	for _, p := range kept {
		state := "full"
		if !p.Full {
			state = "in use"
		}
		row(p.From, p.To, state, "")
	}
	return st.settings.print(t)
}

// writeArchive exports the oldest partition that is full, sealed parts included.
func (st *store) writeArchive(ctx context.Context, dir string) error {
	kept, err := schema.Partitions(ctx, st.db)
	if err != nil {
		return err
	}
	if len(kept) == 0 || !kept[0].Full {
		return errors.New("no partition is full yet; see: dispatch-ledger archive list")
	}
	if err := st.export(ctx, dir, export.Options{Format: export.Parquet, From: kept[0].From, To: kept[0].To, Sealed: true}); err != nil {
		return err
	}
	_, err = st.proveArchive(ctx, dir)
	return err
}

// proveArchive proves an archive from its files, under the ledger's own keys.
func (st *store) proveArchive(ctx context.Context, dir string) (domain.LedgerArchived, error) {
	keys, err := schema.PublicSigningKeys(ctx, st.db)
	if err != nil {
		return domain.LedgerArchived{}, err
	}
	r, err := export.Verify(dir, keys)
	if err != nil {
		return domain.LedgerArchived{}, err
	}
	m, err := export.ReadManifest(dir)
	if err != nil {
		return domain.LedgerArchived{}, err
	}
	if m.Files != export.Parquet || !m.Sealed {
		return domain.LedgerArchived{}, fmt.Errorf("%s is an export and no archive; make one with: dispatch-ledger archive write", dir)
	}
	sum, err := export.Digest(dir)
	return domain.LedgerArchived{From: r.From, To: r.To, ManifestSHA256: sum}, err
}

func (st *store) detachArchive(ctx context.Context, dir string) error {
	a, err := st.proveArchive(ctx, dir)
	if err != nil {
		return err
	}
	owner, err := st.owner()
	if err != nil {
		return err
	}
	defer owner.Close()
	if err := st.ledger.Detach(ctx, owner, a, actor()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(st.settings.env.stdout, "positions %d to %d are in %s alone: keep it, and a copy\n", a.From+1, a.To, dir)
	return err
}

// archived is what the ledger recorded of an archive in a folder.
func (st *store) archived(ctx context.Context, dir string) (domain.LedgerArchived, error) {
	sum, err := export.Digest(dir)
	if err != nil {
		return domain.LedgerArchived{}, err
	}
	all, err := schema.Archived(ctx, st.db)
	if err != nil {
		return domain.LedgerArchived{}, err
	}
	for _, a := range all {
		if a.ManifestSHA256 == sum {
			return a, nil
		}
	}
	return domain.LedgerArchived{}, fmt.Errorf("%w: the ledger has recorded no archive with this manifest (SHA-256 %s)", export.ErrDamaged, sum)
}

func (st *store) verifyArchive(ctx context.Context, dir string) error {
	_, err := st.archived(ctx, dir)
	if err == nil {
		_, err = st.proveArchive(ctx, dir)
	}
	if evidence.IsUnproven(err) || errors.Is(err, export.ErrDamaged) {
		fmt.Fprintf(st.settings.env.stdout, "%s: %s\n", dir, err)
		return errUntrue
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(st.settings.env.stdout, "%s: every row hashes to its leaf, and they stand under the ledger's checkpoint\n", dir)
	return err
}

func (st *store) attachArchive(ctx context.Context, dir string) error {
	a, err := st.archived(ctx, dir)
	if err != nil {
		return err
	}
	if _, err := st.proveArchive(ctx, dir); err != nil {
		return err
	}
	m, err := export.ReadManifest(dir)
	if err != nil {
		return err
	}
	owner, err := st.owner()
	if err != nil {
		return err
	}
	defer owner.Close()
	return st.ledger.Attach(ctx, owner, domain.LedgerRestored{From: a.From, To: a.To}, export.Events(dir, m), actor())
}
