package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// FuzzAccept reads its input as a program that makes events of two rooms and
// offers them, in and out of order, one by one and together. The rooms must become
// what [acceptModel] says, and the store must be sound in the end.
//
// The first two bytes say how it begins: the versions of the rooms, and whether
// they have their first events already. Then each eight bytes are an instruction;
// see [program.step].
func FuzzAccept(f *testing.F) {
	for _, seed := range acceptSeeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p := newProgram(newHouse(t), in)
		for p.step() {
		}
		p.flush()
		p.compare()
	})
}

// Bounds of a program: beyond them nothing new happens, only more slowly.
const (
	maxProgramSteps = 64
	maxBatch        = 12
)

const (
	dave = matrix.UserID("@dave:far.example")
	eve  = matrix.UserID("@eve:far.example")
)

// Second byte of an input: which rooms have their first events, and more.
const (
	flagEmpty = 0x01 // the first room has no events
	flagBoth  = 0x02 // the second room has some
	flagBrief = 0x04 // what differs a little is resolved outside of the write
)

// program is an input as it runs.
type program struct {
	*house
	model *acceptModel
	in    []byte
	steps int
	sites [2]site
	batch []*matrix.Event
	want  []Verdict // on the batch
	fails error     // how the batch ends
}

// site is a room that the program builds.
type site struct {
	id      matrix.RoomID
	version *matrix.Version
	made    []*matrix.Event // offered or not, refused or not
}

func newProgram(h *house, in []byte) *program {
	p := &program{house: h, model: newAcceptModel(), in: in}
	versions, flags := p.byte(), p.byte()
	if flags&flagBrief != 0 {
		brief := briefBounds
		briefBounds = bounds{slots: 2, chain: 8}
		h.Cleanup(func() { briefBounds = brief })
	}
	for i := range p.sites {
		s := &p.sites[i]
		s.version = matrix.Versions()[int(versions>>(4*i)&15)%len(matrix.Versions())]
		s.id = matrix.RoomID(fmt.Sprintf("!room%d:home.example", i))
		if empty := flags&flagEmpty != 0; i == 0 && !empty || i == 1 && flags&flagBoth != 0 {
			p.furnish(s)
		}
	}
	return p
}

func (p *program) byte() byte {
	if len(p.in) == 0 {
		return 0
	}
	b := p.in[0]
	p.in = p.in[1:]
	return b
}

// furnish gives a room the events that most rooms begin with.
func (p *program) furnish(s *site) {
	for i, in := range []instruction{
		{kind: makeCreate}, {kind: makeMember}, {kind: makeLevels, b: 1, c: 2},
		{kind: makeRule}, {kind: makeMember, who: 1, a: 1 << 4}, {kind: makeMember, who: 3, a: 3 << 4},
	} {
		ev := p.build(s, in)
		if ev == nil {
			p.Fatalf("event %d of room %s cannot be made", i, s.id)
		}
		p.offer(ev, true)
	}
	p.flush()
}

// instruction is one step of a program.
type instruction struct {
	kind  kind
	far   bool // in the second room
	more  bool // offer it together with what comes next
	hold  bool // make it and do not offer it
	who   byte // the sender; 0x80: under the ID of another event, where IDs are given
	prev  byte // which prev events, see [program.prev]
	auth  byte // which auth events, see [program.auth]
	depth byte
	a     byte // what else the kind wants
	b, c  byte
}

// kind is what an instruction makes or does.
type kind byte

const (
	makeMessage kind = iota
	makeMember
	makeLevels
	makeRule
	makeTopic
	makeRedaction
	makeInvite // m.room.third_party_invite
	makeCreate
	makeTombstone
	makeAliases
	makeReaction
	makeOther   // state of no rule
	makeContent // any content, from the input
	makePDU     // any bytes, from the input
	offerAgain
	restartRooms // with nothing but what is stored, or after a collection
)

// step runs one instruction; false means that the program is at its end.
func (p *program) step() bool {
	if len(p.in) == 0 || p.steps == maxProgramSteps {
		return false
	}
	p.steps++
	op := p.byte()
	in := instruction{
		kind: kind(op & 15), far: op&0x80 != 0, more: op&0x40 != 0, hold: op&0x20 != 0,
		who: p.byte(), prev: p.byte(), auth: p.byte(), depth: p.byte(), a: p.byte(), b: p.byte(), c: p.byte(),
	}
	s := &p.sites[0]
	if in.far {
		s = &p.sites[1]
	}
	switch in.kind {
	case offerAgain:
		if ev := s.back(in.a); ev != nil {
			p.offer(ev, in.more)
		}
	case restartRooms:
		p.flush()
		if in.a&1 != 0 && p.model.rooms[s.id] != nil {
			p.collect(p.number(s.id))
		}
		p.rooms = New(Config{Store: p.store, Server: p.rooms.server, Key: p.rooms.Key(), Now: p.rooms.now})
	default:
		if ev := p.build(s, in); ev != nil && !in.hold {
			p.offer(ev, in.more)
		}
	}
	return true
}

