package domain

import "reflect"

// ParseTarget reads a target as somebody wrote it in JSON: strictly, completed with the defaults and checked. The
// handle may be left out where it is known otherwise, and must not say anything else. Errors are *InvalidError.
func ParseTarget(raw []byte, handle string) (TargetChanged, error) {
	var t TargetChanged
	if err := refuseNUL(raw); err != nil {
		return t, err
	}
	if err := decodeStrict(raw, &t); err != nil {
		return t, locate(err, raw, reflect.TypeFor[TargetChanged]())
	}
	if t.Handle == "" {
		t.Handle = handle
	}
	if t.Handle != handle {
		return t, Invalid("/handle", "is not the handle in the path")
	}
	t.Normalize()
	return t, t.Validate()
}
