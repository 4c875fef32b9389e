package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// A model is what the store should hold, in plain maps. A write works on a
// copy, as the store's does.
type model struct {
	rooms map[RoomNum]*modelRoom
}

type modelRoom struct {
	events     map[EventNum]modelEvent
	timeline   []EventNum // in order
	txns       map[TxnID]EventNum
	relations  map[matrix.EventID][]Relation
	pending    map[matrix.EventID]EventNum
	history    []EventNum // back-filled, newest first
	membership map[matrix.UserID]matrix.Membership
	changed    map[matrix.UserID]int // the order of membership changes
}

type modelEvent struct {
	id         matrix.EventID
	json       string
	redactedBy EventNum
}

func (m *model) clone() *model {
	c := &model{rooms: make(map[RoomNum]*modelRoom)}
	for num, r := range m.rooms {
		c.rooms[num] = &modelRoom{
			events: cloneMap(r.events), timeline: slices.Clone(r.timeline), txns: cloneMap(r.txns),
			relations: cloneMap(r.relations), pending: cloneMap(r.pending), history: slices.Clone(r.history),
			membership: cloneMap(r.membership), changed: cloneMap(r.changed),
		}
	}
	return c
}

func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	c := make(map[K]V, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

var modelUsers = []matrix.UserID{alice, bob, "@carol:hearth.test"}

// Random histories of writes, some of which fail, with the store closed and
// opened again between some: it always reads as the plain maps do.
func TestModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newModelHistory(t, seed)
			for range 60 {
				h.write(t)
				if h.random.IntN(12) == 0 {
					h.reopen(t)
				}
				if h.random.IntN(6) == 0 {
					h.compare(t)
				}
			}
			h.compare(t)
			checkStore(t, h.store)
			closeStore(t, h.store)
		})
	}
}

// A modelHistory writes the same into a store and a model.
type modelHistory struct {
	dir    string
	store  *Store
	model  *model
	rooms  []*testRoom
	random *rand.Rand
	step   int
}

func newModelHistory(t *testing.T, seed uint64) *modelHistory {
	h := &modelHistory{dir: t.TempDir(), model: &model{rooms: map[RoomNum]*modelRoom{}}, random: rand.New(rand.NewPCG(seed, 1))}
	h.store = openDir(t, h.dir)
	for i := range 3 {
		r := putTestRoom(t, h.store, matrix.Versions()[(int(seed)+i*4)%12].ID, modelUsers...)
		h.rooms = append(h.rooms, r)
		mr := &modelRoom{
			events: map[EventNum]modelEvent{}, txns: map[TxnID]EventNum{}, relations: map[matrix.EventID][]Relation{},
			pending: map[matrix.EventID]EventNum{}, membership: map[matrix.UserID]matrix.Membership{},
			changed: map[matrix.UserID]int{},
		}
		for j, user := range modelUsers {
			mr.membership[user], mr.changed[user] = matrix.Join, i*len(modelUsers)+j
		}
		h.step += len(modelUsers)
		view(t, h.store, func(tx *Tx) error {
			return tx.Timeline(r.num, 0, func(ev *StoredEvent) (bool, error) {
				mr.add(ev)
				return true, nil
			})
		})
		h.model.rooms[r.num] = mr
	}
	return h
}

func (r *modelRoom) add(ev *StoredEvent) {
	r.events[ev.Num] = modelEvent{id: ev.ID, json: string(ev.JSON())}
	if !ev.Num.Aside() {
		r.timeline = append(r.timeline, ev.Num)
	}
}

var errModel = errors.New("the write changes its mind")

// write makes some changes in one write, to the model only if it succeeds.
func (h *modelHistory) write(t *testing.T) {
	var after *model
	fails := h.random.IntN(5) == 0
	step := h.step
	err := h.store.Update(t.Context(), func(tx *Tx) error {
		after, h.step = h.model.clone(), step
		for range 1 + h.random.IntN(5) {
			r := h.rooms[h.random.IntN(len(h.rooms))]
			if err := h.change(tx, r, after.rooms[r.num]); err != nil {
				return err
			}
		}
		if fails {
			return errModel
		}
		return nil
	})
	switch {
	case err == nil:
		h.model = after
	case !fails || !errors.Is(err, errModel):
		t.Fatal(err)
	}
}

