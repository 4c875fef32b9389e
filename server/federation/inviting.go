package federation

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of one invite.
const (
	maxInviteBytes = 1 << 20
	// maxInviteCheck is how long the checks of an invite may take: the keys of each
	// server that has an event in the stripped state may have to be asked for.
	maxInviteCheck = 20 * time.Second
)

// sendInviteV2 answers PUT /_matrix/federation/v2/invite/{roomID}/{eventID}: the
// invite with this server's signature.
//
// Spec: SS Inviting to a room.
func (s *Server) sendInviteV2(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	var req struct {
		Version string           `json:"room_version"`
		Event   jsontext.Value   `json:"event"`
		Known   []jsontext.Value `json:"invite_room_state"`
	}
	if err := readLenient(r, maxInviteBytes, &req); err != nil {
		return err
	}
	if req.Version == "" {
		return api.MissingParam("room_version")
	}
	v, ok := matrix.VersionByID(req.Version)
	if !ok {
		return incompatible(req.Version)
	}
	signed, err := s.invited(r, from, v, req.Event, req.Known)
	if err != nil {
		return err
	}
	return writeLenient(w, inviteAnswer{signed})
}

// inviteAnswer is the signed invite.
type inviteAnswer struct {
	Event rawEvent `json:"event"`
}

// sendInviteV1 answers PUT /_matrix/federation/v1/invite/{roomID}/{eventID}: "Servers
// which receive a v1 invite request must assume that the room version is either 1 or
// 2", whose events are the same.
func (s *Server) sendInviteV1(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	pdu, err := api.ReadObject(r, maxInviteBytes)
	if err != nil {
		return err
	}
	var unsigned struct {
		Unsigned struct {
			Known []jsontext.Value `json:"invite_room_state"`
		} `json:"unsigned"`
	}
	if err := json.Unmarshal(pdu, &unsigned, lenient...); err != nil {
		return api.ErrBadJSON.Because("unsigned cannot be read: %v", err)
	}
	v, _ := matrix.VersionByID("1")
	signed, err := s.invited(r, from, v, pdu, unsigned.Unsigned.Known)
	if err != nil {
		return err
	}
	return writeLenient(w, []any{http.StatusOK, inviteAnswer{signed}})
}

// readLenient reads a body that holds PDUs, each of which is checked by itself.
func readLenient(r *http.Request, limit int64, v any) error {
	body, err := api.ReadObject(r, limit)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v, lenient...); err != nil {
		return api.ErrBadJSON.Because("The body cannot be read: %v", err)
	}
	return nil
}

// invited checks an invite, notes it for the invited user and returns it signed.
func (s *Server) invited(r *http.Request, from matrix.ServerName, v *matrix.Version, pdu jsontext.Value, known []jsontext.Value) (rawEvent, error) {
	if err := s.limits.Take(api.LimitInvite, string(from)); err != nil {
		return nil, err
	}
	invite, err := matrix.Parse(v, pdu)
	if err != nil {
		return nil, api.ErrBadJSON.Because("The event is malformed: %v", err)
	}
	if err := state.CheckInvite(invite, from, s.network.Server()); err != nil {
		return nil, err
	}
	switch {
	case string(invite.Room) != r.PathValue("roomID"):
		return nil, api.ErrInvalidParam.Because("The event is of the room %s", invite.Room)
	case string(invite.ID) != r.PathValue("eventID"):
		return nil, api.ErrInvalidParam.Because("The event's ID is %s", invite.ID)
	}
	if err := s.checkInvited(invite, from); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxInviteCheck)
	defer cancel()
	if invite, err = s.verified(ctx, invite); err != nil {
		return nil, err
	}
	stripped, err := state.InviteState(invite, known, func(ev *matrix.Event) error {
		_, err := s.verified(ctx, ev)
		return err
	})
	if err != nil {
		return nil, err
	}
	signed, err := invite.Signed(s.network.Server(), s.rooms.Key())
	if err != nil {
		return nil, err
	}
	if err := s.rooms.ReceiveInvite(r.Context(), signed, stripped); err != nil {
		return nil, err
	}
	return signed.JSON(), nil
}

// checkInvited refuses what needs no look at signatures to be refused.
func (s *Server) checkInvited(invite *matrix.Event, from matrix.ServerName) error {
	return s.store.View(func(tx *store.Tx) error {
		if err := state.CheckInvitable(tx, matrix.UserID(*invite.StateKey)); err != nil {
			return err
		}
		room := tx.RoomNum(invite.Room)
		resident, err := state.Resident(tx, room)
		if !resident || err != nil {
			return err
		}
		return barred(tx, room, from)
	})
}

// revokeInvites takes from the PDUs of a room that this server is not in those that
// say that a local user is not invited there any more. They come as all events about
// a user of ours do; what else is among them is nothing to us.
func (s *Server) revokeInvites(ctx context.Context, room matrix.RoomID, pdus []jsontext.Value) error {
	var v *matrix.Version
	err := s.store.View(func(tx *store.Tx) (err error) {
		v, _, err = state.InvitedVersion(tx, room)
		return err
	})
	if v == nil || err != nil {
		return err
	}
	for _, pdu := range pdus {
		ev, err := matrix.Parse(v, pdu)
		if err != nil || ev.Room != room || ev.Type != "m.room.member" || ev.StateKey == nil {
			continue
		}
		if user, err := matrix.ParseUserID(*ev.StateKey); err != nil || user.Server() != s.network.Server() {
			continue
		}
		if ev, err = s.verified(ctx, ev); err != nil {
			continue
		}
		if _, err := s.rooms.RevokeInvite(ctx, ev); err != nil {
			return err
		}
	}
	return nil
}
