package federation

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// What joins, knocks and leaves of the users of other servers have in common: a
// template is made, and what the other server made of it comes back and is sent to
// the room's other servers.

// maxMemberBytes bounds the body that brings one event.
const maxMemberBytes = 4 * matrix.MaxEventBytes

// template is the answer of make_join, make_knock and make_leave.
type template struct {
	Version string                    `json:"room_version"`
	Event   map[string]jsontext.Value `json:"event"`
}

// makeMember answers a request for a template. takes says which room versions the
// other server supports.
func (s *Server) makeMember(w http.ResponseWriter, r *http.Request, from matrix.ServerName, to matrix.Membership, takes func(string) bool) error {
	room, err := matrix.ParseRoomID(r.PathValue("roomID"))
	if err != nil {
		return api.InvalidParam("roomId", err)
	}
	user, err := matrix.ParseUserID(r.PathValue("userID"))
	if err != nil {
		return api.InvalidParam("userId", err)
	}
	if user.Server() != from {
		return api.ErrForbidden.Because("%s is no user of %s", user, from)
	}
	if _, err := s.enter(room, from); err != nil {
		return err
	}
	made, err := s.rooms.Template(room, user, to, takes)
	if refused, is := errors.AsType[*state.IncompatibleError](err); is {
		return incompatible(refused.Version.ID)
	}
	if err != nil {
		return err
	}
	answer := template{Version: made.Version.ID}
	if err := json.Unmarshal(made.Event.JSON(), &answer.Event); err != nil {
		return err
	}
	for _, key := range []string{"event_id", "hashes", "signatures"} {
		delete(answer.Event, key)
	}
	if answer.Event["origin"], err = json.Marshal(s.network.Server()); err != nil {
		return err
	}
	return api.WriteJSON(w, answer)
}

// incompatible is the error for a room version that one side does not support.
func incompatible(version string) error {
	return api.ErrIncompatibleRoomVersion.
		Because("The room is of version %q, which is not supported on both sides", version).
		With("room_version", version)
}

// enter finds a room that another server asks to come into, or out of. A room that
// this server is not in is 404, and one whose ACL bars the other server 403.
func (s *Server) enter(room matrix.RoomID, from matrix.ServerName) (v *matrix.Version, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		num, head, err := state.Head(tx, room)
		if err != nil {
			return err
		}
		resident, err := state.Resident(tx, num)
		if err != nil {
			return err
		}
		if !resident {
			return api.ErrNotFound.Because("This server is not in the room %s", room)
		}
		v = head.Version
		return barred(tx, num, from)
	})
	return v, err
}

// barred returns 403 for a server that a room's ACL does not let in.
func barred(tx *store.Tx, room store.RoomNum, from matrix.ServerName) error {
	allowed, err := state.ServerAllowed(tx, room, from)
	if err == nil && !allowed {
		err = api.ErrForbidden.Because("The room does not let the server %s take part", from)
	}
	return err
}

// admit takes the event of a send_join, send_knock or send_leave. "A specific error
// code is not mandated, but servers SHOULD return M_INVALID_PARAM if: the join event
// fails a signature check. The event type is not m.room.member. The membership field
// inside the event content is not join. The event sender is not a user ID on the
// origin server. The state_key is not equal to the sender."
func (s *Server) admit(r *http.Request, from matrix.ServerName, to matrix.Membership) (*store.StoredEvent, error) {
	room, err := matrix.ParseRoomID(r.PathValue("roomID"))
	if err != nil {
		return nil, api.InvalidParam("roomId", err)
	}
	pdu, err := api.ReadObject(r, maxMemberBytes)
	if err != nil {
		return nil, err
	}
	v, err := s.enter(room, from)
	if err != nil {
		return nil, err
	}
	ev, err := matrix.Parse(v, pdu)
	if err != nil {
		return nil, api.ErrBadJSON.Because("The event is malformed: %v", err)
	}
	if err := checkMember(ev, room, r.PathValue("eventID"), from, to); err != nil {
		return nil, err
	}
	if ev, err = s.rooms.Vouch(ev); err != nil {
		return nil, err
	}
	if ev, err = s.verified(r.Context(), ev); err != nil {
		return nil, err
	}
	stored, err := s.rooms.Admit(r.Context(), ev, nowhere)
	if lacks(err) {
		stored, err = s.admitFetching(r.Context(), from, ev)
	}
	if lacks(err) {
		return nil, api.ErrInvalidParam.Because("The event needs others that this server has not got, and cannot get from %s", from)
	}
	return stored, err
}