// change makes one random change to a room and to its model.
func (h *modelHistory) change(tx *Tx, r *testRoom, m *modelRoom) error {
	h.step++
	user := modelUsers[h.random.IntN(len(modelUsers))]
	some := m.timeline[h.random.IntN(len(m.timeline))]
	switch h.random.IntN(7) {
	case 0, 1:
		txn := TxnID{User: tx.UserNum(user), Device: "D", Endpoint: "send", ID: fmt.Sprint(h.step)}
		num, err := r.send(tx, user, fmt.Sprintf(`{"body":"%d"}`, h.step), txn)
		if err != nil {
			return err
		}
		m.txns[txn] = num
		return h.learn(tx, r, m, num)
	case 2:
		return h.aside(tx, r, m, user)
	case 3:
		m.redact(some, m.timeline[len(m.timeline)-1])
		return tx.Redact(r.num, some, m.timeline[len(m.timeline)-1])
	case 4:
		rel := Relation{Child: some, Sender: tx.UserNum(user), Type: "m.thread", Place: TimelinePlace(some.Position())}
		if len(m.history) > 0 && h.random.IntN(2) == 0 {
			i := h.random.IntN(len(m.history))
			rel.Child, rel.Place = m.history[i], m.historyPlace(i)
		}
		parent := m.events[m.timeline[h.random.IntN(4)]].id
		m.relate(parent, rel)
		return tx.PutRelation(r.num, parent, rel)
	case 5:
		target := matrix.EventID(fmt.Sprintf("$target%d", h.random.IntN(5)))
		if _, waits := m.pending[target]; waits && h.random.IntN(2) == 0 {
			delete(m.pending, target)
			return tx.DeletePendingRedaction(r.num, target)
		} else if !waits {
			m.pending[target] = some
		}
		return tx.PutPendingRedaction(r.num, target, some)
	default:
		membership := []matrix.Membership{matrix.Join, matrix.Leave, matrix.Invite}[h.random.IntN(3)]
		num, err := r.member(tx, user, membership)
		if err != nil {
			return err
		}
		m.membership[user], m.changed[user] = membership, h.step
		return h.learn(tx, r, m, num)
	}
}

// learn takes over from the store the event that it has just been given.
func (h *modelHistory) learn(tx *Tx, r *testRoom, m *modelRoom, num EventNum) error {
	ev, err := tx.Event(r.num, num)
	if err == nil {
		m.add(ev)
	}
	return err
}

// aside stores an event of another server's history.
func (h *modelHistory) aside(tx *Tx, r *testRoom, m *modelRoom, user matrix.UserID) error {
	head, err := tx.Head(r.num)
	if err != nil {
		return err
	}
	draft := matrix.Draft{Sender: user, Type: "m.room.message", Content: jsontext.Value(fmt.Sprintf(`{"body":"%d"}`, h.step))}
	ev, err := r.build(tx, head, draft)
	if err != nil {
		return err
	}
	num, err := tx.NextEventNum(true)
	if err != nil {
		return err
	}
	if err := tx.PutEvent(r.num, num, NewEvent{Event: ev, Before: head.Current}); err != nil {
		return err
	}
	m.history = append(m.history, num)
	if err := tx.PutHistory(r.num, m.historyPlace(len(m.history)-1)); err != nil {
		return err
	}
	return h.learn(tx, r, m, num)
}

// historyPlace is where a back-filled event stands: they come newest first.
func (r *modelRoom) historyPlace(i int) Place {
	return Place{r.timeline[0].Position(), -int64(i) - 1, r.history[i]}
}

func (r *modelRoom) redact(target, by EventNum) {
	if ev := r.events[target]; ev.redactedBy == 0 {
		ev.redactedBy = by
		r.events[target] = ev
	}
}

func (r *modelRoom) relate(parent matrix.EventID, rel Relation) {
	others := slices.DeleteFunc(slices.Clone(r.relations[parent]), func(old Relation) bool { return old.Child == rel.Child })
	others = append(others, rel)
	slices.SortFunc(others, func(a, b Relation) int { return a.Place.Compare(b.Place) })
	r.relations[parent] = others
}

func (h *modelHistory) reopen(t *testing.T) {
	checkStore(t, h.store)
	closeStore(t, h.store)
	h.store = openDir(t, h.dir)
}

// compare reads all of every room from the store.
func (h *modelHistory) compare(t *testing.T) {
	t.Helper()
	view(t, h.store, func(tx *Tx) error {
		for _, r := range h.rooms {
			h.model.rooms[r.num].compare(t, tx, r.num)
		}
		for _, user := range modelUsers {
			h.compareUser(t, tx, user)
		}
		return nil
	})
}

