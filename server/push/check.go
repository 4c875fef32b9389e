package push

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of a rule of a user's own.
const (
	maxID         = 255  // bytes
	maxPattern    = 1024 // bytes
	maxConditions = 64
	maxActions    = 32
)

// Check refuses a rule of a user's own that cannot be one of its kind, with an
// error that wraps ErrBadRule and says why.
func (r *Rule) Check(kind Kind) error {
	switch {
	case r.ID == "" || len(r.ID) > maxID:
		return fmt.Errorf("%w: the rule ID must have 1 to %d bytes", ErrBadRule, maxID)
	case r.ID[0] == '.' || strings.ContainsAny(r.ID, `/\`):
		return fmt.Errorf("%w: the rule ID may not begin with a dot nor hold slashes", ErrBadRule)
	case len(r.Conditions) > maxConditions:
		return fmt.Errorf("%w: more than %d conditions", ErrBadRule, maxConditions)
	case kind == Content && r.Pattern == nil:
		return fmt.Errorf("%w: a content rule needs a pattern", ErrBadRule)
	}
	if kind != Content {
		r.Pattern = nil
	}
	if kind != Override && kind != Underride {
		r.Conditions = nil
	} else if r.Conditions == nil {
		r.Conditions = []Condition{}
	}
	patterns := []*string{r.Pattern}
	for _, c := range r.Conditions {
		patterns = append(patterns, c.Pattern)
	}
	for _, p := range patterns {
		if p != nil && len(*p) > maxPattern {
			return fmt.Errorf("%w: a pattern of more than %d bytes", ErrBadRule, maxPattern)
		}
	}
	return CheckActions(r.Actions)
}

// CheckActions refuses what is no list of actions: each is text, or an object.
func CheckActions(actions []jsontext.Value) error {
	if actions == nil {
		return fmt.Errorf("%w: actions are missing", ErrBadRule)
	}
	if len(actions) > maxActions {
		return fmt.Errorf("%w: more than %d actions", ErrBadRule, maxActions)
	}
	for _, a := range actions {
		if k := a.Kind(); k != '"' && k != '{' {
			return fmt.Errorf("%w: an action is neither text nor an object", ErrBadRule)
		}
	}
	return nil
}
