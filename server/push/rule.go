package push

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// A Kind is one of the lists of rules.
type Kind string

// The kinds of rules, most important first.
const (
	Override  Kind = "override"
	Content   Kind = "content"
	Room      Kind = "room"
	Sender    Kind = "sender"
	Underride Kind = "underride"
)

// Kinds are all kinds of rules, most important first.
var Kinds = []Kind{Override, Content, Room, Sender, Underride}

// Valid says whether there is such a kind.
func (k Kind) Valid() bool { return slices.Contains(Kinds, k) }

// A Rule says what to do about the events that it matches.
type Rule struct {
	ID         string           `json:"rule_id"`
	Default    bool             `json:"default"` // predefined by the server
	Enabled    bool             `json:"enabled"`
	Pattern    *string          `json:"pattern,omitzero"`    // of content rules
	Conditions []Condition      `json:"conditions,omitzero"` // of override and underride rules
	Actions    []jsontext.Value `json:"actions"`
}

// A Condition is what an event must be for a rule to match. Fields that a
// condition of its kind does not use are kept as they came.
type Condition struct {
	Kind    string         `json:"kind"`
	Key     string         `json:"key,omitzero"`
	Pattern *string        `json:"pattern,omitzero"`
	Value   jsontext.Value `json:"value,omitzero"`
	Is      string         `json:"is,omitzero"`
	Rest    jsontext.Value `json:",embed"`
}

// A Ruleset is all rules of a user, each list in the order of importance.
type Ruleset struct {
	Override  []Rule `json:"override"`
	Content   []Rule `json:"content"`
	Room      []Rule `json:"room"`
	Sender    []Rule `json:"sender"`
	Underride []Rule `json:"underride"`
}

// list returns the rules of a kind, nil for what is no kind.
func (rs *Ruleset) list(kind Kind) *[]Rule {
	switch kind {
	case Override:
		return &rs.Override
	case Content:
		return &rs.Content
	case Room:
		return &rs.Room
	case Sender:
		return &rs.Sender
	case Underride:
		return &rs.Underride
	}
	return nil
}

// Rule returns the rule of a kind and ID, nil where there is none.
func (rs *Ruleset) Rule(kind Kind, id string) *Rule {
	list := rs.list(kind)
	if list == nil {
		return nil
	}
	if i := slices.IndexFunc(*list, func(r Rule) bool { return r.ID == id }); i >= 0 {
		return &(*list)[i]
	}
	return nil
}

// Saved is what is stored of a user's rules: his own, and what he changed in
// the predefined ones. The zero value has changed nothing.
type Saved struct {
	Own     Ruleset           `json:"own"`
	Changed map[string]Change `json:"changed,omitzero"` // by rule ID
}

// A Change is what a user changed in a predefined rule.
type Change struct {
	Enabled *bool            `json:"enabled,omitzero"`
	Actions []jsontext.Value `json:"actions,omitzero"` // nil: as predefined
}

// Bounds of what is saved for one user. Rules are held against every event, and
// what they cost grows with their size.
const (
	maxRules      = 500       // of his own
	maxSavedBytes = 128 << 10 // of all of it as JSON
)

// Encode returns what is stored, as JSON, or ErrTooMany.
func (s *Saved) Encode() (jsontext.Value, error) {
	b, err := json.Marshal(s, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode push rules: %w", err)
	}
	if len(b) > maxSavedBytes {
		return nil, ErrTooMany
	}
	return b, nil
}

// Rules returns the rules that hold for a user: his own before the predefined
// ones of their kind, and .m.rule.master before all.
func (s *Saved) Rules(user matrix.UserID) *Ruleset {
	predefined := defaults(user)
	rs := new(Ruleset)
	for _, kind := range Kinds {
		own, given, to := *s.Own.list(kind), *predefined.list(kind), rs.list(kind)
		*to = make([]Rule, 0, len(own)+len(given))
		if kind == Override { // the master rule comes first in the predefined list
			*to = append(*to, given[0])
			given = given[1:]
		}
		*to = append(append(*to, own...), given...)
		for i := range *to {
			s.apply(&(*to)[i])
		}
	}
	return rs
}