func (r *modelRoom) compare(t *testing.T, tx *Tx, room RoomNum) {
	t.Helper()
	if got := timeline(t, tx, room, 0); !slices.Equal(got, r.timeline) {
		t.Errorf("timeline %d, want %d", got, r.timeline)
	}
	for num, want := range r.events {
		ev, err := tx.Event(room, num)
		if err != nil {
			t.Error(err)
			continue
		}
		if ev.ID != want.id || ev.RedactedBy != want.redactedBy || want.redactedBy == 0 && string(ev.JSON()) != want.json {
			t.Errorf("event %d: %s redacted by %d: %s; want %+v", num, ev.ID, ev.RedactedBy, ev.JSON(), want)
		}
	}
	for txn, want := range r.txns {
		if num, ok, err := tx.TxnEvent(room, txn); num != want || !ok || err != nil {
			t.Errorf("transaction %+v: %d %t %v, want %d", txn, num, ok, err, want)
		}
	}
	for parent, want := range r.relations {
		var forth, back []Relation
		collect := func(to *[]Relation) func(Relation) (bool, error) {
			return func(rel Relation) (bool, error) {
				*to = append(*to, rel)
				return true, nil
			}
		}
		err := errors.Join(tx.Relations(room, parent, Place{}, collect(&forth)), tx.RelationsBack(room, parent, Place{}, collect(&back)))
		slices.Reverse(back)
		if err != nil || !slices.Equal(forth, want) || !slices.Equal(back, want) {
			t.Errorf("relations of %s: %v and %v, want %v: %v", parent, forth, back, want, err)
		}
	}
	for i := range 5 {
		target := matrix.EventID(fmt.Sprintf("$target%d", i))
		want, waits := r.pending[target]
		if by, ok, err := tx.PendingRedaction(room, target); by != want || ok != waits || err != nil {
			t.Errorf("pending redaction of %s: %d %t %v, want %d %t", target, by, ok, err, want, waits)
		}
	}
	r.compareHistory(t, tx, room)
}

func (r *modelRoom) compareHistory(t *testing.T, tx *Tx, room RoomNum) {
	t.Helper()
	for from := range r.history {
		var back, forth []EventNum
		begin, ok, err := tx.PlaceOf(room, r.history[from])
		if !ok || err != nil || !begin.BackFilled() {
			t.Errorf("place %v of event %d: %t, %v", begin, r.history[from], ok, err)
		}
		above := begin
		above.Num++
		err = tx.PastBack(room, above, func(_ Place, ev *StoredEvent) (bool, error) {
			back = append(back, ev.Num)
			return true, nil
		})
		if err != nil || !slices.Equal(back, r.history[from:]) {
			t.Errorf("history back from %d: %d, want %d: %v", from, back, r.history[from:], err)
		}
		err = tx.Past(room, begin, func(place Place, ev *StoredEvent) (bool, error) {
			if !place.BackFilled() {
				return false, nil // the first of the timeline
			}
			forth = append(forth, ev.Num)
			return true, nil
		})
		slices.Reverse(forth)
		if err != nil || !slices.Equal(forth, r.history[:from+1]) {
			t.Errorf("history from %d: %d, want %d: %v", from, forth, r.history[:from+1], err)
		}
	}
}

// compareUser reads a user's memberships, from both sides and by time.
func (h *modelHistory) compareUser(t *testing.T, tx *Tx, id matrix.UserID) {
	t.Helper()
	user := tx.UserNum(id)
	var rooms []RoomNum
	err := tx.LocalMemberships(user, func(m LocalMembership) (bool, error) {
		rooms = append(rooms, m.Room)
		if want := h.model.rooms[m.Room].membership[id]; m.Membership != want {
			t.Errorf("%s is %q in room %d, want %q", id, m.Membership, m.Room, want)
		}
		return true, tx.LocalMembers(m.Room, func(member UserNum, is matrix.Membership) (bool, error) {
			if want := h.model.rooms[m.Room].membership[tx.UserID(member)]; is != want {
				t.Errorf("room %d has user %d as %q, want %q", m.Room, member, is, want)
			}
			return true, nil
		})
	})
	if err != nil || len(rooms) != len(h.rooms) {
		t.Errorf("%s has memberships in %d: %v", id, rooms, err)
	}
	slices.SortFunc(rooms, func(a, b RoomNum) int { return h.model.rooms[a].changed[id] - h.model.rooms[b].changed[id] })
	var positions []Position
	for from := range rooms {
		after := Position(0)
		if from > 0 {
			after = positions[from-1]
		}
		var since []RoomNum
		err := tx.LocalMembershipsSince(user, after, func(m LocalMembership) (bool, error) {
			since = append(since, m.Room)
			if from == 0 {
				positions = append(positions, m.Position)
			}
			return true, nil
		})
		if err != nil || !slices.Equal(since, rooms[from:]) {
			t.Errorf("%s has changes since %d in %d, want %d: %v", id, after, since, rooms[from:], err)
		}
	}
}
