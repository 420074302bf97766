package domain

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzParseTargetFile holds: a target file is refused with an error of ours, or says the same once it is written down and
// read again, as JSON and as a file, and its difference from itself is nothing.
func FuzzParseTargetFile(f *testing.F) {
	for _, file := range []string{
		"handle: h\nurl: https://example.com/{{ x }}\nbody: '{}'",
		"handle: h\nname: A: B\nurl: https://{{ s }}.example.com/\nform: {a: '{{ b }}'}\nvariables: {c: 1}\nenvironments: {p: {c: true}}",
		"handle: h\nurl: http://e\nbody: x\ncontent_type: text/plain\nauth: {oauth2: {token_url: 'https://t', client_id: a, client_secret: b, scopes: [x], params: {y: z}}}",
		"handle: h\nurl: http://e\nbody: x\ntls: {ca: a}\nsigning: [a]\nhmac: b\nredirects: 3\napproval: required\nsample: {a: [1, null]}\ncondition: {'==': [1, 1]}",
		`{"handle":"h","url":"https://e/","body":"{}","retry":{"timeout":"5s"},"limits":{"rate":"5/m"}}`,
		"&a [*a]", "handle: &h x\nurl: *h", "<<: {handle: h}", "handle: h\nheaders: {\"a\\r\\nb\": c}", "\x00",
	} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		changed, err := ParseTargetFile(file)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%v is no error of ours", err)
			}
			return
		}
		written, err := marshal(changed.Target)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseTarget(written, changed.Handle)
		if err != nil {
			t.Fatalf("%s is not read again: %v", written, err)
		}
		rewritten, err := marshal(again.Target)
		if err != nil || !bytes.Equal(written, rewritten) {
			t.Fatalf("%s becomes %s (%v)", written, rewritten, err)
		}
		as, err := changed.File()
		if err != nil {
			t.Fatal(err)
		}
		if read, err := ParseTargetFile(as); err != nil || !sameTarget(read.Target, changed.Target) {
			t.Fatalf("%s as a file is %s, which is read as another (%v)", written, as, err)
		}
		if changes, err := DiffTargets(changed.Target, again.Target); err != nil || len(changes) > 0 {
			t.Fatalf("changes = %+v, %v", changes, err)
		}
		_, _ = CompileTarget(changed.Target, Partials{}) // neither panics nor hangs
	})
}
