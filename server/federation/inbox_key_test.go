package federation

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// An event whose key cannot be had for now is not lost, nor is what stands on it.
func TestKeyThatComesLater(t *testing.T) {
	p := newPair(t)
	early, next := p.peer.send(p.room, "early"), p.peer.send(p.room, "next")
	p.setKeyless(early, true)
	if got := p.deliver(early); got[early.ID] != "" || len(got) != 1 {
		t.Errorf("got %q", got)
	}
	if p.here.shown(early.ID) {
		t.Error("it is taken without a check")
	}
	if stored, counted := p.waiting(); stored != 1 || counted != 1 {
		t.Errorf("%d events wait, %d by the count", stored, counted)
	}
	p.stop()
	p.start()
	p.setKeyless(early, false)
	p.eventually("it is there", func() bool { return p.here.shown(early.ID) })
	p.deliver(next)
	p.eventually("so is the next", func() bool { return p.here.shown(next.ID) })
	p.eventually("nothing waits", func() bool { stored, counted := p.waiting(); return stored+counted == 0 })
}

// What a join left out, as its keys could not be had, comes to the state later: also
// what it cites, in whatever order the keys come.
func TestLeftOutOfAJoin(t *testing.T) {
	p := newPair(t)
	const carol = matrix.UserID("@carol:third.test")
	key := string(carol)
	var room matrix.RoomID
	var left []*matrix.Event
	room, err := p.peer.rooms.Create(p.Context(), state.Creation{Creator: alice, Version: "10", Preset: "public_chat"})
	p.peer.must(err)
	for _, name := range []string{"Carol", "Carola"} {
		content := jsontext.Value(`{"membership":"join","displayname":"` + name + `"}`)
		ev := p.peer.build(matrix.Draft{Room: room, Sender: carol, Type: "m.room.member", StateKey: &key, Content: content})
		_, err := p.peer.rooms.Accept(p.Context(), ev)
		p.peer.must(err)
		left = append(left, ev)
	}
	num, finish := p.arriveWithout(room, left...)
	for i, ev := range left {
		p.setKeyless(ev, true)
		p.leftOut(num, ev.JSON(), i == len(left)-1)
	}
	finish()
	p.setKeyless(left[1], false)
	p.setKeyless(left[0], false)
	p.eventually("the state has the newer one", func() bool {
		var now *store.StoredEvent
		var counted bool
		p.here.must(p.here.store.View(func(tx *store.Tx) (err error) {
			counted = tx.ServerInRoom(tx.RoomNum(room), tx.ServerNum(carol.Server()))
			now, err = state.Current(tx, room, "m.room.member", key)
			return err
		}))
		return now != nil && now.ID == left[1].ID && counted
	})
	p.eventually("nothing waits", func() bool { stored, counted := p.waiting(); return stored+counted == 0 })
}

