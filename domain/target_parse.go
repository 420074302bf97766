package domain

import (
	"errors"
	"reflect"
	"strings"
)

// TargetDraft is a target as somebody writes it, and why.
type TargetDraft struct {
	Target
	Reason string `json:"reason,omitempty" doc:"why it is changed, in words"`
}

// ParseTarget reads a target as somebody wrote it in JSON: strictly, completed with the defaults and checked. The
// handle may be left out where it is known otherwise, and must not say anything else. Errors are *InvalidError.
func ParseTarget(raw []byte, handle string) (t TargetChanged, err error) {
	var draft TargetDraft
	if err := refuseNUL(raw); err != nil {
		return t, err
	}
	if err := decodeStrict(raw, &draft); err != nil {
		return t, asField(locate(err, raw, reflect.TypeFor[TargetDraft]()))
	}
	t.Target, t.Reason = draft.Target, draft.Reason
	if t.Handle == "" {
		t.Handle = handle
	}
	if t.Handle != handle {
		return t, Invalid("/handle", "is not the handle in the path")
	}
	t.Normalize()
	return t, t.Validate()
}

// asField speaks of a target's field, where decoding speaks of the event's: its struct embeds the target.
func asField(err error) error {
	var inv *InvalidError
	if !errors.As(err, &inv) {
		return err
	}
	if field, ok := strings.CutPrefix(inv.Pointer, "/Target/"); ok {
		return &InvalidError{Pointer: "/" + field, Message: inv.Message}
	}
	if strings.HasPrefix(inv.Message, "is not a field of this event") {
		return &InvalidError{Pointer: inv.Pointer, Message: "is not a field of a target; docs/events.md lists them under target.changed"}
	}
	return err
}
