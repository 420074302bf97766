package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// withArchives does something while the ledger is whole: the archives in the folders are attached before and detached after, in
// whatever order they are named. All that are detached must be named, which is seen to before any is touched.
//
// If the process dies in between, they stay attached; archive detach takes them out again.
func (st *store) withArchives(ctx context.Context, dirs []string, do func() error) (err error) {
	if len(dirs) == 0 {
		return do()
	}
	folders := map[domain.LedgerArchived]string{}
	for _, dir := range dirs {
		a, err := st.archived(ctx, dir)
		if err != nil {
			return fmt.Errorf("--archive %s: %w", dir, err)
		}
		folders[a] = dir
	}
	detached, err := schema.Archived(ctx, st.db) // the oldest first
	if err != nil {
		return err
	}
	for _, a := range detached {
		if folders[a] == "" {
			return fmt.Errorf("%w: events %d to %d were archived too; name their folder with --archive as well (archive list shows all)", schema.ErrArchive, a.From+1, a.To)
		}
	}
	var attached []string // the newest first, which is the order of attaching
	defer func() {
		// What was attached is detached whatever became of the rest, also when we were asked to stop.
		ctx := context.WithoutCancel(ctx)
		for _, dir := range slices.Backward(attached) {
			if failed := st.detachArchive(ctx, dir); failed != nil {
				err = errors.Join(err, fmt.Errorf("%s stays attached, which harms nothing: %w", dir, failed))
				return
			}
		}
	}()
	for _, a := range slices.Backward(detached) {
		fmt.Fprintf(st.settings.env.stderr, "attaching %s: events %d to %d\n", folders[a], a.From+1, a.To)
		if err := st.attachArchive(ctx, folders[a]); err != nil {
			return err
		}
		attached = append(attached, folders[a])
	}
	return do()
}
