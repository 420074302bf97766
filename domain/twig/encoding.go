package twig

import (
	"fmt"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
)

// convertEncoding changes the character set of a text. Names are the Internet's (ISO-2022-JP, windows-1252, …).
func convertEncoding(s, to, from string) (string, error) {
	text := s
	if !isUTF8Name(from) {
		e, err := characterSet(from)
		if err != nil {
			return "", fmt.Errorf("unknown character set %s", quoteShort(from))
		}
		if text, err = e.NewDecoder().String(s); err != nil {
			return "", fmt.Errorf("text is not %s", from)
		}
	}
	if isUTF8Name(to) {
		return text, nil
	}
	e, err := characterSet(to)
	if err != nil {
		return "", fmt.Errorf("unknown character set %s", quoteShort(to))
	}
	if text, err = e.NewEncoder().String(text); err != nil {
		return "", fmt.Errorf("text has characters that %s lacks", to)
	}
	return text, nil
}

// characterSet is an encoding by its registered name; ISO-8859-1 is itself, and not windows-1252 as on the web.
func characterSet(name string) (encoding.Encoding, error) {
	if e, err := ianaindex.IANA.Encoding(name); err == nil && e != nil {
		return e, nil
	}
	return htmlindex.Get(name) //nolint:wrapcheck // the callers say what it means
}

func isUTF8Name(name string) bool {
	return strings.EqualFold(name, "UTF-8") || strings.EqualFold(name, "UTF8")
}
