package client

import (
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// roomInfo is what the old endpoints tell of a room; its state follows.
type roomInfo struct {
	RoomID      matrix.RoomID      `json:"room_id"`
	Membership  matrix.Membership  `json:"membership,omitzero"`
	Invite      jsontext.Value     `json:"invite,omitzero"`
	Messages    *oldEvents         `json:"messages,omitzero"`
	Visibility  string             `json:"visibility,omitzero"`
	AccountData []accountDataEvent `json:"account_data,omitzero"`
}

// roomInitialSync answers GET /rooms/{roomID}/initialSync: a room with its state
// and newest messages, for who is or was in it, and for everybody where it is world
// readable.
//
// Spec: CS room_initial_sync.yaml; Room previews.
func (s *Server) roomInitialSync(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	if err := s.mayRead(r, who); err != nil {
		return err
	}
	limit, err := oldLimit(r.URL.Query().Get("limit"))
	if err != nil {
		return err
	}
	var num store.RoomNum
	if err := s.store.View(func(tx *store.Tx) error { num = tx.RoomNum(room); return nil }); err != nil {
		return err
	}
	return s.writeRoomInfo(w, who, num, limit, "")
}

// writeRoomInfo writes a room as an object behind some text that precedes it.
func (s *Server) writeRoomInfo(w http.ResponseWriter, who session, room store.RoomNum, limit int, begin string) error {
	var info roomInfo
	var list *stateList
	err := s.store.View(func(tx *store.Tx) (err error) {
		info, list, err = s.roomInfo(tx, who, room, limit)
		return err
	})
	if err != nil {
		return fmt.Errorf("room %d for %s: %w", room, who.user, err)
	}
	head, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if list == nil {
		return s.writeState(w, stateList{}, begin+string(head), "")
	}
	return s.writeState(w, *list, begin+string(head[:len(head)-1])+`,"state":[`, `]}`)
}

// roomInfo reads what is told of a room, and the list of its state, nil for an
// invite.
func (s *Server) roomInfo(tx *store.Tx, who session, room store.RoomNum, limit int) (info roomInfo, list *stateList, err error) {
	member, _, err := tx.LocalMembership(who.num, room)
	if err != nil {
		return info, nil, err
	}
	info = roomInfo{RoomID: tx.RoomID(room), Membership: member.Membership}
	format, err := s.formatter(tx, room, who)
	if err != nil {
		return info, nil, err
	}
	if member.Membership == matrix.Invite && member.Joined == 0 {
		if _, err := tx.Head(room); err != nil || member.Event == 0 {
			return info, nil, nil // an invite into a room that the server is not in
		}
		ev, err := tx.Event(room, member.Event)
		if err != nil {
			return info, nil, err
		}
		info.Invite, err = format.event(ev)
		return info, nil, err
	}
	if info.AccountData, err = accountDataOf(tx, who, room); err != nil {
		return info, nil, err
	}
	if info.Visibility = "private"; tx.Published(room) {
		info.Visibility = "public"
	}
	view, err := format.viewOf(room)
	if err != nil {
		return info, nil, err
	}
	if info.Messages, err = view.newest(limit); err != nil {
		return info, nil, err
	}
	list = &stateList{room: room, who: who, item: (*formatter).event}
	err = tx.WalkState(room, view.state, store.StateAll, func(_ store.Slot, num store.EventNum) (bool, error) {
		list.events = append(list.events, num)
		return true, nil
	})
	return info, list, err
}

// newest returns the newest events of a room that the user may see, oldest first.
func (v *roomView) newest(limit int) (*oldEvents, error) {
	p := pager{view: v, req: messagesRequest{who: v.format.who, back: true, limit: limit, filter: new(RoomEventFilter)}}
	if err := p.read(); err != nil {
		return nil, err
	}
	chunk, err := v.format.events(p.events)
	return &oldEvents{
		Start: p.at.String(), End: streamToken{pos: v.upto}.String(), Chunk: reversed(chunk),
	}, err
}