// apply changes a predefined rule as the user wants it.
func (s *Saved) apply(r *Rule) {
	change, ok := s.Changed[r.ID]
	if !ok || !r.Default {
		return
	}
	if change.Enabled != nil {
		r.Enabled = *change.Enabled
	}
	if change.Actions != nil {
		r.Actions = change.Actions
	}
}

// Put adds a rule of the user's own, or replaces it. It comes to stand right
// before another of his rules of that kind or, where before is "", right after
// one; with neither, a new rule is the first of its kind and an old one keeps its
// place. It returns ErrUnknownNeighbour where before or after is no such rule,
// and ErrTooMany.
func (s *Saved) Put(kind Kind, r Rule, before, after string) error {
	list := s.Own.list(kind)
	if list == nil {
		return ErrUnknownRule
	}
	named := func(id string) func(Rule) bool { return func(o Rule) bool { return o.ID == id } }
	at := slices.IndexFunc(*list, named(r.ID))
	r.Enabled = at < 0 || (*list)[at].Enabled
	if at < 0 && s.count() >= maxRules {
		return ErrTooMany
	}
	rest := slices.DeleteFunc(slices.Clone(*list), named(r.ID))
	to := max(at, 0)
	if neighbour := cmp.Or(before, after); neighbour != "" {
		if to = slices.IndexFunc(rest, named(neighbour)); to < 0 {
			return ErrUnknownNeighbour
		}
		if before == "" {
			to++
		}
	}
	*list = slices.Insert(rest, to, r)
	return nil
}

// count is how many rules of his own the user has.
func (s *Saved) count() (n int) {
	for _, kind := range Kinds {
		n += len(*s.Own.list(kind))
	}
	return n
}

// Delete removes a rule of the user's own, or returns ErrUnknownRule.
func (s *Saved) Delete(kind Kind, id string) error {
	list := s.Own.list(kind)
	if list == nil {
		return ErrUnknownRule
	}
	n := len(*list)
	*list = slices.DeleteFunc(*list, func(r Rule) bool { return r.ID == id })
	if len(*list) == n {
		return ErrUnknownRule
	}
	return nil
}

// SetEnabled switches a rule on or off, or returns ErrUnknownRule.
func (s *Saved) SetEnabled(kind Kind, id string, enabled bool) error {
	return s.change(kind, id, func(r *Rule, c *Change) {
		if r != nil {
			r.Enabled = enabled
		} else {
			c.Enabled = &enabled
		}
	})
}

// SetActions changes what a rule does, or returns ErrUnknownRule.
func (s *Saved) SetActions(kind Kind, id string, actions []jsontext.Value) error {
	return s.change(kind, id, func(r *Rule, c *Change) {
		if r != nil {
			r.Actions = actions
		} else {
			c.Actions = actions
		}
	})
}

// change calls fn with the user's own rule or, for a predefined one, with what
// is changed in it.
func (s *Saved) change(kind Kind, id string, fn func(*Rule, *Change)) error {
	if r := s.Own.Rule(kind, id); r != nil {
		fn(r, nil)
		return nil
	}
	if defaults("").Rule(kind, id) == nil {
		return ErrUnknownRule
	}
	change := s.Changed[id]
	fn(nil, &change)
	if s.Changed == nil {
		s.Changed = make(map[string]Change)
	}
	s.Changed[id] = change
	return nil
}

// Notifies says whether the rule's actions notify, and whether they highlight.
// Unknown actions do nothing.
//
// Spec: CS Push Notifications, Actions.
func (r *Rule) Notifies() (notify, highlight bool) {
	for _, action := range r.Actions {
		switch action.Kind() {
		case '"':
			notify = notify || string(action) == `"notify"`
		case '{':
			var tweak struct {
				Set   string         `json:"set_tweak"`
				Value jsontext.Value `json:"value"`
			}
			if json.Unmarshal(action, &tweak) == nil && tweak.Set == "highlight" {
				highlight = tweak.Value == nil || strings.TrimSpace(string(tweak.Value)) == "true"
			}
		}
	}
	return notify, notify && highlight
}
