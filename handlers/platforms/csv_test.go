package platforms_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dispatch-ledger/dispatch-ledger/domain"
	"github.com/dispatch-ledger/dispatch-ledger/handlers/platforms"
)

var columns = platforms.Columns{
	Email: []string{"Email Address", "Email"}, Phone: []string{"Mobile"}, Reason: []string{"Status"}, At: []string{"Date"},
	Read: func(native string) (platforms.State, platforms.Reason) {
		if native == "ok" {
			return platforms.Cleared, platforms.Resubscribed
		}
		return platforms.Suppressed, platforms.Unsubscribed
	},
}

func TestImport(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 8, 20, 1, 2, 3, 0, time.UTC)
	for name, tc := range map[string]struct {
		file string
		want []string // "address state reason precision", or "!" and part of an error
	}{
		"a plain list":                                    {"email\nA@Example.test\n", []string{"a@example.test suppressed unsubscribed unknown"}},
		"a mark before the heading":                       {"\ufeffEMAIL_ADDRESS,status,date\na@example.test,out,2026-08-20T01:02:03Z\n", []string{"a@example.test suppressed unsubscribed second"}},
		"a date alone":                                    {"Email,Date\na@example.test,2026-08-20\n", []string{"a@example.test suppressed unsubscribed day"}},
		"a status that clears":                            {"Email,Status\na@example.test,ok\n", []string{"a@example.test cleared resubscribed unknown"}},
		"a blank status suppresses nobody":                {"Email,Status\na@example.test,\n", []string{"a@example.test no_consent no_consent unknown"}},
		"a bad row among good ones":                       {"Email\na@example.test\nnot an address\nc@example.test\n", []string{"a@example.test suppressed unsubscribed unknown", "!line 3", "c@example.test suppressed unsubscribed unknown"}},
		"a broken quote":                                  {"Email\n\"a@example.test\nb", []string{"!line"}},
		"phone numbers":                                   {"Mobile\n+61 400 000 001\n", []string{"+61400000001 suppressed unsubscribed unknown"}},
		"a suppressed email says nothing about the phone": {"Email,Mobile\na@example.test,+61400000001\n", []string{"a@example.test suppressed unsubscribed unknown"}},
		"no column for an address":                        {"Name,Status\nAda,out\n", []string{"!Email Address, Email, Mobile"}},
		"an empty file":                                   {"", []string{"!no heading"}},
		"a row that is too short":                         {"Status,Email\nout\n", []string{"!no address"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for r, err := range columns.Import(strings.NewReader(tc.file), func() time.Time { return at }) {
				if err != nil {
					if !errors.Is(err, platforms.ErrImport) {
						t.Errorf("error %v is not ErrImport", err)
					}
					got = append(got, "!"+err.Error())
					continue
				}
				f := r.Facts[0]
				got = append(got, strings.Join([]string{r.Addr.Value, string(r.State), string(f.Reason), string(f.Precision)}, " "))
			}
			if len(got) != len(tc.want) {
				t.Fatalf("Import = %q, want %q", got, tc.want)
			}
			for i, want := range tc.want {
				if part, isError := strings.CutPrefix(want, "!"); isError && !strings.Contains(got[i], part) || !isError && got[i] != want {
					t.Errorf("row %d = %q, want %q", i, got[i], want)
				}
			}
		})
	}
}

func FuzzImport(f *testing.F) {
	f.Add("Email,Status\na@example.test,out\n")
	f.Add("\ufeffMobile\n\"+61\n")
	f.Fuzz(func(t *testing.T, file string) {
		for r, err := range columns.Import(strings.NewReader(file), func() time.Time { return noon }) {
			if err != nil {
				continue
			}
			if again, err := domain.NormalizeAddress(r.Addr.Channel, r.Addr.Value); err != nil || again != r.Addr.Value {
				t.Fatalf("imported address %q is not normal: %q, %v", r.Addr.Value, again, err)
			}
		}
	})
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	central := time.FixedZone("CST", -6*3600)
	at := time.Date(2026, 8, 20, 15, 24, 32, 0, time.UTC)
	for text, tc := range map[string]struct {
		want      time.Time
		precision platforms.Precision
	}{
		"2026-08-20T15:24:32Z":             {at, platforms.Second},
		"2026-08-20T17:24:32+02:00":        {at, platforms.Second},
		"2026-08-20 15:24:32 +0000":        {at, platforms.Second},
		"2026-08-20 15:24:32.5 +0000":      {at.Add(500 * time.Millisecond), platforms.Exact},
		"2026-08-20 15:24:32.000000+00:00": {at, platforms.Second},
		"2026-08-20T09:24:32":              {at, platforms.Second}, // no zone: Central
		"8/20/2026 9:24:32 AM":             {at, platforms.Second},
		"2026-08-20":                       {time.Date(2026, 8, 20, 6, 0, 0, 0, time.UTC), platforms.Day},
		"":                                 {time.Time{}, platforms.UnknownTime},
		"yesterday":                        {time.Time{}, platforms.UnknownTime},
	} {
		if got, precision := platforms.ParseTime(text, central); !got.Equal(tc.want) || precision != tc.precision {
			t.Errorf("ParseTime(%q) = %v, %s; want %v, %s", text, got, precision, tc.want, tc.precision)
		}
	}
}