// collect removes what no event of a room refers to. It has patience with writers;
// those beside it here spare it that.
func (p *program) collect(room store.RoomNum) {
	done := make(chan error, 1)
	go func() {
		_, err := p.rooms.collect(p.Context(), room)
		done <- err
	}()
	for {
		select {
		case err := <-done:
			p.must(err)
			return
		default:
			p.must(p.store.Update(p.Context(), func(*store.Tx) error { return nil }))
		}
	}
}

// back returns the event made n events ago, nil if the room has none.
func (s *site) back(n byte) *matrix.Event {
	if len(s.made) == 0 {
		return nil
	}
	return s.made[len(s.made)-1-int(n)%len(s.made)]
}

// other is the room beside s.
func (p *program) other(s *site) *site {
	if s == &p.sites[0] {
		return &p.sites[1]
	}
	return &p.sites[0]
}

// build makes the event of an instruction; nil if it has not the form of one.
func (p *program) build(s *site, in instruction) *matrix.Event {
	pdu := p.pdu(s, in)
	if in.kind == makePDU {
		n := min(int(in.b)<<8|int(in.c), len(p.in))
		pdu, p.in = s.fill(p.in[:n]), p.in[n:]
	}
	ev, err := matrix.Parse(s.version, pdu)
	if err != nil {
		return nil
	}
	if in.kind == makeCreate && s.version.RoomIDIsHash && len(s.made) == 0 {
		s.id = ev.Room
	}
	s.made = append(s.made, ev)
	return ev
}

// fill puts the room's names into bytes that cannot know them.
func (s *site) fill(text []byte) []byte {
	tip := matrix.EventID("$tip")
	if last := s.back(0); last != nil {
		tip = last.ID
	}
	return []byte(strings.NewReplacer("ROOM", string(s.id), "TIP", string(tip)).Replace(string(text)))
}

// pdu writes the event of an instruction.
func (p *program) pdu(s *site, in instruction) []byte {
	n := len(s.made)
	d := p.draft(s, in)
	if in.kind == makeCreate && n == 0 {
		in.prev, in.auth = prevNone, authNone
	}
	prev := p.prev(s, in)
	cited := p.auth(s, in, d, prev)
	depth := int64(1)
	for _, id := range prev {
		if ev := p.model.events[id]; ev != nil && ev.Depth < s.version.MaxDepth {
			depth = max(depth, ev.Depth+1)
		}
	}
	switch in.depth & 15 {
	case 1:
		depth = s.version.MaxDepth
	case 2:
		depth = -1
	case 3:
		depth = 0
	case 4:
		depth = int64(in.depth) << 40
	}
	ts := int64(n) * 1000
	if in.depth&0x80 != 0 {
		ts = int64(in.depth) - 128
	}
	dst := fmt.Appendf(nil, `{"auth_events":%s,"content":%s,"depth":%d,"hashes":{},"origin_server_ts":%d,"prev_events":%s,"sender":%q,"signatures":{},"type":%q`,
		idList(s.version, cited), d.Content, depth, ts, idList(s.version, prev), d.Sender, d.Type)
	if s.version.EventIDs == matrix.EventIDGiven {
		id := matrix.EventID(fmt.Sprintf("$%d-%s:%s", n, s.id[1:6], d.Sender.Server()))
		if in.who&0x80 != 0 && n > 0 {
			id = s.back(in.c).ID
		}
		dst = fmt.Appendf(dst, `,"event_id":%q`, id)
	}
	if !s.version.RoomIDIsHash || d.Type != "m.room.create" {
		dst = fmt.Appendf(dst, `,"room_id":%q`, s.id)
	}
	if d.Redacts != "" && !s.version.RedactsInContent {
		dst = fmt.Appendf(dst, `,"redacts":%q`, d.Redacts)
	}
	if d.StateKey != nil {
		dst = fmt.Appendf(dst, `,"state_key":%s`, strconv.Quote(*d.StateKey))
	}
	return append(dst, '}')
}

