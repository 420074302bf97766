package outbound

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// issuer gives out tokens one after the other, or what it is told to answer instead.
func issuer(t *testing.T, instead func(http.ResponseWriter, *http.Request) bool) *receiver {
	t.Helper()
	return newReceiver(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if instead != nil && instead(w, r) {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"Bearer","expires_in":1080}`, n)
	})
}

func oauth(url string) *domain.Auth {
	return &domain.Auth{OAuth2: &domain.OAuth2{
		TokenURL: url, ClientID: "id", ClientSecret: "secret", Scopes: []string{"email_send", "email_write"}, Params: map[string]string{"account_id": "7281"},
	}}
}

func TestATokenIsFetchedOnceAndRenewed(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.set("id", "client-1")
	b.set("secret", "very secret")
	tokens := issuer(t, nil)
	refuse := make(chan struct{}, 1)
	platform := newReceiver(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		select {
		case <-refuse:
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, r.Header.Get("Authorization"))
		default:
		}
	})
	target := domain.Target{URL: platform.URL, Auth: oauth(tokens.URL)}
	expect := func(what, token string, fetched int) {
		t.Helper()
		req, _ := platform.last(t)
		if got := req.Header.Get("Authorization"); got != "Bearer "+token || tokens.count() != fetched {
			t.Errorf("%s: %q after %d requests for tokens, want %q after %d", what, got, tokens.count(), token, fetched)
		}
	}

	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a, kind, reason := b.send(target); kind != domain.Accepted || a.RequestHeaders["Authorization"][0] != "Bearer "+Mask {
				t.Errorf("%s (%s), kept %v", kind, reason, a.RequestHeaders)
			}
		})
	}
	wg.Wait()
	expect("twenty at once", "token-1", 1)
	if req, body := tokens.last(t); body != "account_id=7281&client_id=client-1&client_secret=very+secret&grant_type=client_credentials&scope=email_send+email_write" ||
		req.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		t.Errorf("the token was asked for with %s", body)
	}

	b.later(17*time.Minute + 30*time.Second) // of 18
	b.send(target)
	expect("shortly before it expires", "token-2", 2)

	refuse <- struct{}{}
	a, kind, _ := b.send(target)
	if kind != domain.AuthExpired || strings.Contains(a.ResponseBody, "token-2") {
		t.Errorf("a refused token: %s, kept %q", kind, a.ResponseBody)
	}
	b.send(target)
	expect("after it was refused", "token-3", 3)

	b.set("secret", "rotated")
	b.send(target)
	expect("after the secret was rotated", "token-4", 4)

	other := oauth(tokens.URL)
	other.OAuth2.Style, other.OAuth2.Scopes = domain.OAuth2Header, nil
	b.send(domain.Target{URL: platform.URL, Auth: other})
	expect("of another target", "token-5", 5)
	if req, body := tokens.last(t); body != "account_id=7281&grant_type=client_credentials" {
		t.Errorf("the token was asked for with %s", body)
	} else if user, password, _ := req.BasicAuth(); user != "client-1" || password != "rotated" {
		t.Errorf("the client is %q %q", user, password)
	}
}

// Whatever a token endpoint does, the attempt ends with a verdict, in time, and nothing of what it says is kept.
func TestTokenEndpointsThatFail(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	b.set("id", "client-1")
	b.set("secret", "very-secret")
	platform := newReceiver(t, nil)
	for name, tc := range map[string]struct {
		answer  func(w http.ResponseWriter, r *http.Request)
		kind    domain.Verdict
		says    string
		fetched int // by three requests one after the other
	}{
		"the client is refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"error":"invalid_client","error_description":"very-secret is wrong"}`)
		}, domain.AuthExpired, "401 invalid_client", 1},
		"an error code that is none": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"error":"very-secret"}`)
		}, domain.AuthExpired, "answers 400: check", 1},
		"it fails":            {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, domain.RetryLater, "502", 1},
		"it gives no token":   {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{}`) }, domain.NetworkError, "no token", 1},
		"it speaks otherwise": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `<html>`) }, domain.NetworkError, "no token", 1},
		"the token is a MAC": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"access_token":"x","token_type":"mac"}`)
		}, domain.Permanent, "bearer", 1},
		"it redirects to a private address": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://10.0.0.1/token", http.StatusTemporaryRedirect)
		}, domain.AuthExpired, "307", 1},
		"it hangs": {nil, domain.Timeout, "in time", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done := make(chan struct{})
			tokens := issuer(t, func(w http.ResponseWriter, r *http.Request) bool {
				if tc.answer == nil {
					<-done
				} else {
					tc.answer(w, r)
				}
				return true
			})
			defer close(done)
			for range 3 {
				a, kind, reason := b.send(domain.Target{URL: platform.URL, Auth: oauth(tokens.URL), Retry: domain.Retry{Timeout: domain.Duration(200 * time.Millisecond)}})
				if kind != tc.kind || !strings.Contains(reason, tc.says) || strings.Contains(reason, "very-secret") || a.BodySHA256 != "" {
					t.Errorf("verdict = %s (%s), body %q; want %s with %q, and no request", kind, reason, a.BodySHA256, tc.kind, tc.says)
				}
			}
			if got := tokens.count(); got != tc.fetched {
				t.Errorf("%d requests for a token, want %d", got, tc.fetched)
			}
		})
	}
	guarded := newBench(t, Options{Allowed: nil})
	guarded.set("id", "a")
	guarded.set("secret", "b")
	if _, kind, reason := guarded.send(domain.Target{URL: platform.URL, Auth: oauth("http://169.254.169.254/token")}); kind != domain.Permanent || !strings.Contains(reason, "not public") {
		t.Errorf("a private token endpoint: %s (%s), want permanent", kind, reason)
	}
}
