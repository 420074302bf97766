package outbound

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// hopError is a redirect that is not followed, and why.
type hopError struct{ reason string }

func (e *hopError) Error() string { return e.reason }

func redirecting(status int) bool {
	return status >= 300 && status < 400 && status != http.StatusNotModified
}

// follow says where a redirect leads, or why it is not followed. Where the connection leads is checked again when it is
// dialled, like the first one's.
func (r *ready) follow(from *url.URL, answer *http.Response, left int) (*url.URL, error) {
	switch status := answer.StatusCode; {
	case status != http.StatusTemporaryRedirect && status != http.StatusPermanentRedirect:
		return nil, &hopError{"the receiver redirects in a way that turns the request into another (" + http.StatusText(status) + "): put the final URL into the target"}
	case left <= 0:
		return nil, &hopError{"the receiver redirects more often than the target allows"}
	}
	to, err := from.Parse(answer.Header.Get("Location"))
	switch {
	case err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Hostname() == "" || to.User != nil || answer.Header.Get("Location") == "":
		return nil, &hopError{"the receiver redirects to what is no http(s) URL"}
	case from.Scheme == "https" && to.Scheme == "http":
		return nil, &hopError{"the receiver redirects from https to http, where all could read it"}
	case to.Host != from.Host && (r.secrets.holds(string(r.Body)) || r.secrets.holds(to.String())):
		return nil, &hopError{"the receiver redirects to another host, and the body holds a secret that is not for it: put the final URL into the target"}
	}
	to.Fragment = ""
	return to, nil
}

// withoutCredentials is what another host than the target's may be told: no secrets, and nothing that authenticates.
func (r *ready) withoutCredentials(header http.Header) http.Header {
	out := http.Header{}
	for name, values := range header {
		if slices.Contains([]string{"Authorization", "Cookie", "Proxy-Authorization"}, name) || r.secrets.holds(strings.Join(values, "\n")) {
			continue
		}
		out[name] = values
	}
	return out
}
