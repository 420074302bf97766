package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"

	"github.com/dispatch-ledger/dispatch-ledger/schema"
)

// openReplica opens the pool of the read replica, where there is one.
func (st *store) openReplica() error {
	if st.settings.readURL == "" {
		return nil
	}
	db, err := schema.Connect(st.settings.readURL, st.options("dispatch-ledger reads"))
	if err != nil {
		return fmt.Errorf("--read-database-url: %w", err)
	}
	st.bound(db)
	st.closeDown = append(st.closeDown, db.Close)
	st.replica = schema.NewReplica(db, st.db, st.settings.readLag, st.log.With(slog.String("part", "replica")), st.registry)
	return nil
}

// reads gives whom a command asks: the replica, where there is one that is not too far behind, else the primary. Where the
// replica does not hold everything, it says so.
func (st *store) reads(ctx context.Context) (*sql.DB, error) {
	if st.replica == nil {
		return st.db, nil
	}
	if err := st.replica.Measure(ctx); err != nil {
		st.replica.Failed(ctx, err)
		return st.db, nil
	}
	db, replica, err := st.replica.Choose(ctx, 0)
	if lag, _ := st.replica.Lag(); replica && lag.Positions > 0 {
		fmt.Fprintf(st.settings.env.stderr, "the replica answers; it is %d events and %.1f s behind\n", lag.Positions, lag.Seconds)
	}
	return db, err
}

// asking is with for a command that only asks, and may ask the replica.
func (s *settings) asking(ctx context.Context, do func(context.Context, *store, *sql.DB) error) error {
	return s.with(ctx, func(ctx context.Context, st *store) error {
		db, err := st.reads(ctx)
		if err != nil {
			return err
		}
		return do(ctx, st, db)
	})
}

// exporting gives whom an export reads from: the replica, if it holds the checkpoint that was just signed.
func (st *store) exporting(ctx context.Context) (*sql.DB, error) {
	db, err := st.reads(ctx)
	if err != nil || db == st.db {
		return st.db, err
	}
	signed, err := schema.LastCheckpoint(ctx, st.db)
	if err != nil {
		return nil, err
	}
	if err := schema.AwaitCheckpoint(ctx, db, signed.Size); err != nil {
		st.log.WarnContext(ctx, "the primary is read", slog.Any("because", err))
		return st.db, nil // it holds everything
	}
	return db, nil
}
