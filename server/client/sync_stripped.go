package client

import (
	"fmt"

	"hearth/state"
	"hearth/store"
)

// answerDeparture writes the entry of a room that this server is not in, to which the
// user is not invited any more: there is but the event that says so.
func (s *Server) answerDeparture(req syncRequest, room syncRoom, out *syncWriter) error {
	own, err := room.member.Own()
	if err != nil {
		return fmt.Errorf("sync room %s: %w", room.id, err)
	}
	event := append(new(formatter).appendBody(nil, own), '}')
	if event, err = req.filter.Trim(event); err != nil {
		return fmt.Errorf("sync room %s: %w", room.id, err)
	}
	entry := append([]byte(`{"timeline":{"events":[`), event...)
	return out.room(room.section, room.id, append(append(append(entry, `]},"`...), req.stateName()...), `":{"events":[]}}`...))
}

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
