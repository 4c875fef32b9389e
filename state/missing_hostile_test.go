package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// forge makes an event of version 1, in which IDs are whatever events claim.
func (h *house) forge(room matrix.RoomID, id string, prev, cited []string, member string) *matrix.Event {
	h.Helper()
	list := func(ids []string) string {
		text := "["
		for i, id := range ids {
			if i > 0 {
				text += ","
			}
			text += fmt.Sprintf(`[%q,{"sha256":""}]`, id)
		}
		return text + "]"
	}
	pdu := fmt.Sprintf(`{"auth_events":%s,"content":{"membership":"join"},"depth":50,"event_id":%q,"hashes":{},"origin_server_ts":5,`+
		`"prev_events":%s,"room_id":%q,"sender":%q,"signatures":{},"state_key":%q,"type":"m.room.member"}`,
		list(cited), id, list(prev), string(room), member, member)
	version, _ := matrix.VersionByID("1")
	ev, err := matrix.Parse(version, []byte(pdu))
	h.must(err)
	return ev
}

// What another server answers is whatever it likes: the call ends, nothing wrong is
// believed, and what was there stays.
func TestHostileAnswers(t *testing.T) {
	const far = "@eve:far.example"
	for name, lie := range map[string]func(p *peer, s *Source, room, other matrix.RoomID){
		"events of another room": func(p *peer, s *Source, _, other matrix.RoomID) {
			foreign := p.all(other)
			s.Missing = func(_ context.Context, _ MissingEvents, take func(*matrix.Event) error) error {
				for _, ev := range foreign {
					if err := take(ev); err != nil {
						return err
					}
				}
				return nil
			}
			p.state = func([]matrix.EventID) (ids []matrix.EventID) {
				for _, ev := range foreign {
					ids = append(ids, ev.ID)
				}
				return ids
			}
		},
		"the same event without end": func(p *peer, s *Source, room, _ matrix.RoomID) {
			s.Missing = func(_ context.Context, _ MissingEvents, take func(*matrix.Event) error) error {
				for {
					if err := take(p.all(room)[0]); err != nil {
						return fmt.Errorf("wrapped: %w", err)
					}
				}
			}
			s.Events = func(_ context.Context, _ matrix.RoomID, _ []matrix.EventID, take func(*matrix.Event) error) error {
				for {
					if err := take(p.all(room)[0]); err != nil {
						return err
					}
				}
			}
		},
		"a state without end": func(p *peer, s *Source, _, _ matrix.RoomID) {
			s.StateIDs = func(_ context.Context, _ matrix.RoomID, _ matrix.EventID, take func(matrix.EventID) error) error {
				for i := 0; ; i++ {
					if err := take(matrix.EventID(fmt.Sprint("$", i))); err != nil {
						return err
					}
				}
			}
		},
		"events that stand on each other": func(p *peer, s *Source, room, _ matrix.RoomID) {
			below := string(last(p.all(room)).PrevEvents[0])
			circle := []*matrix.Event{
				p.forge(room, below, []string{"$two:far.example"}, nil, far),
				p.forge(room, "$two:far.example", []string{below, "$two:far.example"}, nil, far),
			}
			s.Missing = func(_ context.Context, _ MissingEvents, take func(*matrix.Event) error) error {
				return errors.Join(take(circle[0]), take(circle[1]), take(circle[0]))
			}
			p.state = func([]matrix.EventID) []matrix.EventID { return nil }
		},
		"events that cite each other": func(p *peer, _ *Source, room, _ matrix.RoomID) {
			one := p.forge(room, "$one:far.example", nil, []string{"$two:far.example"}, far)
			p.lies[one.ID] = one
			two := p.forge(room, "$two:far.example", nil, []string{"$one:far.example", "$two:far.example"}, far)
			p.lies[two.ID] = two
			p.state = func(ids []matrix.EventID) []matrix.EventID { return append(ids, one.ID, two.ID) }
		},
		"cited events without end": func(p *peer, s *Source, room, _ matrix.RoomID) {
			n := 0
			s.Events = func(_ context.Context, _ matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
				for _, id := range ids {
					n += 2
					cited := []string{fmt.Sprintf("$%d:far.example", n), fmt.Sprintf("$%d:far.example", n+1)}
					if err := take(p.forge(room, string(id), nil, cited, far)); err != nil {
						return err
					}
				}
				return nil
			}
			p.state = func(ids []matrix.EventID) []matrix.EventID { return append(ids, "$none:far.example") }
		},
		"an event that nobody has": func(p *peer, _ *Source, _, _ matrix.RoomID) {
			p.state = func(ids []matrix.EventID) []matrix.EventID { return append(ids, "$none:far.example") }
		},
		"no m.room.create": func(p *peer, _ *Source, room, _ matrix.RoomID) {
			create := p.all(room)[0].ID
			p.state = func(ids []matrix.EventID) []matrix.EventID {
				return slices.DeleteFunc(ids, func(id matrix.EventID) bool { return id == create })
			}
		},
		"a message in the state": func(p *peer, _ *Source, room, _ matrix.RoomID) {
			p.state = func(ids []matrix.EventID) []matrix.EventID { return append(ids, p.all(room)[7].ID) }
		},
		"two events for a place": func(p *peer, _ *Source, room, _ matrix.RoomID) {
			p.state = func(ids []matrix.EventID) []matrix.EventID { return append(ids, p.all(room)[6].ID) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			from, to := &peer{house: h, gap: 1, lies: make(map[matrix.EventID]*matrix.Event)}, newHouse(t)
			room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "1"})
			other := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "1"})
			h.must(h.join(room, bob))
			h.must(h.change(room, alice, bob, matrix.Leave)) // two for one place
			h.send(room, alice, "m.room.message", `{}`)
			known := h.all(room)
			if known[7].IsState() {
				known[6], known[7] = known[7], known[6]
			}
			_, err := to.rooms.AcceptAll(context.Background(), h.all(room))
			to.must(err)
			_, err = to.rooms.AcceptAll(context.Background(), h.all(other))
			to.must(err)
			_, err = h.set(room, alice, "m.room.topic", "", `{"topic":"new"}`)
			h.must(err)
			h.must(h.join(room, carol)) // below what is told of the gap
			h.send(room, carol, "m.room.message", `{}`)
			end := from.find(h.send(room, carol, "m.room.message", `{}`))
			source := from.source()
			lie(from, &source, room, other)
			before := to.head(room)
			verdicts, err := to.rooms.AcceptFrom(context.Background(), []*matrix.Event{end}, source)
			var lacks *MissingError
			if !errors.As(err, &lacks) || lacks.Event != end.ID || len(verdicts) > 0 {
				t.Errorf("verdicts %d, %v", verdicts, err)
			}
			if errors.Is(err, ErrFetch) {
				t.Errorf("an answer counts as none: %v", err)
			}
			if after := to.head(room); after.Current != before.Current || after.Latest != before.Latest {
				t.Errorf("the head was %+v and is %+v", before, after)
			}
			// And an honest server helps.
			from.state, from.lies = nil, nil
			if got := to.acceptFrom(from, end); got[0] != Accepted {
				t.Errorf("honestly: verdict %d", got)
			}
			sameState(t, "current", to.current(room), h.current(room))
		})
	}
}

