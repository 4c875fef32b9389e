package federation

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// arrive puts a room of the peer on its way here, as a join of bob does, and returns
// what brings it here. happen is what happens in the room before; or nil.
func (p *pair) arrive(happen func(room matrix.RoomID)) (room matrix.RoomID, join *matrix.Event, finish func()) {
	p.Helper()
	var err error
	room, err = p.peer.rooms.Create(p.Context(), state.Creation{Creator: alice, Version: "10", Preset: "public_chat"})
	p.peer.must(err)
	if happen != nil {
		happen(room)
	}
	key := string(bob)
	join = p.peer.build(matrix.Draft{Room: room, Sender: bob, Type: "m.room.member", StateKey: &key, Content: jsontext.Value(`{"membership":"join"}`)})
	record := store.RoomJoin{Version: join.Version, User: bob, Event: join.JSON(), Server: peer}
	p.here.must(p.here.store.Update(p.Context(), func(tx *store.Tx) error {
		if record.Room, err = tx.PutRoomNum(room); err != nil {
			return err
		}
		return tx.PutJoin(&record)
	}))
	before := p.peer.timeline(room)
	_, err = p.peer.rooms.Accept(p.Context(), join)
	p.peer.must(err)
	return room, join, func() {
		p.Helper()
		im := p.here.rooms.Import(record, room)
		var events []state.ImportedEvent
		for _, ev := range before {
			if ev.IsState() {
				events = append(events, state.ImportedEvent{Event: ev, State: true})
			}
		}
		refused, err := im.Put(p.Context(), events)
		p.here.must(err)
		for _, err := range refused {
			p.here.must(err)
		}
		p.here.must(im.Finish(p.Context(), join))
		p.server.Joined(room)
	}
}

// What others send of a room while it is being joined is kept, also over a restart, and
// taken when the room is here.
func TestEventsOfARoomThatArrives(t *testing.T) {
	p := newPair(t)
	room, _, finish := p.arrive(nil)
	first, second := p.peer.send(room, "first"), p.peer.send(room, "second")
	if got := p.deliver(first); got[first.ID] != "" || len(got) != 1 {
		t.Errorf("got %q", got)
	}
	if got := p.deliver(second); got[second.ID] != "" || len(got) != 1 {
		t.Errorf("got %q", got)
	}
	p.stop()
	p.start()
	p.eventually("it was tried in vain", func() bool {
		p.server.inbox.queue.mu.Lock()
		defer p.server.inbox.queue.mu.Unlock()
		for _, r := range p.server.inbox.queue.rooms {
			return !r.busy && r.failures == 1
		}
		return false
	})
	if stored, counted := p.waiting(); stored != 2 || counted != 2 {
		t.Fatalf("%d events wait, %d by the count", stored, counted)
	}
	finish()
	p.eventually("they are there", func() bool { return p.here.shown(first.ID) && p.here.shown(second.ID) })
	p.eventually("nothing waits", func() bool { stored, counted := p.waiting(); return stored+counted == 0 })
}

// What was sent before we came into a room and comes after is history and no fork: in a
// resolution with the state of then, who came since would be held to the join rules of
// today.
func TestEventsOfBeforeARoomArrived(t *testing.T) {
	p := newPair(t)
	var old []*matrix.Event
	room, _, finish := p.arrive(func(room matrix.RoomID) {
		old = append(old, p.peer.send(room, "one"), p.peer.send(room, "two"))
		p.peer.must(p.peer.rooms.Join(p.Context(), state.Join{Room: room, User: "@mallory:peer.test"}))
		of := p.peer.build(matrix.Draft{Room: room, Sender: "@mallory:peer.test", Type: "m.room.message", Content: jsontext.Value(`{"body":"three"}`)})
		_, err := p.peer.rooms.Accept(p.Context(), of)
		p.peer.must(err)
		old = append(old, of)
		p.peer.must(p.peer.rooms.Join(p.Context(), state.Join{Room: room, User: "@carol:peer.test"}))
	})
	finish()
	closed := p.peer.set(room, "m.room.join_rules", "", `{"join_rule":"invite"}`)
	p.deliver(closed, p.peer.set(room, "m.room.member", "@mallory:peer.test", `{"membership":"ban"}`))
	for _, ev := range old {
		if got := p.deliver(ev); got[ev.ID] != "" {
			t.Errorf("got %q", got)
		}
	}
	p.eventually("they are there", func() bool { return p.here.find(old[0].ID) != nil && p.here.find(old[2].ID) != nil })
	later := p.peer.send(room, "later")
	p.deliver(later)
	p.eventually("the next is there", func() bool { return p.here.shown(later.ID) })
	for i, ev := range old { // the last is of who is banned by now
		if stored := p.here.find(ev.ID); p.here.shown(ev.ID) || stored.SoftFailed != (i == 2) || stored.Rejected || stored.Outlier {
			t.Errorf("%s is no history: %+v", ev.Content, stored)
		}
	}
	p.here.must(p.here.store.View(func(tx *store.Tx) error {
		ev, err := state.Current(tx, room, "m.room.member", "@carol:peer.test")
		if ev == nil {
			t.Error("who came since is out")
		}
		num, head, err := state.Head(tx, room)
		if err != nil {
			return err
		}
		if id, err := tx.EventID(num, head.Extremities[0]); len(head.Extremities) != 1 || id != later.ID || err != nil {
			t.Errorf("%d extremities, %s, %v", len(head.Extremities), id, err)
		}
		return err
	}))
}