func idList(v *matrix.Version, ids []matrix.EventID) string {
	var parts []string
	for _, id := range ids {
		if v.EventIDs == matrix.EventIDGiven {
			parts = append(parts, fmt.Sprintf(`[%q,{}]`, id))
		} else {
			parts = append(parts, strconv.Quote(string(id)))
		}
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// Ways to choose the prev events, in the low bits; the high ones are a number.
const (
	prevEnds    = 0 // the forward extremities
	prevBack    = 2 // the event so many ago
	prevTwo     = 3 // that and another
	prevLast    = 4 // that many of the last
	prevUnknown = 5 // the extremities and one that does not exist
	prevForeign = 6 // the extremities and one of the other room
	prevNone    = 7 // or one event twice
)

func (p *program) prev(s *site, in instruction) (ids []matrix.EventID) {
	k := in.prev >> 3
	last := s.back(k)
	add := func(ev *matrix.Event) {
		if ev != nil {
			ids = append(ids, ev.ID)
		}
	}
	switch in.prev & 7 {
	case prevBack:
		add(last)
		return ids
	case prevTwo:
		add(last)
		add(s.back(in.c))
		return ids
	case prevLast:
		for _, ev := range s.made[max(0, len(s.made)-int(k)):] {
			add(ev)
		}
		return ids
	case prevNone:
		if k > 0 {
			add(last)
			add(last)
		}
		return ids
	case prevUnknown:
		ids = append(ids, "$unknown:home.example")
	case prevForeign:
		add(p.other(s).back(k))
	}
	if rm := p.model.rooms[s.id]; rm != nil {
		for _, end := range rm.ends {
			add(end.Event)
		}
	}
	return ids
}

// Ways to choose the auth events, likewise.
const (
	authRight   = 0 // by the state before the event
	authCurrent = 2 // by the room's current state
	authLess    = 3 // one too few
	authTwice   = 4 // one twice
	authMore    = 5 // and the event so many ago
	authForeign = 6 // and one of the other room, or one that does not exist
	authNone    = 7 // or that so many ago alone
)

func (p *program) auth(s *site, in instruction, d matrix.Draft, prev []matrix.EventID) (ids []matrix.EventID) {
	k := in.auth >> 3
	for _, key := range auth.Needed(s.version, d.Type, d.Sender, d.StateKey, d.Content) {
		if id, ok := p.stateFor(s, in, prev)[key]; ok {
			ids = append(ids, id)
		}
	}
	extra := s.back(k)
	switch mode := in.auth & 7; {
	case mode == authLess && len(ids) > 0:
		ids = slices.Delete(ids, int(k)%len(ids), int(k)%len(ids)+1)
	case mode == authTwice && len(ids) > 0:
		ids = append(ids, ids[int(k)%len(ids)])
	case mode == authMore && extra != nil:
		ids = append(ids, extra.ID)
	case mode == authForeign && k == 31:
		ids = append(ids, "$unauthorised:home.example")
	case mode == authForeign:
		if ev := p.other(s).back(k); ev != nil {
			ids = append(ids, ev.ID)
		}
	case mode == authNone:
		ids = nil
		if k > 0 && extra != nil {
			ids = append(ids, extra.ID)
		}
	}
	return ids
}

// stateFor is the state from which an event's auth events are chosen.
func (p *program) stateFor(s *site, in instruction, prev []matrix.EventID) modelState {
	rm := p.model.rooms[s.id]
	if rm == nil {
		return nil
	}
	unknown := func(id matrix.EventID) bool { return p.model.events[id] == nil }
	if in.auth&7 == authCurrent || slices.ContainsFunc(prev, unknown) {
		return rm.current
	}
	state, err := p.model.before(rm, &matrix.Event{PrevEvents: prev})
	p.must(err)
	return state
}

// offer has the model take an event, and the rooms with the batch it ends.
func (p *program) offer(ev *matrix.Event, more bool) {
	if rm := p.model.rooms[ev.Room]; rm != nil && len(rm.events) == maxModelEvents {
		return
	}
	verdict, err := p.model.accept(ev)
	p.batch = append(p.batch, ev)
	if p.fails = err; err == nil {
		p.want = append(p.want, verdict)
	}
	if err != nil || !more || len(p.batch) == maxBatch {
		p.flush()
	}
}

// flush hands over the batch.
func (p *program) flush() {
	p.Helper()
	got, err := p.rooms.AcceptAll(context.Background(), p.batch)
	if !slices.Equal(got, p.want) {
		var given []string
		for _, ev := range p.batch {
			given = append(given, fmt.Sprintf("%s %s", ev.ID, ev.JSON()))
		}
		p.Fatalf("verdicts %d: %v; want %d: %v; on %s", got, err, p.want, p.fails, strings.Join(given, "\n"))
	}
	var lacks, lacking *MissingError
	switch {
	case errors.As(p.fails, &lacking):
		if !errors.As(err, &lacks) || lacks.Event != lacking.Event || !sameIDs(lacks.Events, lacking.Events) {
			p.Fatalf("it fails with %v, want %v of %s", err, lacking, lacking.Events)
		}
	case !errors.Is(err, p.fails):
		p.Fatalf("it fails with %v, want %v", err, p.fails)
	}
	touched := make(map[matrix.RoomID]bool)
	for _, ev := range p.batch {
		touched[ev.Room] = true
	}
	p.batch, p.want, p.fails = p.batch[:0], nil, nil
	for _, s := range p.sites {
		if rm := p.model.rooms[s.id]; rm != nil && touched[s.id] {
			p.compareRoom(s.id, rm)
		}
	}
}

// sameIDs says whether two lists name the same events, however often.
func sameIDs(a, b []matrix.EventID) bool {
	sorted := func(ids []matrix.EventID) []matrix.EventID { return slices.Compact(slices.Sorted(slices.Values(ids))) }
	return slices.Equal(sorted(a), sorted(b))
}

// compareRoom holds the newest of a room to the model.
func (p *program) compareRoom(id matrix.RoomID, rm *modelRoom) {
	p.Helper()
	var ends []matrix.EventID
	var state modelState
	p.must(p.store.View(func(tx *store.Tx) error {
		num, head, err := Head(tx, id)
		if err != nil {
			return err
		}
		for _, end := range head.Extremities {
			id, err := tx.EventID(num, end)
			if err != nil {
				return err
			}
			ends = append(ends, id)
		}
		state, err = p.stored(tx, num, head.Current)
		return err
	}))
	var want []matrix.EventID
	for _, end := range rm.ends {
		want = append(want, end.ID)
	}
	if !slices.Equal(ends, want) || len(ends) > maxPrevEvents {
		p.Fatalf("the extremities of %s are %v, want %v", id, ends, want)
	}
	if !maps.Equal(state, rm.current) {
		p.Fatalf("the state of %s is %v, want %v", id, state, rm.current)
	}
	if _, ok := state[auth.Key{Type: "m.room.create"}]; !ok {
		p.Fatalf("the state of %s has no m.room.create", id)
	}
}

// stored is the state that a snapshot holds.
func (p *program) stored(tx *store.Tx, room store.RoomNum, snap store.SnapshotID) (modelState, error) {
	state := make(modelState)
	err := tx.WalkState(room, snap, store.StateAll, func(_ store.Slot, num store.EventNum) (bool, error) {
		id, err := tx.EventID(room, num)
		if err != nil {
			return false, err
		}
		ev := p.model.events[id]
		state[auth.Key{Type: ev.Type, StateKey: *ev.StateKey}] = id
		return true, nil
	})
	return state, err
}

// compare holds all that is stored to the model, and offers it again.
func (p *program) compare() {
	p.Helper()
	for _, s := range p.sites {
		rm := p.model.rooms[s.id]
		if rm == nil {
			continue
		}
		var shown []matrix.EventID
		var again []*matrix.Event
		for _, ev := range rm.events {
			p.compareEvent(ev)
			if ev.verdict == Accepted {
				shown = append(shown, ev.ID)
			}
			again = append(again, ev.Event)
		}
		var timeline []matrix.EventID
		for _, ev := range p.all(s.id) {
			timeline = append(timeline, ev.ID)
		}
		if !slices.Equal(timeline, shown) {
			p.Errorf("the timeline of %s is %v, want %v", s.id, timeline, shown)
		}
		verdicts, err := p.rooms.AcceptAll(context.Background(), again)
		if err != nil || slices.ContainsFunc(verdicts, func(v Verdict) bool { return v != Known }) {
			p.Errorf("the second time the verdicts are %d: %v", verdicts, err)
		}
	}
}

// compareEvent holds what is stored of an event to the model.
func (p *program) compareEvent(want *modelEvent) {
	p.Helper()
	ev := p.event(want.ID)
	if ev.Rejected != (want.verdict == Rejected) || ev.SoftFailed != (want.verdict == SoftFailed) || ev.Num.Aside() != (want.verdict != Accepted) {
		p.Errorf("%s is stored as %d, rejected %v, soft-failed %v; want verdict %d", ev.ID, ev.Num, ev.Rejected, ev.SoftFailed, want.verdict)
	}
	if !bytes.Equal(ev.JSON(), want.JSON()) {
		p.Errorf("%s is %s, want %s", ev.ID, ev.JSON(), want.JSON())
	}
	p.must(p.store.View(func(tx *store.Tx) error {
		before, err := p.stored(tx, ev.RoomNum, ev.Before)
		if err != nil {
			return err
		}
		after, err := p.stored(tx, ev.RoomNum, ev.After)
		if !maps.Equal(before, want.before) || !maps.Equal(after, want.after) {
			p.Errorf("the state around %s is %v and %v, want %v and %v", ev.ID, before, after, want.before, want.after)
		}
		return err
	}))
}
