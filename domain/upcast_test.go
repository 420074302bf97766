package domain

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestPayloadsOfEarlierVersions(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, data := range map[string]string{
		"version 1":                   `{"origin":"o","size":3,"checkpoint":"c","authority":"a","time":"2026-01-02T03:04:05Z","token":"MAA="}`,
		"version 2":                   `{"v":2,"origin":"o","size":3,"checkpoint":"c","authority":"a","stamped_at":"2026-01-02T03:04:05Z","token":"MAA="}`,
		"a version that is not known": `{"v":9,"origin":"o","size":3,"checkpoint":"c","authority":"a","stamped_at":"2026-01-02T03:04:05Z","token":"MAA=","more":{"v":1}}`,
	} {
		p, err := DecodeAs[CheckpointTimestamped]([]byte(data), nil)
		if err != nil || !p.StampedAt.Equal(at) || p.Size != 3 {
			t.Errorf("%s reads %+v, %v", name, p, err)
		}
		e, _, err := New(uuid.New(), p)
		if err != nil {
			t.Fatal(err)
		}
		var said struct{ V int }
		if err := json.Unmarshal(e.Data, &said); err != nil || said.V != 2 {
			t.Errorf("%s is written anew as %s", name, e.Data)
		}
	}
	if _, err := DecodeAs[CheckpointTimestamped]([]byte(`{"v":"two"}`), nil); err == nil {
		t.Error("a version that is no number was read")
	}
	e, _, err := New(uuid.New(), TokenRevoked{Name: "n"})
	if err != nil || string(e.Data) != `{"name":"n"}` {
		t.Errorf("a first version is written as %s, %v, want it without a version", e.Data, err)
	}
}

// Sealed fields move with the others, and what has to be there is put there.
func TestUpcastBothHalves(t *testing.T) {
	t.Parallel()
	u := upcast{eventType: "x", from: 1, rename: map[string]string{"old": "new", "note": "remark"}, defaults: map[string]json.RawMessage{"kind": json.RawMessage(`"plain"`)}}
	open, err1 := u.apply([]byte(`{"old":1,"kept":[2]}`), true)
	secret, err2 := u.apply([]byte(`{"note":"n"}`), false)
	if err1 != nil || err2 != nil || string(open) != `{"kept":[2],"kind":"plain","new":1,"v":2}` || string(secret) != `{"remark":"n"}` {
		t.Errorf("open %s, %v; sealed %s, %v", open, err1, secret, err2)
	}
}