// Rejected events and false creates are in no state, whatever another server says.
func TestRejectedEventsAreInNoGivenState(t *testing.T) {
	from, to, events, shared := startRoom(t, "1", 3)
	from.gap = 1
	room := last(events).Room
	key := string("@eve:home.example")
	intruder := from.build(room, events[shared-1:shared], 9, matrix.Draft{Sender: "@eve:home.example", Type: "m.room.name", StateKey: new(string), Content: []byte(`{}`)})
	banned := from.build(room, events[shared-1:shared], 9, matrix.Draft{Sender: bob, Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"ban"}`)})
	create := from.forgeCreate(room)
	for _, ev := range []*matrix.Event{intruder, banned, create} {
		from.lies[ev.ID] = ev
	}
	want := from.current(room)
	from.state = func(ids []matrix.EventID) []matrix.EventID { return append(ids, intruder.ID, banned.ID, create.ID) }
	if got := to.acceptFrom(from, last(events)); got[0] != Accepted {
		t.Errorf("verdict %d", got)
	}
	sameState(t, "current", to.current(room), want)
	for _, ev := range []*matrix.Event{intruder, banned, create} {
		if got := to.event(ev.ID); !got.Rejected || !got.Outlier {
			t.Errorf("%s is %+v", ev.Type, got)
		}
	}
}

// forgeCreate makes another m.room.create for a room.
func (h *house) forgeCreate(room matrix.RoomID) *matrix.Event {
	h.Helper()
	version, _ := matrix.VersionByID("1")
	draft := matrix.Draft{Room: room, Sender: alice, Type: "m.room.create", StateKey: new(string), Content: fmt.Appendf(nil, `{"creator":%q}`, alice)}
	ev, err := draft.Build(version, matrix.Placing{}, "home.example", h.rooms.Key())
	h.must(err)
	return ev
}

func ptr(s string) *string { return &s }

// lowerBounds makes resolutions give up early.
func lowerBounds(t *testing.T, slots int) {
	brief, wide := briefBounds, wideBounds
	briefBounds.slots, wideBounds.slots = slots, slots
	t.Cleanup(func() { briefBounds, wideBounds = brief, wide })
}

// Forks that are too tangled for the state before an event leave it to the other
// server; those that are too tangled for the current state leave the event out of
// it. In both cases the room goes on.
func TestTangledRoomGoesOn(t *testing.T) {
	h := newHouse(t)
	from, to := &peer{house: h, gap: 1 << 20}, newHouse(t)
	room := h.create(Creation{Creator: alice, Preset: PresetPublic, Version: "12"})
	base := h.all(room)
	forked := forkedRoom{id: room, events: base}
	var tips []*matrix.Event
	for side := range 2 {
		tip := last(base)
		for n := range 4 {
			key := fmt.Sprint(n)
			h.graftOn(&forked, []*matrix.Event{tip}, matrix.Draft{Sender: alice, Type: "m.x", StateKey: &key, Content: fmt.Appendf(nil, `{"side":%d}`, side)})
			tip = last(forked.events)
		}
		tips = append(tips, tip)
	}
	h.graftOn(&forked, tips, matrix.Draft{Sender: alice, Type: "m.room.message", Content: []byte(`{}`)})
	merge := last(forked.events)
	lowerBounds(t, 2)

	list := forked.events[:len(forked.events)-1]
	verdicts, err := to.rooms.AcceptAll(context.Background(), list)
	to.must(err)
	tangledAt := slices.Index(verdicts, SoftFailed)
	if tangledAt < len(base)+4 || slices.ContainsFunc(verdicts[tangledAt:], func(v Verdict) bool { return v != SoftFailed }) {
		t.Fatalf("verdicts %d", verdicts)
	}
	_, first, _ := to.numOf(tips[0].ID)
	if head := to.head(room); !slices.Contains(head.Extremities, first) || len(to.timeline(room)) != tangledAt {
		t.Errorf("extremities %d, timeline of %d", head.Extremities, len(to.timeline(room)))
	}
	if got := to.current(room)[auth.Key{Type: "m.x", StateKey: "3"}]; got != tips[0].ID {
		t.Errorf("the current state has %s, want that of the first side, %s", got, tips[0].ID)
	}
	before := to.head(room)
	if _, err := to.rooms.Accept(context.Background(), merge); !errors.Is(err, ErrTangled) {
		t.Errorf("without another server: %v", err)
	}
	if after := to.head(room); after.Current != before.Current {
		t.Error("the current state has moved")
	}
	if got := to.acceptFrom(from, merge); got[0] != Accepted && got[0] != SoftFailed || from.states != 1 || from.gaps != 0 {
		t.Errorf("with another server: verdict %d by %d states, %d gaps", got, from.states, from.gaps)
	}
	sameState(t, "before", to.stateBefore(merge.ID), h.stateBefore(merge.ID))
	// Whoever stands on all that we have brings the room together.
	own := to.send(room, alice, "m.room.message", `{}`)
	next := to.build(room, []*matrix.Event{merge, to.event(own).Event}, 99, matrix.Draft{Sender: alice, Type: "m.room.message", Content: []byte(`{}`)})
	from.lies = map[matrix.EventID]*matrix.Event{own: to.event(own).Event}
	h.accept(from.lies[own])
	h.accept(next)
	if got := to.acceptFrom(from, next); got[0] != Accepted {
		t.Errorf("the last: verdict %d", got)
	}
	sameState(t, "current", to.current(room), h.current(room))
	if head := to.head(room); len(head.Extremities) != 1 {
		t.Errorf("extremities %d", head.Extremities)
	}
}

// numOf returns where an event stands.
func (h *house) numOf(id matrix.EventID) (room store.RoomNum, num store.EventNum, ok bool) {
	h.must(h.store.View(func(tx *store.Tx) error {
		room, num, ok = tx.EventByID(id)
		return nil
	}))
	return room, num, ok
}
