package importer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/importer"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/intake"
	"github.com/dispatch-ledger/dispatch-ledger/schema"
	"github.com/dispatch-ledger/dispatch-ledger/schema/schematest"
)

const jane, john = "8fc344db-713e-4590-ab26-e82d77ba3313", "1b0c1f5e-6a0d-4c39-9d0b-6d1a1fb0e2a7"

var now = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// world is an importer on a ledger of its own.
type world struct {
	importer.Importer
	rejects []importer.Reject
}

func newWorld(t testing.TB) *world {
	t.Helper()
	db, err := schema.Connect(schematest.Open(t).URL, schema.Options{Role: "ledger_service"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	key, err := schema.LoadOrCreateMasterKey(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	vault, err := schema.OpenVault(t.Context(), db, key, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ledger := schema.OpenLedger(db, nil, nil)
	t.Cleanup(ledger.Close)
	return &world{Importer: importer.Importer{Intake: &intake.Service{Ledger: ledger, Vault: vault, Clock: func() time.Time { return now }}, DB: db}}
}

func (w *world) run(ctx context.Context, format, file string, change ...func(*importer.Job)) (importer.Summary, error) {
	w.rejects = nil
	sum := sha256.Sum256([]byte(file))
	job := importer.Job{Name: "f", Format: format, SHA256: sum[:], Actor: "test", Reject: func(r importer.Reject) error { w.rejects = append(w.rejects, r); return nil }}
	for _, c := range change {
		c(&job)
	}
	return w.Run(ctx, job, strings.NewReader(file))
}

func (w *world) decisions(t testing.TB) (out []domain.ConsentChanged) {
	t.Helper()
	for e, err := range schema.Events(t.Context(), w.DB, schema.Filter{Types: []string{"consent.changed"}}) {
		if err != nil {
			t.Fatal(err)
		}
		p, err := domain.DecodeAs[domain.ConsentChanged](e.Data, nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func dry(j *importer.Job) { j.DryRun = true }

func TestBothShapesInBothFormats(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ format, file string }{
		"an answer a record":         {"csv", "\xef\xbb\xbfProfile ID,Channel,Purpose,Status,Decided At,email,evidence.form\r\n" + jane + ",email,promo,opted_out,2026-11-23 04:05:06,jane@example.com,7\r\n"},
		"the CRM's names":            {"csv", "profile_id,email_optin,email_consent_updated_at,sms_promo,email_optout\n" + jane + ",false,2026-11-23T04:05:06Z,null,false\n"},
		"an answer a line":           {"ndjson", `{"profile_id":"` + jane + `","channel":"email","purpose":"promo","status":"unsubscribed","decided_at":"2026-11-23T04:05:06Z","evidence":{"form":"7"}}` + "\n\n"},
		"the CRM's profile":          {"ndjson", `{"id":"` + jane + `","attributes":{"comms":{"email_promo":false,"email_consent_updated_at":"2026-11-23 04:05:06","push_promo":null,"profile_id":null}}}`},
		"quoted, over several lines": {"csv", "profile_id,channel,purpose,status,decided_at,note\n" + jane + ",email,promo,no,2026-11-23T14:05:06+10:00,\"said so\nat the till\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			would, err := w.run(t.Context(), tc.format, tc.file, dry)
			if err != nil || would.Recorded != 1 || !would.DryRun || len(w.decisions(t)) != 0 {
				t.Fatalf("dry run = %+v, %v, rejects %+v", would, err, w.rejects)
			}
			got, err := w.run(t.Context(), tc.format, tc.file)
			if err != nil || got.Recorded != 1 || got.Rejected != 0 || got.Position == 0 {
				t.Fatalf("Run = %+v, %v, rejects %+v", got, err, w.rejects)
			}
			d := w.decisions(t)
			if len(d) != 1 || d[0].ProfileID.String() != jane || len(d[0].Changes) != 1 || d[0].Changes[0] != (domain.ConsentChange{Channel: domain.Email, Purpose: domain.Promo, Status: domain.OptedOut}) ||
				!d[0].DecidedAt.Equal(time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC)) {
				t.Errorf("decisions = %+v", d)
			}
			again, err := w.run(t.Context(), tc.format, tc.file)
			if err != nil || again.Recorded != 0 || again.Duplicates != 1 || len(w.decisions(t)) != 1 {
				t.Errorf("again = %+v, %v", again, err)
			}
		})
	}
}

func TestWhatIsRejected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const good = jane + ",email,promo,opted_in,2026-11-23T04:05:06Z,\n"
	file := "profile_id,channel,purpose,status,decided_at,mobile\n" + // line 1
		good +
		"jane,email,promo,opted_in,2026-11-23T04:05:06Z,\n" + // 3
		jane + ",fax,promo,opted_in,2026-11-23T04:05:06Z,\n" +
		jane + ",email,promo,perhaps,2026-11-23T04:05:06Z,\n" +
		jane + ",email,promo,opted_in,,\n" + // 6
		jane + ",email,promo,opted_in,yesterday,\n" +
		jane + ",email,promo,opted_in,2027-11-23T04:05:06Z,\n" + // the future
		jane + ",email,promo,opted_in,2026-11-23T04:05:06Z,0491 570 156\n" +
		jane + ",email\n" + // 10
		jane + ",em\"ail,promo,opted_in,2026-11-23T04:05:06Z,\n" +
		jane + ",email,promo,opted_in,2026-11-23T04:05:06Z,\xff\n" +
		john + ",email,promo,opted_in,2026-11-23T04:05:06Z,\x00\n" +
		john + ",email,promo,opted_in,2026-11-23T04:05:06Z,+61491570156\n"
	got, err := w.run(t.Context(), "csv", file)
	if err != nil || got.Recorded != 2 || got.Rejected != 11 || len(w.decisions(t)) != 2 {
		t.Errorf("Run = %+v, %v", got, err)
	}
	want := map[int64]string{3: "profile_id", 4: "channel", 5: "status", 6: "decided_at", 7: "decided_at", 8: "decided_at", 9: "mobile", 10: "", 11: "", 12: "mobile", 13: "mobile"}
	for _, r := range w.rejects {
		if field, ok := want[r.Line]; !ok || r.Field != field || r.Reason == "" {
			t.Errorf("rejected %+v, want field %q", r, field)
		}
		delete(want, r.Line)
		if strings.Contains(r.Reason, "0491") || strings.Contains(r.Reason, "jane") {
			t.Errorf("the reason repeats what stood there: %q", r.Reason)
		}
	}
	if len(want) > 0 {
		t.Errorf("not rejected: %v", want)
	}
	if got, err := w.run(t.Context(), "csv", file, dry); err != nil || got.Rejected != 11 || got.Duplicates != 2 {
		t.Errorf("a dry run = %+v, %v, want it to find the same", got, err)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, tc := range map[string]struct{ format, file string }{
		"nothing":               {"csv", ""},
		"UTF-16":                {"csv", "\xff\xfep\x00r\x00"},
		"a spreadsheet":         {"csv", "PK\x03\x04..."},
		"a column nobody knows": {"csv", "profile_id,favourite_colour\n"},
		"a column twice":        {"csv", "profile_id,email_promo,Email Promo\n"},
		"no profile":            {"csv", "email,email_promo\n"},
		"a quote left open":     {"csv", "profile_id,channel,purpose,status,decided_at\n" + jane + ",\"email,promo,opted_in,2026-11-23T04:05:06Z\n" + strings.Repeat(jane+",email,promo,opted_in,2026-11-23T04:05:06Z\n", 2000)},
		"a line without an end": {"ndjson", `{"profile_id":"` + strings.Repeat("x", 100_000)},
		"a format that is not":  {"xml", "<consent/>"},
	} {
		if got, err := w.run(t.Context(), tc.format, tc.file); !errors.Is(err, importer.ErrFile) || got.Recorded != 0 {
			t.Errorf("%s: %+v, %v, want ErrFile", name, got, err)
		}
	}
}

// An import that dies goes on where it stopped, and the whole is recorded once.
func TestAnInterruptedImportGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var file bytes.Buffer
	file.WriteString("profile_id,channel,purpose,status,decided_at\n")
	const people = 1300
	for i := range people {
		fmt.Fprintf(&file, "%s,email,promo,opted_in,2026-11-23T04:05:06Z\n", uuid.NewSHA1(uuid.Nil, []byte{byte(i), byte(i >> 8)}))
	}
	broken := errors.New("the disk is gone")
	sum := sha256.Sum256(file.Bytes())
	job := importer.Job{Name: "f", Format: "csv", SHA256: sum[:], Actor: "test"}
	_, err := w.Run(t.Context(), job, io.MultiReader(bytes.NewReader(file.Bytes()[:70_000]), failing{broken}))
	if !errors.Is(err, broken) {
		t.Fatalf("Run = %v", err)
	}
	half := len(w.decisions(t))
	if half == 0 || half >= people {
		t.Fatalf("%d recorded before it broke, want some", half)
	}
	var began int64
	job.Begin = func(s importer.Summary) { began = s.Resumed }
	got, err := w.Run(t.Context(), job, bytes.NewReader(file.Bytes()))
	if err != nil || began < 500 || got.Recorded != people || len(w.decisions(t)) != people {
		t.Errorf("Run = %+v, %v, after line %d; %d decisions, want %d", got, err, began, len(w.decisions(t)), people)
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// Whatever is in a file, every record of it is recorded, empty or rejected, and none is lost.
func FuzzRun(f *testing.F) {
	f.Add("csv", "profile_id,channel,purpose,status,decided_at\n"+jane+",email,promo,yes,2026-11-23\n,,,,\n")
	f.Add("csv", "profile_id,email_promo,email_consent_updated_at\n"+jane+",true,2026-11-23T04:05:06Z\n\"")
	f.Add("ndjson", `{"profile_id":"`+jane+`","attributes":{"comms":{"sms_optout":true}},"decided_at":"2026-11-23"}`+"\n{}\nnull\n[]")
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, format, file string) {
		got, err := w.run(t.Context(), format, file, dry)
		if err != nil && !errors.Is(err, importer.ErrFile) {
			t.Fatalf("Run = %v", err)
		}
		if err == nil && got.Rows != got.Recorded+got.Duplicates+got.Empty+got.Rejected || int64(len(w.rejects)) != got.Rejected {
			t.Fatalf("Run = %+v with %d rejects", got, len(w.rejects))
		}
	})
}
