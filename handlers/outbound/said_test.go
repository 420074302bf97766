package outbound

import "testing"

// A platform quotes what it was sent. What is kept in the open tells what kind of thing is wrong, and of whom nothing.
func TestWithoutPerson(t *testing.T) {
	t.Parallel()
	r := Request{
		Written: []string{`{"metric": "Reward Earned", "email": "{{ profile.email }}", "name": "{{ profile.first_name }} {{ profile.last_name }}"}`, "https://api.example/people/{{ profile.id }}"},
		URL:     "https://api.example/people/8fc344db?who=Zo%C3%AB+Brontë", Headers: map[string]string{"X-Person": "card-77"},
		Body: `{"metric": "Reward Earned", "email": "jane@example.com", "name": "Zo\u00eb Brontë", "birthday": 19850915, "vip": true}`,
	}
	for said, want := range map[string]string{
		"metric Reward Earned is unknown":                     "metric Reward Earned is unknown",
		"'jane@example.com' is not valid (at /data/email)":    "'•••' is not valid (at /data/email)",
		"JANE@EXAMPLE.COM, +61 400 000 001 and zoë":           "••• ••• and •••",
		"Hello ZOË BRONTË!":                                   "Hello ••• •••!",
		"19850915 is no date":                                 "••• is no date",
		"card 77 of 8fc344db":                                 "••• ••• of •••",
		"https://elsewhere.example/?again=jane%40example.com": "https://elsewhere.example/?again=•••",
		"nobody": "nobody",
	} {
		if got := r.withoutPerson(said); got != want {
			t.Errorf("withoutPerson(%q) = %q, want %q", said, got, want)
		}
	}
	form := Request{Body: "email=jane%2Bnews%40example.com&name=Zo%C3%AB"}
	if got := form.withoutPerson("news for Zoë"); got != "••• for •••" {
		t.Errorf("of a form: %q", got)
	}
}
