package api

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkAcceptEvents is what one event in a request of its own costs, from the route to the commit, with 64 callers.
func BenchmarkAcceptEvents(b *testing.B) {
	h := newHouse(b)
	var n atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := strconv.FormatInt(n.Add(1), 10)
			r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/v1/events", strings.NewReader(cloudEvent(id, "reaction.fired", firedData)))
			r.Header.Set("Content-Type", "application/cloudevents+json")
			r.Header.Set("Authorization", "Bearer "+h.tokens["emitter"])
			w := httptest.NewRecorder()
			h.handler.ServeHTTP(w, r)
			if w.Code != http.StatusAccepted {
				b.Errorf("status %d: %s", w.Code, w.Body)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
