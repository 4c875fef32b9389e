package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// remoteTyping is how long a user of another server counts as typing whose server
// does not say that he stopped. Those that others write say it again every 40 s or so.
const remoteTyping = time.Minute

// ReceiveTyping takes from another server that a user of it types, or no longer:
// m.typing. The user must be in the room, and the room's server ACL must let the
// server speak there.
//
// Spec: SS Typing Notifications; Server Access Control Lists.
func (s *Server) ReceiveTyping(_ context.Context, origin matrix.ServerName, content jsontext.Value) error {
	var said struct {
		Room   matrix.RoomID `json:"room_id"`
		User   matrix.UserID `json:"user_id"`
		Typing bool          `json:"typing"`
	}
	if err := json.Unmarshal(content, &said); err != nil {
		return fmt.Errorf("m.typing: %w: %w", remote.ErrBadEDU, err)
	}
	var room store.RoomNum
	err := s.store.View(func(tx *store.Tx) (err error) {
		if room, err = speaksIn(tx, origin, said.Room); err != nil {
			return err
		}
		return s.speaksFor(tx, origin, room, said.User)
	})
	if err != nil {
		return fmt.Errorf("m.typing: %w", err)
	}
	now, until := s.now(), s.now()
	if said.Typing {
		until = now.Add(remoteTyping)
	}
	if s.typing.set(room, said.User, until, now) {
		s.wakeMembers(room)
	}
	return nil
}

// speaksIn returns a room that this server knows and in which another server may
// speak. The error wraps remote.ErrBadEDU where there is none.
func speaksIn(tx *store.Tx, origin matrix.ServerName, id matrix.RoomID) (store.RoomNum, error) {
	room, _, err := state.Head(tx, id)
	if errors.Is(err, state.ErrUnknownRoom) {
		return 0, fmt.Errorf("%w: %w", remote.ErrBadEDU, err)
	}
	if err != nil {
		return 0, err
	}
	allowed, err := state.ServerAllowed(tx, room, origin)
	if err == nil && !allowed {
		err = fmt.Errorf("%s in %s, which its ACL forbids: %w", origin, id, remote.ErrBadEDU)
	}
	return room, err
}

// speaksFor says whether a user is one of a server's and in a room; nil: he is.
func (s *Server) speaksFor(tx *store.Tx, origin matrix.ServerName, room store.RoomNum, user matrix.UserID) error {
	if user.Server() != origin || origin == s.store.Server() {
		return fmt.Errorf("%s of %s: %w", user, origin, remote.ErrBadEDU)
	}
	in, err := s.isJoined(tx, room, user)
	if err == nil && !in {
		err = fmt.Errorf("%s, who is not in the room: %w", user, remote.ErrBadEDU)
	}
	return err
}
