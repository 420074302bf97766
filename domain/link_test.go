package domain_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/twig"
)

func TestLinksInTemplates(t *testing.T) {
	t.Parallel()
	target := domain.Target{
		Handle: "mail", Name: "Mail", Platform: "webhook", URL: "https://example.com/hook",
		Headers: map[string]string{"List-Unsubscribe": "{{ list_unsubscribe() }}", "List-Unsubscribe-Post": "{{ list_unsubscribe_post() }}"},
		Body:    `{"choices": "{{ preferences_url() }}", "stop": {{ unsubscribe_url() }}}`,
	}
	compiled, err := domain.CompileTarget(target, domain.Partials{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := twig.DecodeContext([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	links := map[domain.LinkKind]string{domain.LinkPreferences: "https://p.example/preferences/A", domain.LinkUnsubscribe: "https://p.example/unsubscribe/B"}
	got, err := compiled.Render(t.Context(), data, domain.Environment{Now: time.Now, Link: func(k domain.LinkKind) (string, error) { return links[k], nil }})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"choices": "https://p.example/preferences/A", "stop": "https://p.example/unsubscribe/B"}`; got.Body != want {
		t.Errorf("body = %s, want %s", got.Body, want)
	}
	if got.Headers["List-Unsubscribe"] != "<https://p.example/unsubscribe/B>" || got.Headers["List-Unsubscribe-Post"] != "List-Unsubscribe=One-Click" {
		t.Errorf("headers = %v", got.Headers)
	}
	if _, err := compiled.Render(t.Context(), data, domain.Environment{Now: time.Now, Link: func(domain.LinkKind) (string, error) { return "", domain.ErrNoLinks }}); err == nil {
		t.Error("without a public address the template renders all the same")
	}
}

func TestLinkOf(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 24, 9, 17, 0, 0, time.UTC)
	person, rule := uuid.New(), &domain.ConsentRule{Channel: domain.Email, Purpose: domain.Promo}
	if _, err := domain.LinkOf(domain.LinkPreferences, uuid.Nil, uuid.Nil, rule, at); !errors.Is(err, domain.ErrNoPerson) {
		t.Errorf("nobody's: error = %v, want ErrNoPerson", err)
	}
	if _, err := domain.LinkOf(domain.LinkUnsubscribe, person, uuid.Nil, nil, at); !errors.Is(err, domain.ErrNoRule) {
		t.Errorf("without a rule: error = %v, want ErrNoRule", err)
	}
	stop, err := domain.LinkOf(domain.LinkUnsubscribe, person, uuid.Nil, rule, at)
	if err != nil || stop.Channel != domain.Email || stop.Purpose != domain.Promo || stop.ExpiresAt.Sub(at) < 60*24*time.Hour {
		t.Errorf("link = %+v, %v", stop, err)
	}
}
