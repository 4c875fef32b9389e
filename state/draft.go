package state

import (
	"cmp"
	"fmt"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// maxPrevEvents is how many forward extremities an event may name. Spec: SS PDUs.
const maxPrevEvents = 20

// add turns a draft into the room's next event: it stands on all forward
// extremities, is held to the auth rules by the current state, and becomes
// the only extremity. txn names the request that it came by, if one did.
func (rm *room) add(draft matrix.Draft, txn store.TxnID) (*store.StoredEvent, error) {
	ev, err := rm.build(draft)
	if err != nil {
		return nil, err
	}
	if signed := rm.signed[ev.ID]; signed != nil {
		ev = signed
	} else if rm.asks {
		if err := rm.propose(ev, txn); err != nil {
			return nil, err
		}
	}
	rm.how.relay = ev.ID
	return rm.append(ev, rm.head.Current, txn)
}

// build drafts an event at the room's end and holds it to the auth rules.
func (rm *room) build(draft matrix.Draft) (*matrix.Event, error) {
	if draft.OriginServerTS == 0 {
		draft.OriginServerTS = cmp.Or(rm.at, rm.rooms.now().UnixMilli())
	}
	draft.Room = rm.id
	placing, err := rm.place(draft)
	if err != nil {
		return nil, err
	}
	ev, err := draft.Build(rm.head.Version, placing, rm.rooms.server, rm.rooms.Key())
	if err != nil {
		return nil, fmt.Errorf("draft %s: %w", draft.Type, err)
	}
	if err := auth.Check(ev, rm.auth); err != nil {
		return nil, fmt.Errorf("draft %s in %s: %w", draft.Type, rm.id, err)
	}
	return ev, nil
}

// place finds what a draft stands on: the newest events, and the state events
// that give its sender the right to it.
func (rm *room) place(draft matrix.Draft) (matrix.Placing, error) {
	var p matrix.Placing
	withHashes := rm.head.Version.EventIDs == matrix.EventIDGiven
	newest := rm.head.Extremities
	if len(newest) > maxPrevEvents {
		newest = newest[len(newest)-maxPrevEvents:]
	}
	for _, num := range newest {
		id, err := rm.tx.EventID(rm.num, num)
		if err != nil {
			return p, fmt.Errorf("extremity of %s: %w", rm.id, err)
		}
		p.Prev = append(p.Prev, id)
		if withHashes {
			if p.PrevHashes, err = rm.appendHash(p.PrevHashes, num); err != nil {
				return p, err
			}
		}
	}
	p.Depth = min(rm.head.Depth, rm.head.Version.MaxDepth-1) + 1
	for _, key := range auth.Needed(rm.head.Version, draft.Type, draft.Sender, draft.StateKey, draft.Content) {
		ev, err := rm.current(key.Type, key.StateKey)
		if err != nil {
			return p, err
		}
		if ev == nil {
			continue
		}
		p.Auth = append(p.Auth, ev.ID)
		if withHashes {
			if p.AuthHashes, err = rm.appendHash(p.AuthHashes, ev.Num); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// appendHash appends the reference hash of an event; room versions 1 and 2
// name events by ID and hash.
func (rm *room) appendHash(hashes []matrix.Hash, num store.EventNum) ([]matrix.Hash, error) {
	ev, err := rm.tx.Event(rm.num, num)
	if err != nil {
		return nil, err
	}
	h, err := ev.ReferenceHash()
	if err != nil {
		return nil, fmt.Errorf("hash of %s: %w", ev.ID, err)
	}
	return append(hashes, h), nil
}

// append adds an event that has passed the rules and stands on all forward
// extremities: the state moves by this one event, and it is the only extremity.
func (rm *room) append(ev *matrix.Event, before store.SnapshotID, txn store.TxnID) (*store.StoredEvent, error) {
	num, err := rm.tx.NextEventNum(false)
	if err != nil {
		return nil, err
	}
	current := rm.head.Current
	if ev.IsState() {
		slot, err := rm.tx.PutSlot(rm.num, ev.Type, *ev.StateKey)
		if err != nil {
			return nil, err
		}
		change := store.StateChange{Slot: slot, Event: rm.stateNum(ev, num)}
		if current, err = rm.tx.Derive(rm.num, current, change); err != nil {
			return nil, fmt.Errorf("state after %s: %w", ev.ID, err)
		}
	}
	if err := rm.insert(ev, num, before, current, txn); err != nil {
		return nil, err
	}
	rm.head.Extremities = append(rm.head.Extremities[:0], num)
	rm.head.Depth = ev.Depth
	return rm.tx.Event(rm.num, num)
}

// stateNum returns the number by which states shall know an event that comes to
// the timeline under a number: the one that they know it by already, if it was an
// outlier.
func (rm *room) stateNum(ev *matrix.Event, num store.EventNum) store.EventNum {
	if _, known, ok := rm.tx.StateEventByID(ev.ID); ok {
		return known
	}
	return num
}

// fork adds an event that leaves other extremities beside it. changes make of a
// base, which is the state before it with or without it, the room's current state;
// in them it is ownNum, for it gets its number here: who has read the stream up to
// a place must not find it before that.
func (rm *room) fork(ev *matrix.Event, before, base store.SnapshotID, changes []store.StateChange, others []store.EventNum) error {
	num, err := rm.tx.NextEventNum(false)
	if err != nil {
		return err
	}
	moves := slices.Clone(changes)
	for i := range moves {
		if moves[i].Event == ownNum {
			moves[i].Event = rm.stateNum(ev, num)
		}
	}
	if ev.IsState() && len(others) == 0 {
		slot, err := rm.tx.PutSlot(rm.num, ev.Type, *ev.StateKey)
		if err != nil {
			return err
		}
		moves = append(moves, store.StateChange{Slot: slot, Event: rm.stateNum(ev, num)})
	}
	current, err := rm.tx.Derive(rm.num, base, moves...)
	if err != nil {
		return fmt.Errorf("state after %s: %w", ev.ID, err)
	}
	if err := rm.insert(ev, num, before, current, rm.how.txn); err != nil {
		return err
	}
	rm.head.Depth = ev.Depth
	for _, other := range others {
		beside, err := rm.tx.Event(rm.num, other)
		if err != nil {
			return err
		}
		rm.head.Depth = max(rm.head.Depth, beside.Depth)
	}
	rm.head.Extremities = append(slices.Clone(others), num)
	return nil
}

// insert stores an event as the newest of the timeline, moves the room's current
// state to current, and sees to what follows from it: memberships, redactions,
// relations. The extremities are the caller's to move.
func (rm *room) insert(ev *matrix.Event, num store.EventNum, before, current store.SnapshotID, txn store.TxnID) error {
	entry := store.NewEvent{Event: ev, Before: before, After: current, Txn: txn}
	entry.Relay = rm.how.relay == ev.ID && !rm.rooms.isLocal(ev.Sender)
	if ev.IsState() {
		var err error
		if entry.Slot, err = rm.tx.PutSlot(rm.num, ev.Type, *ev.StateKey); err != nil {
			return err
		}
		entry.HasSlot = true
	}
	if err := rm.tx.PutEvent(rm.num, num, entry); err != nil {
		return err
	}
	old := rm.head.Current
	rm.head.Current = current
	rm.head.Latest = num
	if rm.head.First == 0 {
		rm.head.First = num
	}
	rm.changed = true
	if err := rm.settle(old, current); err != nil {
		return err
	}
	return rm.follow(ev, num)
}

// settle brings the member counts and the memberships of local users in line
// with a current state that changed.
func (rm *room) settle(from, to store.SnapshotID) error {
	if from == to {
		return nil
	}
	return rm.tx.DiffSnapshots(rm.num, from, to, func(slot store.Slot, was, is store.EventNum) (bool, error) {
		if !slot.Member() {
			return true, nil
		}
		left, err := rm.count(was, -1)
		if err != nil {
			return false, err
		}
		entered, err := rm.count(is, 1)
		if err != nil {
			return false, err
		}
		if err := rm.settleServer(left, entered); err != nil {
			return false, err
		}
		return true, rm.settleLocal(was, is)
	})
}

// count adds n to the number of members of an event's kind. It returns the server
// whose user is a joined member by the event, "" when none is. The server of any
// member gets a number: what becomes of its user is told to it.
func (rm *room) count(num store.EventNum, n int64) (matrix.ServerName, error) {
	if num == 0 {
		return "", nil
	}
	ev, err := rm.tx.Event(rm.num, num)
	if err != nil {
		return "", err
	}
	member, err := ev.Member()
	if err != nil {
		return "", nil // no membership, nothing to count
	}
	if user, err := matrix.ParseUserID(*ev.StateKey); err == nil && !rm.rooms.isLocal(user) {
		if _, err := rm.tx.PutServerNum(user.Server()); err != nil {
			return "", err
		}
	}
	switch member.Membership {
	case matrix.Join:
		rm.head.Joined = uint64(int64(rm.head.Joined) + n)
		server, _ := ev.JoinedServer()
		return server, nil
	case matrix.Invite:
		rm.head.Invited = uint64(int64(rm.head.Invited) + n)
	}
	return "", nil
}

// settleServer counts a user who has left or entered among the joined members of
// the user's server.
func (rm *room) settleServer(left, entered matrix.ServerName) error {
	if left == entered {
		return nil
	}
	if left != "" {
		if err := rm.tx.CountRoomServer(rm.num, left, -1); err != nil {
			return err
		}
	}
	if entered == "" {
		return nil
	}
	return rm.tx.CountRoomServer(rm.num, entered, 1)
}

// settleLocal records what the room has become to a local user.
func (rm *room) settleLocal(was, is store.EventNum) error {
	num := is
	if num == 0 {
		num = was // resolved away: as if the user had never been here
	}
	ev, err := rm.tx.Event(rm.num, num)
	if err != nil {
		return err
	}
	user, err := matrix.ParseUserID(*ev.StateKey)
	if err != nil || !rm.rooms.isLocal(user) {
		return nil
	}
	entry := store.LocalMembership{Room: rm.num, Membership: matrix.Leave}
	if is != 0 {
		member, err := ev.Member()
		if err != nil {
			return fmt.Errorf("member event %s: %w", ev.ID, err)
		}
		entry.Membership, entry.Event = member.Membership, is
	}
	userNum, err := rm.tx.PutUserNum(user)
	if err != nil {
		return err
	}
	before, _, err := rm.tx.LocalMembership(userNum, rm.num)
	if err != nil {
		return err
	}
	if err := rm.tx.PutLocalMembership(userNum, entry); err != nil {
		return err
	}
	if entry.Membership != matrix.Join || before.Membership == matrix.Join {
		return nil
	}
	return rm.carryIn(userNum)
}

// follow does what an event asks for beyond the state: it is remembered as a
// relation, applied as a redaction, or redacted by one that came first; a tombstone
// is followed to the room that it names.
func (rm *room) follow(ev *matrix.Event, num store.EventNum) error {
	if err := rm.relate(ev, num); err != nil {
		return err
	}
	if ev.Redacts != "" && ev.Type == "m.room.redaction" {
		if err := rm.redact(ev, num); err != nil {
			return err
		}
	}
	if ev.Is("m.room.tombstone", "") {
		if err := rm.carryOut(num); err != nil {
			return err
		}
	}
	return rm.redactLate(ev, num)
}

// relate remembers what an event relates to. One that was redacted while it was an
// outlier relates to nothing any more.
func (rm *room) relate(ev *matrix.Event, num store.EventNum) error {
	relation, ok := ev.Relation()
	if !ok || ev.IsState() {
		return nil
	}
	place, _, err := rm.tx.EventPlace(ev.ID)
	if err != nil || place.Redacted {
		return err
	}
	child := store.Relation{Child: num, Sender: rm.tx.UserNum(ev.Sender), Type: relation.Type}
	return rm.tx.PutRelation(rm.num, relation.Event, child)
}