// lacks says whether an event was not taken for what it needs and is not here.
func lacks(err error) bool {
	missing, _ := errors.AsType[*state.MissingError](err)
	return missing != nil || errors.Is(err, state.ErrFetch)
}

// maxAdmitFetch is how long the events are fetched that one needs: the other server
// waits for the answer, and may be slow itself.
const maxAdmitFetch = 30 * time.Second

// admitFetching is admit for an event that needs others. They are fetched within the
// memory for big jobs, and for few events at a time.
func (s *Server) admitFetching(ctx context.Context, from matrix.ServerName, ev *matrix.Event) (*store.StoredEvent, error) {
	end, err := s.turns.fetch()
	if err != nil {
		return nil, err
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, maxAdmitFetch)
	defer cancel()
	release, err := s.config.Take(ctx, inboxMemory)
	if err != nil {
		return nil, err
	}
	defer release()
	stored, err := s.rooms.Admit(ctx, ev, s.network.Source(ev.Version, from))
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("%w: %w", state.ErrFetch, err)
	}
	return stored, err
}

// errNowhere is why nowhere has nothing.
var errNowhere = errors.New("nobody is asked yet")

// nowhere is a source that has nothing.
var nowhere = state.Source{
	Missing: func(context.Context, state.MissingEvents, func(*matrix.Event) error) error { return errNowhere },
	Events: func(context.Context, matrix.RoomID, []matrix.EventID, func(*matrix.Event) error) error {
		return errNowhere
	},
	StateIDs: func(context.Context, matrix.RoomID, matrix.EventID, func(matrix.EventID) error) error {
		return errNowhere
	},
}

// checkMember holds an event to what it must be for the endpoint that it came by.
func checkMember(ev *matrix.Event, room matrix.RoomID, id string, from matrix.ServerName, to matrix.Membership) error {
	invalid := func(format string, args ...any) error { return api.ErrInvalidParam.Because(format, args...) }
	switch {
	case ev.Type != "m.room.member" || ev.StateKey == nil:
		return invalid("The event is no membership")
	case *ev.StateKey != string(ev.Sender):
		return invalid("The state_key is not the sender")
	case ev.Sender.Server() != from:
		return invalid("%s is no user of %s", ev.Sender, from)
	case ev.Room != room:
		return invalid("The event is of the room %s", ev.Room)
	case string(ev.ID) != id:
		return invalid("The event's ID is %s", ev.ID)
	}
	if member, err := ev.Member(); err != nil || member.Membership != to {
		return invalid("The membership is not %s", to)
	}
	return nil
}

// verified holds an event to the first checks on receipt: signatures and hashes.
func (s *Server) verified(ctx context.Context, ev *matrix.Event) (*matrix.Event, error) {
	events, errs := s.check(ctx, ev.Version, []jsontext.Value{ev.JSON()})
	if errs[0] != nil {
		return nil, api.ErrInvalidParam.Because("The event fails the checks on receipt: %v", errs[0])
	}
	return events[0], nil
}

// asked is the error for a request that failed since a third server was asked and
// did not answer well.
func asked(err error) error {
	if answer, is := errors.AsType[*remote.Error](err); is {
		return api.ErrUnknown.WithStatus(http.StatusBadGateway).Because("%s refuses: %s", answer.Server, answer.Code)
	}
	if errors.Is(err, remote.ErrUnreachable) {
		return api.ErrUnknown.WithStatus(http.StatusBadGateway).Because("Another server cannot be reached")
	}
	return err
}
