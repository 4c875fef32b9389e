package matrix

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A Relation is what m.relates_to of an event's content says: that the event
// belongs to another one. Spec: CS Forming relationships between events.
type Relation struct {
	Type  string  // rel_type: m.annotation, m.replace, m.thread, m.reference or another
	Event EventID // the parent
	Key   string  // of an annotation
}

// Relation returns the relation that the event's content states.
func (e *Event) Relation() (Relation, bool) { return RelationOf(e.Content) }

// RelationOf returns the relation that an event content states. One without a
// rel_type or a valid event_id is none; so is one whose parts have wrong types.
func RelationOf(content jsontext.Value) (Relation, bool) {
	var outer struct {
		RelatesTo jsontext.Value `json:"m.relates_to"`
	}
	lenient := jsontext.AllowDuplicateNames(true)
	if json.Unmarshal(content, &outer, lenient) != nil || outer.RelatesTo.Kind() != '{' {
		return Relation{}, false
	}
	var inner struct {
		Type  string         `json:"rel_type"`
		Event string         `json:"event_id"`
		Key   jsontext.Value `json:"key"`
	}
	if json.Unmarshal(outer.RelatesTo, &inner, lenient) != nil || inner.Type == "" {
		return Relation{}, false
	}
	id, err := ParseEventID(inner.Event)
	if err != nil {
		return Relation{}, false
	}
	rel := Relation{Type: inner.Type, Event: id}
	if inner.Key.Kind() == '"' {
		if text, err := jsontext.AppendUnquote(nil, inner.Key); err == nil {
			rel.Key = string(text)
		}
	}
	return rel, true
}
