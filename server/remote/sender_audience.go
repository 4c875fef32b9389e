package remote

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// An audience is which servers an entry of the stream is for.
type audience struct {
	pos     store.Position
	rooms   []store.RoomNum // for the servers in them, if they were there by then
	also    store.ServerNum // and for this one
	except  store.ServerNum // but not for this one, which made it
	departs bool            // it takes a user of also out of a room
}

// nobody says whether it is for no server.
func (a audience) nobody() bool { return len(a.rooms) == 0 && a.also == 0 }

// each calls fn for each server, once.
func (a audience) each(tx *store.Tx, fn func(store.ServerNum)) error {
	seen := map[store.ServerNum]bool{a.except: true}
	tell := func(server store.ServerNum) {
		if !seen[server] {
			seen[server] = true
			fn(server)
		}
	}
	for _, room := range a.rooms {
		err := tx.RoomServersAt(room, a.pos, func(server store.ServerNum) (bool, error) {
			tell(server)
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	if a.also != 0 {
		tell(a.also)
	}
	return nil
}

// has says whether a server is among them.
func (a audience) has(tx *store.Tx, server store.ServerNum) (bool, error) {
	if server == a.except {
		return false, nil
	}
	if server == a.also {
		return true, nil
	}
	for _, room := range a.rooms {
		if in, err := tx.ServerInRoomAt(room, server, a.pos); in || err != nil {
			return in, err
		}
	}
	return false, nil
}

// audience returns whom an entry of the stream is for.
func (s *Sender) audience(tx *store.Tx, c store.Change) (audience, error) {
	a := audience{pos: c.Position}
	if c.Server != 0 {
		a.also = c.Server
		return a, nil
	}
	local := c.User != 0 && tx.UserID(c.User).Server() == s.server
	switch {
	case c.Event != 0 && (local || c.Relay):
		return s.eventAudience(tx, c, a)
	case c.IsReceipt() && local:
		if _, ok, err := publicReceipt(tx, c); !ok || err != nil {
			return a, err
		}
		a.rooms = []store.RoomNum{c.Room}
	case c.IsDevices() && local:
		rooms, err := joinedRooms(tx, c.User)
		a.rooms = rooms
		return a, err
	}
	return a, nil
}

// eventAudience returns whom an event is for: the servers in its room, and the one
// of a user whose membership it changes. An invite reaches that one another way.
//
// Spec: SS PDUs; SS Inviting to a room; SS Joining Rooms.
func (s *Sender) eventAudience(tx *store.Tx, c store.Change, a audience) (audience, error) {
	ev, err := tx.Event(c.Room, c.Event)
	if errors.Is(err, store.ErrNotFound) {
		return a, nil // the room is being purged
	}
	if err != nil || ev.Rejected || ev.SoftFailed {
		return a, err
	}
	if origin := ev.Sender.Server(); origin != s.server {
		a.except = tx.ServerNum(origin)
	}
	if ev.Type != "m.room.member" || ev.StateKey == nil {
		a.rooms = []store.RoomNum{c.Room}
		return a, nil
	}
	target, targetErr := matrix.ParseUserID(*ev.StateKey)
	member, memberErr := ev.Member()
	if targetErr != nil || memberErr != nil {
		return a, nil
	}
	if target.Server() != s.server && member.Membership != matrix.Invite {
		a.also = tx.ServerNum(target.Server())
		a.departs = member.Membership != matrix.Join
	}
	a.rooms = []store.RoomNum{c.Room}
	return a, nil
}

// newcomer looks at an event by which a local user comes to a room. intro, an EDU,
// tells the servers there of the user's devices. told says that they get the event
// itself from the server that let us in: none of our users was there before.
//
// Spec: SS Joining Rooms; SS Device Management.
func newcomer(tx *store.Tx, ev *store.StoredEvent) (intro jsontext.Value, told bool, err error) {
	if ev.Type != "m.room.member" || ev.StateKey == nil || *ev.StateKey != string(ev.Sender) || ev.Relay {
		return nil, false, nil
	}
	was, others, err := joinedBefore(tx, ev)
	if was || err != nil {
		return nil, false, err
	}
	if _, joins := ev.JoinedServer(); joins {
		intro, err = IntroduceDevices(tx, ev.SenderNum)
	}
	return intro, !others, err
}

// joinedBefore says whether the sender of an event was in its room before it, and
// whether other local users were.
func joinedBefore(tx *store.Tx, ev *store.StoredEvent) (sender, others bool, err error) {
	if ev.Before == 0 {
		return false, false, nil
	}
	err = tx.LocalMembers(ev.RoomNum, func(user store.UserNum, _ matrix.Membership) (bool, error) {
		slot, ok := tx.Slot(ev.RoomNum, "m.room.member", string(tx.UserID(user)))
		if !ok {
			return true, nil
		}
		num, err := tx.StateAt(ev.RoomNum, ev.Before, slot)
		if num == 0 || err != nil {
			return true, err
		}
		was, err := tx.Event(ev.RoomNum, num)
		if err != nil {
			return false, err
		}
		if _, joined := was.JoinedServer(); joined && user == ev.SenderNum {
			sender = true
		} else if joined {
			others = true
		}
		return !sender, nil
	})
	return sender, others, err
}

// joinedRooms returns the rooms that a local user is in.
func joinedRooms(tx *store.Tx, user store.UserNum) (rooms []store.RoomNum, err error) {
	if user == 0 {
		return nil, nil
	}
	err = tx.LocalMemberships(user, func(m store.LocalMembership) (bool, error) {
		if m.Membership == matrix.Join {
			rooms = append(rooms, m.Room)
		}
		return true, nil
	})
	return rooms, err
}

// publicReceipt returns the receipt that an entry of the stream is about; ok is
// false where a newer one has replaced it, and for a private one, which "MUST NOT be
// sent to other servers".
//
// Spec: CS Receipts; SS Receipts.
func publicReceipt(tx *store.Tx, c store.Change) (receipt store.Receipt, ok bool, err error) {
	err = tx.ReceiptsSince(c.Room, c.Position-1, func(r store.Receipt) (bool, error) {
		if r.Position == c.Position && r.Type == store.ReceiptRead {
			receipt, ok = r, true
		}
		return false, nil
	})
	return receipt, ok, err
}
