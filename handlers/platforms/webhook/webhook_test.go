package webhook_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms/webhook"
)

func TestPrepareSignsAsStandardWebhooksSays(t *testing.T) {
	t.Parallel()
	// The specification's own vector.
	req := platforms.Request{
		DeliveryID: "msg_p5jXN8AQM9LWM0D4loKWxJek", At: time.Unix(1614265330, 0), Body: []byte(`{"test": 2432232314}`),
		SigningSecrets: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
	}
	out, err := webhook.Dialect{}.Prepare(req)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"webhook-id":        "msg_p5jXN8AQM9LWM0D4loKWxJek",
		"Idempotency-Key":   "msg_p5jXN8AQM9LWM0D4loKWxJek",
		"webhook-timestamp": "1614265330",
		"webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
	} {
		if got := out.Header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if string(out.Body) != string(req.Body) || len(req.Header) != 0 {
		t.Error("Prepare changed the body, or the request it was given")
	}
}

func TestPrepareSignsWithEveryKeyDuringRotation(t *testing.T) {
	t.Parallel()
	req := platforms.Request{DeliveryID: "d1", At: time.Unix(1, 0), Body: []byte(`{}`), SigningSecrets: []string{
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	}}
	out, err := webhook.Dialect{}.Prepare(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(out.Header.Get("webhook-signature")); len(got) != 2 || got[0] == got[1] {
		t.Errorf("signatures = %q, want two", got)
	}
}

func TestPrepareKeepsTheTargetsOwnKey(t *testing.T) {
	t.Parallel()
	out, err := webhook.Dialect{}.Prepare(platforms.Request{DeliveryID: "d1", Header: http.Header{"Idempotency-Key": {"order-7"}}})
	if err != nil {
		t.Fatal(err)
	}
	if key, id := out.Header.Get("Idempotency-Key"), out.Header.Get("webhook-id"); key != "order-7" || id != "d1" {
		t.Errorf("Idempotency-Key = %q, webhook-id = %q; want order-7, d1", key, id)
	}
}

func TestPrepareRefusesABadSecretWithoutQuotingIt(t *testing.T) {
	t.Parallel()
	_, err := webhook.Dialect{}.Prepare(platforms.Request{DeliveryID: "d1", SigningSecrets: []string{"hunter2hunter2!"}})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Prepare = %v, want an error that does not quote the secret", err)
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	if p, err := platforms.Lookup("webhook"); err != nil || p.Title != "Custom webhook" {
		t.Errorf("Lookup = %+v, %v", p, err)
	}
	if _, err := platforms.Lookup("telegraph"); !errors.Is(err, platforms.ErrUnknown) || !strings.Contains(err.Error(), "webhook") {
		t.Errorf("Lookup = %v, want ErrUnknown and the names there are", err)
	}
}
