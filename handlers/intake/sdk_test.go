package intake_test

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	sdk "github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
)

// TestWhatTheSDKSendsIsUnderstood holds our reading of CloudEvents against the writing of the project's own Go SDK.
func TestWhatTheSDKSendsIsUnderstood(t *testing.T) {
	t.Parallel()
	// Without the characters that the SDK escapes in a batch: what it puts on the wire is what we keep.
	const data = `{"reaction":"r","target":"t","cause":"manual","context":{"amount":10.0,"big":1e21,"name":"Zoë"}}`
	e := sdk.New()
	e.SetID(`order 17/ü"%`)
	e.SetSource("https://crm.example.com/reactions?shop=1")
	e.SetType("reaction.fired")
	e.SetTime(time.Date(2026, 11, 23, 4, 5, 6, 789000000, time.UTC))
	e.SetSubject("reward")
	e.SetDataSchema("https://crm.example.com/schemas/fired")
	e.SetExtension("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	e.SetExtension("sampled", true)
	e.SetExtension("attempt", 3)
	if err := e.SetData("application/json", json.RawMessage(data)); err != nil {
		t.Fatal(err)
	}
	write := func(mode binding.Encoding) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://ledger.example.com/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx := binding.WithForceBinary(t.Context())
		if mode == binding.EncodingStructured {
			ctx = binding.WithForceStructured(t.Context())
		}
		if err := cehttp.WriteRequest(ctx, binding.ToMessage(&e), r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	batch, err := cehttp.NewHTTPRequestFromEvents(t.Context(), "https://ledger.example.com/v1/events", []sdk.Event{e, e})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		request *http.Request
		events  int
	}{
		"structured": {write(binding.EncodingStructured), 1},
		"binary":     {write(binding.EncodingBinary), 1},
		"batch":      {batch, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body, err := io.ReadAll(tc.request.Body)
			if err != nil {
				t.Fatal(err)
			}
			events, err := intake.Parse(tc.request.Header, body, intake.Limits{})
			if err != nil || len(events) != tc.events {
				t.Fatalf("Parse = %d events, %v, want %d (%v %s)", len(events), err, tc.events, tc.request.Header, body)
			}
			for _, got := range events {
				if got.ID != e.ID() || got.Source != e.Source() || got.Type != e.Type() || !got.Time.Equal(e.Time()) || string(got.Data) != data {
					t.Errorf("Parse = %+v with data %s, want %s", got, got.Data, e)
				}
			}
		})
	}
}
