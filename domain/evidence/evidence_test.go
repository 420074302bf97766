package evidence_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/domain/evidence"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what a format looks like with its file, which is what others parse.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what it was; got:\n%s", path, got)
	}
}

// fixed is a source of one key.
type fixed struct{}

func (fixed) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

// oneEvent is a ledger of three events and the proof of the second.
func oneEvent(t *testing.T) (evidence.Bundle, string) {
	t.Helper()
	secret, public, err := note.GenerateKey(fixed{}, "ledger.example/42")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 4, 5, 6, 789_012_000, time.UTC)
	e := domain.Recorded{
		Event: domain.Event{
			ID: uuid.MustParse("018f6b7e-8c5a-7d43-9b62-4f5f3a9d1c11"), Type: "delivery.rejected", Stream: "delivery-6fa459ea-ee8a-3ca4-894e-db77e160355e",
			Keys:       domain.Keys{Target: "welcome", DeliveryID: uuid.MustParse("6fa459ea-ee8a-3ca4-894e-db77e160355e"), State: "rejected"},
			OccurredAt: at, Actor: "planner", Source: "/planner", CorrelationID: uuid.MustParse("018f6b7e-8c5a-7d43-9b62-4f5f3a9d1c10"),
			Data: []byte(`{"reason": "<unknown_target>", "name":"Zoë"}`), Sealed: []byte("sealed"),
		},
		Position: 2, Version: 1, RecordedAt: at.Add(time.Millisecond),
	}
	first, third := tlog.RecordHash([]byte("first")), tlog.RecordHash([]byte("third"))
	leaf := tlog.Hash(domain.Leaf(domain.Digest(&e.Event), e.Position, e.Version, e.RecordedAt))
	root := tlog.NodeHash(tlog.NodeHash(first, leaf), third)
	signed, err := note.Sign(&note.Note{Text: evidence.Checkpoint{Origin: "ledger.example/42", Size: 3, Root: root}.Text()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	return evidence.Bundle{
		Format: evidence.Format, DeliveryID: e.DeliveryID, Checkpoint: string(signed),
		Events: []evidence.Event{evidence.NewEvent(e, tlog.RecordProof{first, third}, nil)},
	}, public
}

// TestFormats holds the bytes of what leaves the house: whoever has an old file must be able to read it.
func TestFormats(t *testing.T) {
	t.Parallel()
	b, public := oneEvent(t)
	golden(t, "public.key", []byte(public+"\n"))
	golden(t, "checkpoint.txt", []byte(b.Checkpoint))
	proof, err := b.Proof(b.Events[0]).MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "event.tlog-proof", proof)
	var file bytes.Buffer
	if err := b.Write(&file); err != nil {
		t.Fatal(err)
	}
	golden(t, "bundle.json", file.Bytes())
	b.Events[0].Redact()
	file.Reset()
	if err := b.Write(&file); err != nil {
		t.Fatal(err)
	}
	golden(t, "redacted.json", file.Bytes())

	known, err := evidence.ParseKeys(public)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bundle.json", "redacted.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		read, err := evidence.Read(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := read.Events[0].Leaf()
		if err != nil {
			t.Fatal(err)
		}
		var p evidence.Proof
		if err := p.UnmarshalText(proof); err != nil {
			t.Fatal(err)
		}
		if c, n, err := p.Verify(leaf, known); err != nil || c.Size != 3 || len(n.Sigs) != 1 {
			t.Errorf("%s: Verify = %+v, %+v, %v, want a checkpoint of size 3", name, c, n, err)
		}
	}
}