// What a join used on the word of the server that gave it is checked when its keys can be
// had: what is signed stays, what is not goes.
func TestUsedOnTrust(t *testing.T) {
	p := newPair(t)
	room, err := p.peer.rooms.Create(p.Context(), state.Creation{Creator: alice, Version: "10", Preset: "public_chat"})
	p.peer.must(err)
	var used []*matrix.Event
	for _, key := range []string{"@carol:third.test", "@forged:third.test", "@nokey:fourth.test", "@silent:fifth.test", "@genuine:third.test"} {
		ev := p.peer.build(matrix.Draft{Room: room, Sender: matrix.UserID(key), Type: "m.room.member", StateKey: &key, Content: jsontext.Value(`{"membership":"join"}`)})
		_, err := p.peer.rooms.Accept(p.Context(), ev)
		p.peer.must(err)
		used = append(used, ev)
		p.setKeyless(ev, true)
	}
	p.forged = map[matrix.EventID]bool{used[1].ID: true}
	num, finish := p.arriveWithout(room)
	for _, ev := range used {
		pdu := ev.JSON()
		if *ev.StateKey == "@genuine:third.test" { // what waits is not what is used
			pdu = bytes.ReplaceAll(pdu, []byte("ed25519:test"), []byte("ed25519:forged"))
		}
		p.leftOut(num, pdu, true)
	}
	finish()
	members := func() (in []string) {
		p.here.must(p.here.store.View(func(tx *store.Tx) error {
			for _, ev := range used {
				now, err := state.Current(tx, room, "m.room.member", *ev.StateKey)
				if err != nil {
					return err
				}
				if now != nil && now.ID == ev.ID {
					in = append(in, *ev.StateKey)
				}
			}
			return nil
		}))
		return in
	}
	if in := members(); len(in) != len(used) {
		t.Errorf("at first %q are members", in)
	}
	p.here.must(p.here.store.Update(p.Context(), func(tx *store.Tx) error {
		return tx.PutServerKeys("fourth.test", store.KeyAnswer{JSON: []byte(`{}`), Fetched: time.Now().Add(time.Second), ValidUntil: time.Now()}, nil)
	}))
	p.server.Joined(room)
	p.eventually("whose server has told its keys, and has no such key, is out", func() bool {
		return !slices.Contains(members(), "@nokey:fourth.test")
	})
	if in := members(); len(in) != len(used)-1 {
		t.Errorf("then %q are members", in)
	}
	p.setKeyless(used[0], false)
	p.setKeyless(used[1], false)
	p.setKeyless(used[4], false)
	p.ahead.Store(int64(inboxAge + time.Minute)) // the keys of the others do not come
	p.server.Joined(room)
	p.eventually("nothing waits", func() bool { stored, counted := p.waiting(); return stored+counted == 0 })
	if in := members(); !slices.Equal(in, []string{"@carol:third.test", "@silent:fifth.test", "@genuine:third.test"}) {
		t.Errorf("in the end %q are members", in)
	}
	_, err = p.peer.rooms.Accept(p.Context(), p.here.timeline(room)[0]) // the join
	p.peer.must(err)
	said := p.peer.send(room, "later")
	p.deliver(said)
	p.eventually("the next is there", func() bool { return p.here.shown(said.ID) })
	if in := members(); !slices.Equal(in, []string{"@carol:third.test", "@silent:fifth.test", "@genuine:third.test"}) {
		t.Errorf("behind the next %q are members", in)
	}
}

// A server that was barred since is checked all the more.
func TestUsedOnTrustOfTheBarred(t *testing.T) {
	p := newPair(t)
	room, err := p.peer.rooms.Create(p.Context(), state.Creation{Creator: alice, Version: "10", Preset: "public_chat"})
	p.peer.must(err)
	key, none := "@forged:third.test", ""
	forged := p.peer.build(matrix.Draft{Room: room, Sender: matrix.UserID(key), Type: "m.room.member", StateKey: &key, Content: jsontext.Value(`{"membership":"join"}`)})
	_, err = p.peer.rooms.Accept(p.Context(), forged)
	p.peer.must(err)
	acl := p.peer.build(matrix.Draft{Room: room, Sender: alice, Type: "m.room.server_acl", StateKey: &none, Content: jsontext.Value(`{"allow":["*"],"deny":["` + string(peer) + `"]}`)})
	_, err = p.peer.rooms.Accept(p.Context(), acl)
	p.peer.must(err)
	num, finish := p.arriveWithout(room)
	p.leftOut(num, forged.JSON(), true)
	p.forged = map[matrix.EventID]bool{forged.ID: true}
	finish()
	p.eventually("nothing waits", func() bool { stored, counted := p.waiting(); return stored+counted == 0 })
	p.here.must(p.here.store.View(func(tx *store.Tx) error {
		if now, err := state.Current(tx, room, "m.room.member", key); now != nil || err != nil {
			t.Errorf("%s is a member: %v", key, err)
		}
		return nil
	}))
}

