package client

import (
	"fmt"

	"hearth/state"
	"hearth/store"
)

// answerStripped writes the entry of an invite or a knock: as much of the
// room's state as one may see who is not in it.
//
// Spec: CS Stripped state.
func (s *Server) answerStripped(req syncRequest, room syncRoom, name string, out *syncWriter) error {
	entry := []byte(`{"` + name + `":{"events":[`)
	err := s.store.View(func(tx *store.Tx) error {
		events, err := state.StrippedState(tx, room.member)
		entry = append(appendValues(entry, events, true), "]}}"...)
		return err
	})
	if err != nil {
		return fmt.Errorf("sync room %s: %w", room.id, err)
	}
	return out.room(room.section, room.id, entry)
}
