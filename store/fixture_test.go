package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// A testRoom is a room of real events, signed and in the store with all that
// belongs to them, as the state package leaves it.
type testRoom struct {
	id      matrix.RoomID
	num     RoomNum
	version *matrix.Version
	key     matrix.SigningKey
	creator matrix.UserID
	time    int64
}

// newTestRoom makes a room with these members, the first being its creator.
func newTestRoom(tx *Tx, version string, members ...matrix.UserID) (*testRoom, error) {
	v, ok := matrix.VersionByID(version)
	if !ok {
		return nil, fmt.Errorf("no version %s", version)
	}
	r := &testRoom{version: v, creator: members[0], time: roomTime(tx)}
	if !v.RoomIDIsHash {
		r.id = matrix.RoomID(fmt.Sprintf("!room%d:%s", tx.Position(), testServer))
	}
	var err error
	if r.key, err = tx.SigningKey(); err != nil {
		return nil, err
	}
	create := `{"room_version":"` + version + `"}`
	if v.CreatorInContent {
		create = `{"creator":"` + string(r.creator) + `","room_version":"` + version + `"}`
	}
	if _, err := r.putState(tx, r.creator, "m.room.create", "", create); err != nil {
		return nil, err
	}
	for _, user := range members {
		if _, err := r.member(tx, user, matrix.Join); err != nil {
			return nil, err
		}
	}
	_, err = r.putState(tx, r.creator, "m.room.join_rules", "", `{"join_rule":"invite"}`)
	return r, err
}

// roomTime is when the events of a room begin: no two rooms at the same time,
// or their create events might be the same.
func roomTime(tx *Tx) int64 { return 1_790_000_000_000 + int64(tx.Position())*1234 }

// member changes a local user's membership.
func (r *testRoom) member(tx *Tx, user matrix.UserID, m matrix.Membership) (EventNum, error) {
	num, err := r.putState(tx, user, memberType, string(user), `{"displayname":"`+user.Localpart()+`","membership":"`+string(m)+`"}`)
	if err != nil {
		return 0, err
	}
	return num, tx.PutLocalMembership(tx.UserNum(user), LocalMembership{Room: r.num, Membership: m, Event: num})
}

// send puts a message into the room.
func (r *testRoom) send(tx *Tx, sender matrix.UserID, content string, txn TxnID) (EventNum, error) {
	return r.put(tx, matrix.Draft{Sender: sender, Type: "m.room.message", Content: jsontext.Value(content)}, txn)
}

// putState puts a state event into the room.
func (r *testRoom) putState(tx *Tx, sender matrix.UserID, typ, stateKey, content string) (EventNum, error) {
	return r.put(tx, matrix.Draft{Sender: sender, Type: typ, StateKey: &stateKey, Content: jsontext.Value(content)}, TxnID{})
}

// put builds an event at the end of the timeline and stores it, its snapshots
// and the new head.
func (r *testRoom) put(tx *Tx, draft matrix.Draft, txn TxnID) (EventNum, error) {
	head, err := tx.Head(r.num)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	ev, err := r.build(tx, head, draft)
	if err != nil {
		return 0, err
	}
	if r.num == 0 {
		r.id = ev.Room
		if r.num, err = tx.PutRoomNum(r.id); err != nil {
			return 0, err
		}
	}
	num, err := tx.NextEventNum(false)
	if err != nil {
		return 0, err
	}
	stored := NewEvent{Event: ev, Before: head.Current, After: head.Current, Txn: txn}
	if ev.IsState() {
		if err := r.enter(tx, &head, &stored, num); err != nil {
			return 0, err
		}
	}
	head.Version, head.Current, head.Extremities = r.version, stored.After, []EventNum{num}
	head.Depth, head.Latest = ev.Depth, num
	if head.First == 0 {
		head.First = num
	}
	return num, errors.Join(tx.PutHead(r.num, head), tx.PutEvent(r.num, num, stored))
}

// enter makes the snapshot that holds a state event and counts members.
func (r *testRoom) enter(tx *Tx, head *Head, ev *NewEvent, num EventNum) error {
	var err error
	if ev.Slot, err = tx.PutSlot(r.num, ev.Event.Type, *ev.Event.StateKey); err != nil {
		return err
	}
	ev.HasSlot = true
	if ev.Slot.Member() {
		old, err := tx.StateAt(r.num, head.Current, ev.Slot)
		if err != nil {
			return err
		}
		if old != 0 {
			was, err := tx.Event(r.num, old)
			if err != nil {
				return err
			}
			head.count(was.Event, -1)
		}
		head.count(ev.Event, 1)
	}
	ev.After, err = tx.Derive(r.num, head.Current, StateChange{Slot: ev.Slot, Event: num})
	return err
}

// count adds a member event to the head's numbers or takes it away.
func (h *Head) count(ev *matrix.Event, n int) {
	switch content, _ := ev.Member(); content.Membership {
	case matrix.Join:
		h.Joined += uint64(n)
	case matrix.Invite:
		h.Invited += uint64(n)
	}
}

// build signs a draft after the room's newest event.
func (r *testRoom) build(tx *Tx, head Head, draft matrix.Draft) (*matrix.Event, error) {
	r.time += 1234
	draft.Room, draft.OriginServerTS = r.id, r.time
	place := matrix.Placing{Depth: head.Depth + 1}
	for _, num := range head.Extremities {
		prev, err := tx.Event(r.num, num)
		if err != nil {
			return nil, err
		}
		place.Prev = append(place.Prev, prev.ID)
		if r.version.EventIDs == matrix.EventIDGiven {
			hash, err := prev.ReferenceHash()
			if err != nil {
				return nil, err
			}
			place.PrevHashes = append(place.PrevHashes, hash)
		}
	}
	if r.version.EventIDs != matrix.EventIDGiven {
		place.Auth = append(place.Auth, place.Prev...)
	}
	return draft.Build(r.version, place, testServer, r.key)
}

// putTestRoom makes a room in a write of its own.
func putTestRoom(tb testing.TB, s *Store, version string, members ...matrix.UserID) (r *testRoom) {
	tb.Helper()
	update(tb, s, func(tx *Tx) (err error) {
		r, err = newTestRoom(tx, version, members...)
		return err
	})
	return r
}