func TestOpenCheckpoint(t *testing.T) {
	t.Parallel()
	b, public := oneEvent(t)
	_, foreign, err := note.GenerateKey(fixed{}, "ledger.example/43")
	if err != nil {
		t.Fatal(err)
	}
	text, signature, _ := strings.Cut(b.Checkpoint, "\n\n")
	for name, tc := range map[string]struct {
		signed, key string
		want        error
	}{
		"as it was signed":             {b.Checkpoint, public, nil},
		"another key":                  {b.Checkpoint, foreign, evidence.ErrSignature},
		"another size":                 {strings.Replace(text, "\n3\n", "\n4\n", 1) + "\n\n" + signature, public, evidence.ErrSignature},
		"a signature that was changed": {text + "\n\n" + strings.Replace(signature, "=", "A", 1), public, evidence.ErrSignature},
		"no signature":                 {text + "\n", public, evidence.ErrFormat},
		"nothing":                      {"", public, evidence.ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			known, err := evidence.ParseKeys(tc.key)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := evidence.OpenCheckpoint([]byte(tc.signed), known); !errors.Is(err, tc.want) {
				t.Errorf("OpenCheckpoint = %v, want %v", err, tc.want)
			}
		})
	}
}

func TestParseCheckpoint(t *testing.T) {
	t.Parallel()
	const root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	for name, tc := range map[string]struct {
		text string
		want error
	}{
		"three lines":               {"o\n0\n" + root + "\n", nil},
		"an extension line":         {"o\n7\n" + root + "\nmore\n", nil},
		"a size with a zero before": {"o\n07\n" + root + "\n", evidence.ErrFormat},
		"a size with a sign":        {"o\n+7\n" + root + "\n", evidence.ErrFormat},
		"a size that is too large":  {"o\n9223372036854775808\n" + root + "\n", evidence.ErrFormat},
		"a root that is too short":  {"o\n7\nAAAA\n", evidence.ErrFormat},
		"no origin":                 {"\n7\n" + root + "\n", evidence.ErrFormat},
		"two lines":                 {"o\n7\n", evidence.ErrFormat},
		"no last newline":           {"o\n7\n" + root, evidence.ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := evidence.ParseCheckpoint(tc.text); !errors.Is(err, tc.want) {
				t.Errorf("ParseCheckpoint = %v, want %v", err, tc.want)
			}
		})
	}
}

func TestVerifyConsistency(t *testing.T) {
	t.Parallel()
	at := func(origin string, size int64) evidence.Checkpoint {
		return evidence.Checkpoint{Origin: origin, Size: size}
	}
	for name, tc := range map[string]struct {
		earlier, later evidence.Checkpoint
		want           error
	}{
		"everything continues nothing": {at("o", 0), at("o", 5), nil},
		"backwards":                    {at("o", 5), at("o", 4), evidence.ErrTree},
		"another log":                  {at("o", 1), at("p", 5), evidence.ErrTree},
		"no proof":                     {at("o", 3), at("o", 5), evidence.ErrTree},
		"of the same":                  {at("o", 5), at("o", 5), nil},
	} {
		if err := evidence.VerifyConsistency(tc.earlier, tc.later, nil); !errors.Is(err, tc.want) {
			t.Errorf("%s: VerifyConsistency = %v, want %v", name, err, tc.want)
		}
	}
}

