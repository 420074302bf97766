package outbound

import (
	"net/url"
	"strings"
	"unicode"

	"github.com/tidwall/gjson"

	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

// withoutPerson masks, in what a platform said about a request, whatever the request may have brought there of the person:
// every word of its values that the target's author did not write, and whatever looks like an address. The answer itself is
// kept sealed, so what is left has to tell what kind of thing is wrong and not with what.
func (r Request) withoutPerson(said string) string {
	said = platforms.Masked(said)
	written, brought := map[string]bool{}, map[string]bool{}
	for _, text := range r.Written {
		eachWord(text, func(word string, _, _ int) { written[word] = true })
	}
	bring := func(text string) {
		eachWord(text, func(word string, _, _ int) { brought[word] = !written[word] })
	}
	if unescaped, err := url.QueryUnescape(r.URL); err == nil {
		bring(unescaped)
	}
	bring(r.URL)
	for _, value := range r.Headers {
		bring(value)
	}
	bring(r.Body)
	if gjson.Valid(r.Body) {
		leaves(gjson.Parse(r.Body), bring)
	} else if unescaped, err := url.QueryUnescape(r.Body); err == nil {
		bring(unescaped)
	}
	var out strings.Builder
	from := 0
	eachWord(said, func(word string, start, end int) {
		if brought[word] {
			out.WriteString(said[from:start] + "•••")
			from = end
		}
	})
	return out.String() + said[from:]
}

// leaves gives every value of a document, unescaped.
func leaves(value gjson.Result, found func(string)) {
	if !value.IsObject() && !value.IsArray() {
		found(value.String())
		return
	}
	value.ForEach(func(_, inner gjson.Result) bool {
		leaves(inner, found)
		return true
	})
}

// eachWord gives the runs of letters and digits of a text, in lower case, and where they stand. A single letter is none.
func eachWord(text string, found func(word string, start, end int)) {
	start := -1
	end := func(at int) {
		if start >= 0 && at-start > 1 {
			found(strings.ToLower(text[start:at]), start, at)
		}
		start = -1
	}
	for at, r := range text {
		switch wordly := unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r); {
		case wordly && start < 0:
			start = at
		case !wordly:
			end(at)
		}
	}
	end(len(text))
}
