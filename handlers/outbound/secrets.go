package outbound

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

// Mask stands where a secret would.
const Mask = "••••"

// secrets are what one request is made with, and how it is taken out of texts again.
type secrets struct {
	masked            bool // dots are sent in the place of values
	placeholder       string
	current, previous map[string]string // values by name
	hidden            map[string]struct{}
	taken             *strings.Replacer // of hidden; nil when it has changed
}

func newSecrets(r Request, masked bool) *secrets {
	s := &secrets{masked: masked, placeholder: r.Placeholder, current: r.Secrets, previous: r.Previous, hidden: map[string]struct{}{}}
	for name := range r.Secrets {
		if r.TLS != nil && (name == r.TLS.Certificate || name == r.TLS.CA) {
			continue // never sent as a text, and long
		}
		s.hide(r.Secrets[name])
		s.hide(r.Previous[name])
	}
	return s
}

// line gives a value that stands in one line.
func (s *secrets) line(name string) (string, error) {
	value := s.current[name]
	if strings.ContainsAny(value, "\r\n\x00") {
		return "", fmt.Errorf("its secret %q holds a line break", name)
	}
	return value, nil
}

// hide makes a value, in each of the forms in which it may come back, show as dots.
func (s *secrets) hide(value string) {
	if value == "" {
		return
	}
	for _, form := range []string{
		value, url.QueryEscape(value), url.PathEscape(value), jsonEscape(value), plainJSON(value), base64.StdEncoding.EncodeToString([]byte(value)),
	} {
		s.hidden[form] = struct{}{}
	}
	s.taken = nil
}

// Replace takes what is hidden out of a text.
func (s *secrets) Replace(text string) string {
	if len(s.hidden) == 0 {
		return text
	}
	if s.taken == nil {
		forms := slices.SortedFunc(maps.Keys(s.hidden), func(a, b string) int {
			return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) // the longest first: one may hold another
		})
		pairs := make([]string, 0, 2*len(forms))
		for _, form := range forms {
			pairs = append(pairs, form, Mask)
		}
		s.taken = strings.NewReplacer(pairs...)
	}
	return s.taken.Replace(text)
}

// holds reports whether a text holds something that is hidden.
func (s *secrets) holds(text string) bool { return s.Replace(text) != text }

// fill puts the values in the place of their placeholders.
func (s *secrets) fill(text string, escape func(string) string) (string, error) {
	if s.placeholder == "" || !strings.Contains(text, s.placeholder) {
		return text, nil
	}
	for name := range s.current {
		placeholder := s.placeholder + name + domain.PlaceholderEnd
		if !strings.Contains(text, placeholder) {
			continue
		}
		value, err := s.line(name)
		if err != nil {
			return "", err
		}
		if value = escape(value); s.masked {
			value = Mask
		}
		text = strings.ReplaceAll(text, placeholder, value)
	}
	return text, nil
}

func asItIs(s string) string { return s }

func jsonEscape(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return ""
	}
	return string(b[1 : len(b)-1])
}

// plainJSON is jsonEscape as others write it: without escapes for HTML.
func plainJSON(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil {
		return s
	}
	return strings.TrimSuffix(b.String(), "\n")[1 : b.Len()-2]
}