// What is used on trust is kept before that, to be checked later, or is not used.
func TestTrustedIsKeptFirst(t *testing.T) {
	p := newPair(t)
	ev := p.peer.send(p.room, "any")
	p.setKeyless(ev, true)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ctx := range []context.Context{ended, t.Context()} {
		var room store.RoomNum
		p.here.must(p.here.store.View(func(tx *store.Tx) error { room = tx.RoomNum(p.room); return nil }))
		try := inboxTry{inbox: p.server.inbox, ctx: ctx, room: room}
		var trusted []*matrix.Event
		from := try.keeping(ctx, peer, &trusted, state.Source{
			Events: func(_ context.Context, _ matrix.RoomID, _ []matrix.EventID, take func(*matrix.Event) error) error {
				trusted = append(trusted, ev)
				return take(ev)
			},
		})
		used, kept := false, 0
		err := from.Events(ctx, p.room, nil, func(*matrix.Event) error {
			used = true
			kept, _ = p.waiting()
			return nil
		})
		if could := ctx.Err() == nil; used != could || (err == nil) != could || could && kept != 1 {
			t.Errorf("context %v: used %t, %d kept, %v", ctx.Err(), used, kept, err)
		}
	}
}

// Of more than may wait of one server the first are kept, and it is told how many.
func TestLeftOutIsBounded(t *testing.T) {
	p := newPair(t)
	room, err := p.peer.rooms.Create(p.Context(), state.Creation{Creator: alice, Version: "10", Preset: "public_chat"})
	p.peer.must(err)
	num, _ := p.arriveWithout(room)
	var pdus []jsontext.Value
	for i := range maxUnsureOrigin + leftOutStep {
		pdus = append(pdus, fmt.Appendf(nil, `{"n":%d}`, i))
	}
	kept, err := p.server.LeftOut(p.Context(), num, peer, pdus, true)
	stored, counted := p.waiting()
	if want := maxUnsureOrigin / leftOutStep * leftOutStep; err != nil || kept != want || stored != want || counted != want {
		t.Errorf("%d kept, %d stored, %d counted, want %d: %v", kept, stored, counted, want, err)
	}
}

// leftOut has an event of the answer to a join kept.
func (p *pair) leftOut(num store.RoomNum, pdu jsontext.Value, state bool) {
	p.Helper()
	kept, err := p.server.LeftOut(p.Context(), num, peer, []jsontext.Value{pdu}, state)
	p.here.must(err)
	if kept != 1 {
		p.Error("an event is not kept")
	}
}

// arriveWithout puts a room of the peer on its way here, without some of its events. Those
// of third servers are used on its word.
func (p *pair) arriveWithout(room matrix.RoomID, left ...*matrix.Event) (num store.RoomNum, finish func()) {
	p.Helper()
	key := string(bob)
	join := p.peer.build(matrix.Draft{Room: room, Sender: bob, Type: "m.room.member", StateKey: &key, Content: jsontext.Value(`{"membership":"join"}`)})
	record := store.RoomJoin{Version: join.Version, User: bob, Event: join.JSON(), Server: peer}
	p.here.must(p.here.store.Update(p.Context(), func(tx *store.Tx) (err error) {
		if record.Room, err = tx.PutRoomNum(room); err != nil {
			return err
		}
		return tx.PutJoin(&record)
	}))
	return record.Room, func() {
		p.Helper()
		im := p.here.rooms.Import(record, room)
		for _, ev := range p.peer.timeline(room) {
			if slices.ContainsFunc(left, func(l *matrix.Event) bool { return l.ID == ev.ID }) {
				continue
			}
			ev.Unchecked = ev.Sender.Server() != peer
			refused, err := im.Put(p.Context(), []state.ImportedEvent{{Event: ev, State: ev.IsState()}})
			p.here.must(err)
			p.here.must(refused[0])
		}
		p.here.must(im.Finish(p.Context(), join))
		p.server.Joined(room)
	}
}