// TestRedact leaves parts of any event out, and its leaf stays the same; any other change makes another leaf.
func TestRedact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "a", "ab", "email", "<&>", "Zoë"})
		id := rapid.Custom(func(t *rapid.T) uuid.UUID { return uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")) })
		at := rapid.Custom(func(t *rapid.T) time.Time { return time.UnixMicro(rapid.Int64Range(-1e15, 4e15).Draw(t, "µs")).UTC() })
		r := domain.Recorded{
			Event: domain.Event{
				ID: id.Draw(t, "id"), Type: text.Draw(t, "type"), Stream: text.Draw(t, "stream"),
				Keys:       domain.Keys{Channel: text.Draw(t, "channel"), Purpose: text.Draw(t, "purpose"), Target: text.Draw(t, "target")},
				OccurredAt: at.Draw(t, "occurred"), Actor: text.Draw(t, "actor"), Data: []byte(rapid.String().Draw(t, "data") + "x"),
			},
			Position: rapid.Int64Range(1, 1<<40).Draw(t, "position"), Version: rapid.Int64Range(1, 1<<40).Draw(t, "version"), RecordedAt: at.Draw(t, "recorded"),
		}
		if rapid.Bool().Draw(t, "sealed") {
			r.Sealed = rapid.SliceOf(rapid.Byte()).Draw(t, "ciphertext")
		}
		want := tlog.Hash(domain.Leaf(domain.Digest(&r.Event), r.Position, r.Version, r.RecordedAt))
		e := evidence.NewEvent(r, nil, []byte("opened"))
		if got, err := e.Leaf(); err != nil || got != want {
			t.Fatalf("Leaf = %v, %v, want %v", got, err, want)
		}
		e.Redact()
		if got, err := e.Leaf(); err != nil || got != want || e.Data != "" || e.Opened != "" {
			t.Fatalf("Leaf of the redacted event = %v, %v, want %v", got, err, want)
		}
		change := rapid.SampledFrom([]func(){
			func() { e.Type, e.Stream = e.Type+"a", strings.TrimPrefix(e.Stream, "a") }, func() { e.Actor += "x" }, func() { e.Position++ },
			func() { e.Version++ }, func() { e.RecordedAt = e.RecordedAt.Add(time.Microsecond) }, func() { e.OccurredAt = time.Time{} },
			func() { e.DataSHA256 = strings.Repeat("ab", 32) }, func() { e.SealedSHA256 = strings.Repeat("ab", 32) }, func() { e.Subject[3] ^= 1 },
		}).Draw(t, "change")
		change()
		if got, err := e.Leaf(); err != nil || got == want {
			t.Fatalf("Leaf of a changed event = %v, %v, want another", got, err)
		}
	})
}

// FuzzRead gives the reader of bundles what strangers might: it answers with a bundle that it writes the same again, or with
// ErrFormat.
func FuzzRead(f *testing.F) {
	for _, name := range []string{"bundle.json", "redacted.json"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"format":"dispatch-ledger/evidence/v1","events":[{"path":["AA=="]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := evidence.Read(bytes.NewReader(text))
		if err != nil {
			if !errors.Is(err, evidence.ErrFormat) {
				t.Errorf("Read = %v, want ErrFormat", err)
			}
			return
		}
		var first, second bytes.Buffer
		if err := b.Write(&first); err != nil {
			return // a time that JSON cannot say, such as year 10000
		}
		again, err := evidence.Read(bytes.NewReader(first.Bytes()))
		if err == nil {
			err = again.Write(&second)
		}
		if err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("written and read again: %v\n%s\n%s", err, first.Bytes(), second.Bytes())
		}
		if _, err := evidence.Verify(b, note.VerifierList()); !errors.Is(err, evidence.ErrUnproven) {
			t.Errorf("Verify without keys = %v, want ErrUnproven", err)
		}
	})
}

// FuzzProof does the same for .tlog-proof files.
func FuzzProof(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "event.tlog-proof"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("c2sp.org/tlog-proof@v1\nextra AAAA\nindex 9223372036854775807\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var p, again evidence.Proof
		if err := p.UnmarshalText(text); err != nil {
			if !errors.Is(err, evidence.ErrFormat) {
				t.Errorf("UnmarshalText = %v, want ErrFormat", err)
			}
			return
		}
		written, err := p.MarshalText()
		if err == nil {
			err = again.UnmarshalText(written)
		}
		if err != nil || again.Position != p.Position || len(again.Path) != len(p.Path) {
			t.Errorf("written and read again: %v\n%s\n%s", err, text, written)
		}
		if _, _, err := p.Verify(tlog.Hash{}, note.VerifierList()); !errors.Is(err, evidence.ErrUnproven) {
			t.Errorf("Verify without keys = %v, want ErrUnproven", err)
		}
	})
}
