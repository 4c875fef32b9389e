package client

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// answerStripped writes the entry of an invite or a knock: as much of the
// room's state as one may see who is not in it.
//
// Spec: CS Stripped state.
func (s *Server) answerStripped(req syncRequest, room syncRoom, name string, out *syncWriter) error {
	entry := []byte(`{"` + name + `":{"events":[`)
	err := s.store.View(func(tx *store.Tx) error {
		events, err := strippedState(tx, room.member)
		entry = append(append(entry, joinValues(events, true)...), "]}}"...)
		return err
	})
	if err != nil {
		return fmt.Errorf("sync room %s: %w", room.id, err)
	}
	return out.room(room.section, room.id, entry)
}

// strippedTypes are the state events that tell an invited user what the room is.
var strippedTypes = []string{
	"m.room.create", "m.room.name", "m.room.avatar", "m.room.topic",
	"m.room.join_rules", "m.room.canonical_alias", "m.room.encryption",
}

// strippedState returns the stripped state for an invite or a knock: that which
// came with it, or the room's own at that event, with the inviter's and the
// user's own membership.
func strippedState(tx *store.Tx, m store.LocalMembership) ([]jsontext.Value, error) {
	if m.Stripped != nil {
		var events []jsontext.Value
		err := json.Unmarshal(m.Stripped, &events)
		return events, err
	}
	own, err := tx.Event(m.Room, m.Event)
	if err != nil {
		return nil, err
	}
	var events []jsontext.Value
	add := func(typ, key string) error {
		ev, err := state.EventAt(tx, m.Room, own.Before, typ, key)
		if ev != nil && err == nil {
			events = append(events, stripped(ev.Event))
		}
		return err
	}
	for _, typ := range strippedTypes {
		if err := add(typ, ""); err != nil {
			return nil, err
		}
	}
	if own.Sender != matrix.UserID(*own.StateKey) {
		if err := add("m.room.member", string(own.Sender)); err != nil {
			return nil, err
		}
	}
	return append(events, stripped(own.Event)), nil
}
