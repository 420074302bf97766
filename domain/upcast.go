package domain

import (
	"encoding/json"
	"fmt"
)

// upcast is how a payload of one version becomes one of the next. Events are for ever, so a payload gains optional fields and
// needs none of this; only where a field has to be called otherwise, or to be there, is its type's version raised, in the
// declaration and here. Whoever reads an event then sees the newest version: programs through Decode, projections through the
// function upcast under the view slice, which a migration brings up to this list and a test holds to it.
//
// A payload says its version in the field "v", which the first version lacks. The bytes in the ledger stay as they are.
type upcast struct {
	eventType string
	from      int                        // version that it changes
	rename    map[string]string          // fields, open or sealed, from their old name to their new one
	defaults  map[string]json.RawMessage // open fields that have to be there, by name
}

// upcasts are all there are, in any order.
var upcasts = []upcast{
	// Every other time in the ledger is called what happened at it.
	{eventType: "checkpoint.timestamped", from: 1, rename: map[string]string{"time": "stamped_at"}},
}

// versionField is where a payload says its version.
const versionField = "v"

// stampVersion writes a payload's version into it, unless it is the first.
func stampVersion(data []byte, version int) []byte {
	if version <= 1 {
		return data
	}
	stamped := fmt.Appendf(nil, `{%q:%d`, versionField, version)
	if len(data) > len("{}") {
		stamped = append(stamped, ',')
	}
	return append(stamped, data[1:]...)
}

// current makes both halves of a recorded payload those of its type's newest version. One of a later version than this program
// knows is left alone: it may have more fields, and those are passed over.
func current(d *Declaration, data, secret []byte) (newData, newSecret []byte, err error) {
	if d.Version <= 1 {
		return data, secret, nil
	}
	var said struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(data, &said); err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrMalformed, d.Type, err)
	}
	for version := max(1, said.V); version < d.Version; version++ {
		for _, u := range upcasts {
			if u.eventType != d.Type || u.from != version {
				continue
			}
			if data, err = u.apply(data, true); err == nil && secret != nil {
				secret, err = u.apply(secret, false)
			}
			if err != nil {
				return nil, nil, fmt.Errorf("%w: %s, version %d: %w", ErrMalformed, d.Type, version, err)
			}
		}
	}
	return data, secret, nil
}

// apply changes one half of a payload.
func (u upcast) apply(half []byte, open bool) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(half, &fields); err != nil {
		return nil, err
	}
	for before, now := range u.rename {
		if value, ok := fields[before]; ok {
			delete(fields, before)
			if _, there := fields[now]; !there {
				fields[now] = value
			}
		}
	}
	if open {
		for name, value := range u.defaults {
			if _, there := fields[name]; !there {
				fields[name] = value
			}
		}
		fields[versionField] = fmt.Appendf(nil, "%d", u.from+1)
	}
	return json.Marshal(fields)
}

// Upcast is a recorded payload's open half as its type's newest version has it.
func Upcast(eventType string, data []byte) ([]byte, error) {
	d, err := Declared(eventType)
	if err != nil {
		return nil, err
	}
	data, _, err = current(d, data, nil)
	return data, err
}

// checkUpcasts panics when a type's versions do not lead to one another.
func checkUpcasts(d *Declaration) {
	for version := 1; version < d.Version; version++ {
		steps := 0
		for _, u := range upcasts {
			if u.eventType == d.Type && u.from == version {
				steps++
			}
		}
		if steps != 1 {
			panic(fmt.Sprintf("%s is at version %d, and %d upcasts lead on from version %d", d.Type, d.Version, steps, version))
		}
	}
	for _, f := range d.Fields() {
		if f.Name == versionField {
			panic(fmt.Sprintf("%s has a field %q, which is where its version stands", d.Type, versionField))
		}
	}
}
