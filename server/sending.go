package server

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/server/client"
	"hearth/server/remote"
	"hearth/state/matrix"
)

// senderShare is the part of the connections to other servers that sending to them
// may use: one in so many.
const senderShare = 2

// sentShare is the part of the memory that the bodies of transactions under way may
// have, each counted once: one in so many.
const sentShare = 16

// newSender returns what tells other servers of what happens here.
func (s *Server) newSender() *remote.Sender {
	return remote.NewSender(s.network, remote.SenderConfig{
		Workers:  max(maxRemoteConns(s.config.Memory, openFiles())/senderShare, 1),
		MaxBytes: int64(s.config.Memory / sentShare),
		Log:      s.log,
	})
}

// sendTyping tells the other servers of a room whether a local user types there.
//
// Spec: SS Typing Notifications.
func (s *Server) sendTyping(room matrix.RoomID, user matrix.UserID, types bool) {
	content, err := json.Marshal(struct {
		Room   matrix.RoomID `json:"room_id"`
		User   matrix.UserID `json:"user_id"`
		Typing bool          `json:"typing"`
	}{room, user, types})
	if err == nil {
		err = s.sender.SendToRoom(room, remote.EDU{Type: "m.typing", Content: content, Key: fmt.Sprint(room, " ", user)})
	}
	if err != nil {
		s.log.Warn("typing is not sent", "room", room, "user", user, "err", err)
	}
}

// presenceUpdate is one user's presence as other servers are told of it.
type presenceUpdate struct {
	User   matrix.UserID        `json:"user_id"`
	State  client.PresenceState `json:"presence"`
	Ago    int64                `json:"last_active_ago"` // milliseconds
	Active bool                 `json:"currently_active"`
	Status string               `json:"status_msg,omitzero"`
}

// sendPresence tells the other servers that share a room with a local user of the
// user's presence.
//
// Spec: SS Presence.
func (s *Server) sendPresence(p client.Presence) {
	edu, err := presenceEDU(p)
	if err == nil {
		err = s.sender.SendForUser(p.User, edu)
	}
	if err != nil {
		s.log.Warn("presence is not sent", "user", p.User, "err", err)
	}
}

// sendMeeting tells a server that has come to a room of a local user's presence, or
// all servers of the room where the user has.
func (s *Server) sendMeeting(p client.Presence, room matrix.RoomID, server matrix.ServerName) {
	edu, err := presenceEDU(p)
	switch {
	case err != nil:
	case server == "":
		err = s.sender.SendToRoom(room, edu)
	default:
		err = s.sender.SendToServers([]matrix.ServerName{server}, edu)
	}
	if err != nil {
		s.log.Warn("presence is not sent", "user", p.User, "room", room, "err", err)
	}
}

// presenceEDU returns what tells other servers of a presence.
func presenceEDU(p client.Presence) (remote.EDU, error) {
	one := presenceUpdate{User: p.User, State: p.State, Status: p.Status, Active: p.Active}
	if !p.LastActive.IsZero() {
		one.Ago = max(0, time.Since(p.LastActive).Milliseconds())
	}
	content, err := json.Marshal(struct {
		Push []presenceUpdate `json:"push"`
	}{[]presenceUpdate{one}})
	return remote.EDU{Type: "m.presence", Content: content, Key: string(p.User)}, err
}
