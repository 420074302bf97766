package schema_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

// BenchmarkVerify verifies 200,000 events of 600 bytes, with tiles and a checkpoint, beside reading the same rows through
// the twenty columns that the rest of the program reads.
func BenchmarkVerify(b *testing.B) {
	const events = 200_000
	db := schematest.Open(b)
	ledger := schema.OpenLedger(db.DB, nil, nil)
	defer ledger.Close()
	pad := strings.Repeat("x", 400)
	for from := 0; from < events; from += 2000 {
		batch := make([]domain.Event, 2000)
		for i := range batch {
			id := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, from+i))
			batch[i] = domain.Event{
				ID: id, Type: "consent.changed", Stream: "profile-" + id.String(),
				Keys:       domain.Keys{Subject: id, Channel: "email", Purpose: "promo", State: "opted_in"},
				OccurredAt: time.Unix(1_700_000_000, 0), Actor: "reaction-engine", Source: "https://crm.example/omneo", CorrelationID: id,
				Data: fmt.Appendf(nil, `{"profile_id":"%s","n":%d,"pad":"%s"}`, id, from+i, pad), Sealed: bytes.Repeat([]byte{byte(i)}, 120),
			}
		}
		if _, err := ledger.Append(b.Context(), batch...); err != nil {
			b.Fatal(err)
		}
	}
	if err := growTree(b.Context(), db.DB, 0); err != nil {
		b.Fatal(err)
	}
	if _, err := db.ExecContext(b.Context(), `VACUUM ANALYZE events`); err != nil {
		b.Fatal(err)
	}
	for _, workers := range []int{1, 2, 3, 4} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			var peak uint64
			for b.Loop() {
				r, err := schema.Verify(b.Context(), db.DB, schema.VerifyOptions{Workers: workers, Progress: func(schema.VerifyProgress) {
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					peak = max(peak, m.HeapInuse)
				}})
				if err != nil || !r.OK() || r.Events != events {
					b.Fatal(err, r)
				}
			}
			b.ReportMetric(float64(events)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(peak)/(1<<20), "heap-MB")
		})
	}
	b.Run("baseline=read", func(b *testing.B) {
		for b.Loop() {
			for _, err := range schema.Events(b.Context(), db, schema.Filter{}) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(events)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
}
