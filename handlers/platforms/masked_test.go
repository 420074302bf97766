package platforms

import "testing"

// What is looked for costs nothing where it cannot be, and is found wherever it is.
func FuzzMasked(f *testing.F) {
	for _, text := range []string{
		"", "unsubscribed", "550 5.1.1 no such user", "ada@people.example is blocked", "/v3/contacts/ada%40people.example", "+61 491 570 006", "4      2", "%2B61491570006", "12", "a@", "@b", "é@ü",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, want := Masked(text), addresses.ReplaceAllString(text, "•••"); got != want {
			t.Errorf("Masked(%q) is %q, want %q", text, got, want)
		}
	})
}