// Who lies about the depth of an event makes no history of what all others send behind it.
func TestDepthsThatLieAboutARoomThatArrived(t *testing.T) {
	p := newPair(t)
	room, join, finish := p.arrive(nil)
	finish()
	placing := matrix.Placing{Prev: []matrix.EventID{join.ID}, Depth: 1}
	placing.Auth = p.peer.build(matrix.Draft{Room: room, Sender: alice, Type: "m.room.message", Content: jsontext.Value(`{}`)}).AuthEvents
	lie, err := matrix.Draft{Room: room, Sender: alice, Type: "m.room.message", Content: jsontext.Value(`{"body":"lie"}`)}.Build(join.Version, placing, peer, p.peer.key)
	p.peer.must(err)
	_, err = p.peer.rooms.Accept(p.Context(), lie)
	p.peer.must(err)
	for _, ev := range []*matrix.Event{lie, p.peer.send(room, "one"), p.peer.set(room, "m.room.topic", "", `{"topic":"two"}`)} {
		if p.deliver(ev); ev.Depth >= join.Depth || !p.here.shown(ev.ID) {
			t.Errorf("depth %d of %d: %s is not shown", ev.Depth, join.Depth, ev.Content)
		}
	}
}

// What came for a room that could not be joined after all is given up.
func TestEventsOfARoomThatNeverArrives(t *testing.T) {
	p := newPair(t)
	room, _, _ := p.arrive(nil)
	p.deliver(p.peer.send(room, "lost"))
	if stored, _ := p.waiting(); stored != 1 {
		t.Errorf("%d events wait", stored)
	}
	var num store.RoomNum
	p.here.must(p.here.store.View(func(tx *store.Tx) error {
		num = tx.RoomNum(room)
		return nil
	}))
	p.here.must(p.here.rooms.EndJoin(t.Context(), num))
	late := p.peer.send(room, "late")
	if got := p.deliver(late); len(got) != 0 || p.here.find(late.ID) != nil {
		t.Errorf("after the join has failed: %q", got)
	}
	p.server.Joined(room)
	p.eventually("nothing waits", func() bool { stored, counted := p.waiting(); return stored+counted == 0 })
}

// Events that wait are held to the server ACL of the time when they are tried.
func TestInboxHoldsToTheACL(t *testing.T) {
	p := newPair(t)
	p.become(true, false)
	before := p.peer.timeline(p.room)
	empty := ""
	acl := p.peer.build(matrix.Draft{
		Room: p.room, Sender: alice, Type: "m.room.server_acl", StateKey: &empty,
		Content: jsontext.Value(`{"allow":["*"],"deny":["evil.test"]}`),
	}, before[len(before)-1].ID)
	lost, good := p.peer.send(p.room, "lost"), p.peer.send(p.room, "good")
	evil := p.peer.build(matrix.Draft{Room: p.room, Sender: alice, Type: "m.room.message", Content: jsontext.Value(`{}`)}, lost.ID)
	_, err := p.peer.rooms.Accept(t.Context(), evil)
	p.peer.must(err)
	if code, answer := p.transact("evil.test", "1", body(evil)); code != 200 {
		t.Fatalf("%d %s", code, answer)
	}
	p.deliver(good)
	if stored, _ := p.waiting(); stored != 2 {
		t.Fatalf("%d events wait", stored)
	}
	if got := p.deliver(acl); got[acl.ID] != "" || !p.here.shown(acl.ID) {
		t.Fatalf("the ACL: %q", got)
	}
	p.stop()
	p.become(false, false)
	p.start()
	p.eventually("the other event is there", func() bool { return p.here.shown(good.ID) })
	p.eventually("nothing waits", func() bool { stored, counted := p.waiting(); return stored+counted == 0 })
	if p.here.find(evil.ID) != nil {
		t.Error("it came in against the ACL")
	}
}
