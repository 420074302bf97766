package domain_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
)

func TestTheSampleIsHeldAgainstTheTemplates(t *testing.T) {
	t.Parallel()
	const sample = `{"profile":{"email":"a@example.com","identities":[{"handle":"klaviyo","identifier":"01HX"}]},"items":[]}`
	for name, tc := range map[string]struct {
		body, sample, policy, want string
	}{
		"all there":                       {`{"a": "{{ profile.email }}", "k": "{{ profile.identities.klaviyo_id }}"}`, sample, domain.UnresolvedError, ""},
		"a misspelt step":                 {"{\"a\":\n \"{{ profile.emial }}\"}", sample, domain.UnresolvedError, "profile.emial (body, line 2, column 6)"},
		"a branch that would not run":     {`{"a": {% if false %}{{ nope }}{% else %}1{% endif %}}`, sample, domain.UnresolvedError, "nope (body"},
		"optional in the template":        {`{"a": "{{ nope ?? 'x' }}{{ nada|default }}{% if no is defined %}{% endif %}"}`, sample, domain.UnresolvedError, ""},
		"a constant of the target":        {`{"a": "{{ brand }}"}`, sample, domain.UnresolvedError, ""},
		"a constant of the service":       {`{"a": "{{ region }}"}`, sample, domain.UnresolvedError, ""},
		"an empty list says nothing":      {`[{% for i in items %}"{{ i.sku }}"{% endfor %}]`, sample, domain.UnresolvedError, ""},
		"a policy that lets it pass":      {`{"a": "{{ nope }}"}`, sample, domain.UnresolvedWarn, ""},
		"no sample":                       {`{"a": "{{ nope }}"}`, "", domain.UnresolvedError, ""},
		"more than anybody wants to read": {`"{{ a }}{{ b }}{{ c }}{{ d }}{{ e }}{{ f }}{{ g }}"`, sample, domain.UnresolvedError, "2 more"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := domain.CompileTarget(target(func(x *domain.Target) {
				x.Body, x.Sample, x.Unresolved, x.Headers, x.Variables = tc.body, []byte(tc.sample), tc.policy, nil, map[string]any{"brand": "acme"}
			}), domain.Partials{})
			if err != nil {
				t.Fatal(err)
			}
			err = c.CheckSample([]string{"region"})
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("CheckSample = %v", err)
			case tc.want != "" && (!errors.Is(err, domain.ErrInvalid) || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("CheckSample = %v, want it to name %s", err, tc.want)
			}
		})
	}
	c, err := domain.CompileTarget(target(func(x *domain.Target) {
		x.Body, x.Headers, x.URL = `{}`, map[string]string{"X-Tier": "{{ profile.tier }}"}, "https://example.com/{{ shop }}"
	}), domain.Partials{})
	if err != nil {
		t.Fatal(err)
	}
	lacking, err := c.Lacking([]byte(sample), nil)
	if err != nil || len(lacking) != 2 || lacking[0].Part != "url" || lacking[1].Part != "headers/X-Tier" || lacking[1].Name != "profile.tier" {
		t.Errorf("Lacking = %+v, %v, want what the URL and the header name", lacking, err)
	}
	if _, err := c.Lacking([]byte(`[1]`), nil); !errors.Is(err, domain.ErrInvalid) {
		t.Errorf("Lacking = %v for a context that is none", err)
	}
}
