package state

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/state/resolve"
)

// acceptModel is acceptance told again without a store: rooms with all events and
// whole states in memory, every fork resolved from whole states. Only the rules and
// the algorithms of state resolution are those of the packages that it tests the
// use of.
type acceptModel struct {
	rooms  map[matrix.RoomID]*modelRoom
	events map[matrix.EventID]*modelEvent
}

func newAcceptModel() *acceptModel {
	return &acceptModel{rooms: make(map[matrix.RoomID]*modelRoom), events: make(map[matrix.EventID]*modelEvent)}
}

type modelState map[auth.Key]matrix.EventID

type modelRoom struct {
	version *matrix.Version
	events  []*modelEvent // as they came
	ends    []*modelEvent // the forward extremities, as they came
	current modelState
	waiting map[matrix.EventID]*modelEvent // redactions by their targets, which are not here

	// scarred says that the room's past may resolve otherwise now: a redaction took
	// content from an event, or extremities were given up for their number.
	scarred bool
}

type modelEvent struct {
	*matrix.Event
	verdict Verdict
	place   int // in the room's events
	before  modelState
	after   modelState // the room's current state when the event became part of it
	chain   eventSet   // the places of all that it cites, directly or not
}

// eventSet is a set of places; a model's room holds no more events than its bits.
type eventSet [4]uint64

const maxModelEvents = 256

func (s *eventSet) add(place int)      { s[place/64] |= 1 << (place % 64) }
func (s *eventSet) has(place int) bool { return s[place/64]&(1<<(place%64)) != 0 }

func (s *eventSet) join(other eventSet) {
	for i, bits := range other {
		s[i] |= bits
	}
}

// behind is the state behind an event on its own branch.
func (ev *modelEvent) behind() modelState {
	if ev.verdict == Rejected || !ev.IsState() {
		return ev.before
	}
	return ev.before.with(ev.Event)
}

func (s modelState) with(ev *matrix.Event) modelState {
	after := maps.Clone(s)
	if after == nil {
		after = make(modelState)
	}
	after[auth.Key{Type: ev.Type, StateKey: *ev.StateKey}] = ev.ID
	return after
}

// accept is [Rooms.Accept].
func (m *acceptModel) accept(ev *matrix.Event) (Verdict, error) {
	known := m.events[ev.ID] != nil
	rm := m.rooms[ev.Room]
	switch {
	case ev.Is("m.room.create", ""):
		return m.begin(ev, known)
	case known:
		return Known, nil
	case rm == nil:
		return 0, ErrUnknownRoom
	}
	var missing []matrix.EventID
	for _, id := range slices.Concat(ev.AuthEvents, ev.PrevEvents) {
		if m.events[id] == nil {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return 0, &MissingError{Event: ev.ID, Events: missing}
	}
	own, err := m.place(rm, ev)
	if err != nil {
		return 0, err
	}
	if own.verdict, err = m.judge(rm, own); err != nil {
		return 0, err
	}
	if own.verdict == Accepted {
		err = m.take(rm, own)
	}
	return own.verdict, err
}

func (m *acceptModel) begin(ev *matrix.Event, known bool) (Verdict, error) {
	switch {
	case len(ev.AuthEvents) > 0 || auth.Check(ev, modelState{}.read(m)) != nil:
		return Rejected, nil
	case known:
		return Known, nil
	case m.rooms[ev.Room] != nil:
		return Rejected, nil
	}
	rm := &modelRoom{version: ev.Version, waiting: make(map[matrix.EventID]*modelEvent)}
	m.rooms[ev.Room] = rm
	own, err := m.place(rm, ev)
	if err != nil {
		return 0, err
	}
	own.verdict = Accepted
	return Accepted, m.take(rm, own)
}

// place puts an event among those of its room, with the state before it.
func (m *acceptModel) place(rm *modelRoom, ev *matrix.Event) (*modelEvent, error) {
	own := &modelEvent{Event: ev, place: len(rm.events)}
	for _, id := range ev.AuthEvents {
		if cited := m.events[id]; cited.Room == ev.Room {
			own.chain.add(cited.place)
			own.chain.join(cited.chain)
		}
	}
	rm.events = append(rm.events, own)
	m.events[ev.ID] = own
	var err error
	own.before, err = m.before(rm, ev)
	return own, err
}

// before is the state before an event.
func (m *acceptModel) before(rm *modelRoom, ev *matrix.Event) (modelState, error) {
	prev := rm.named(m, ev.PrevEvents)
	var states []modelState
	for _, p := range prev {
		states = append(states, p.behind())
	}
	before, err := m.resolve(rm, states)
	if err != nil || len(prev) != len(rm.ends) || slices.ContainsFunc(prev, func(p *modelEvent) bool { return !slices.Contains(rm.ends, p) }) {
		return before, err
	}
	if !rm.scarred && !maps.Equal(before, rm.current) {
		return nil, fmt.Errorf("the room's state %v is not that behind its extremities, %v", rm.current, before)
	}
	return rm.current, nil
}

// named returns the events of the room with the given IDs, each once.
func (rm *modelRoom) named(m *acceptModel, ids []matrix.EventID) (list []*modelEvent) {
	for _, id := range ids {
		ev := m.events[id]
		if ev.place < len(rm.events) && rm.events[ev.place] == ev && !slices.Contains(list, ev) {
			list = append(list, ev)
		}
	}
	return list
}

func (m *acceptModel) judge(rm *modelRoom, own *modelEvent) (Verdict, error) {
	if own.Type == "m.room.create" && len(own.AuthEvents) > 0 {
		return Rejected, nil // SS Auth events selection: it has none
	}
	for _, id := range own.PrevEvents {
		if m.events[id].Room != own.Room {
			return Rejected, nil
		}
	}
	var cited []*matrix.Event
	for _, id := range own.AuthEvents {
		cited = append(cited, m.events[id].Event)
	}
	if own.Version.RoomIDIsHash {
		cited = append(cited, rm.events[0].Event)
	}
	rejected := func(id matrix.EventID) bool { return m.events[id].verdict == Rejected }
	var refused *auth.Error
	for _, check := range []struct {
		fails func() error
		means Verdict
	}{
		{func() error { return auth.CheckAuthEvents(own.Event, cited, rejected) }, Rejected},
		{func() error { return auth.Check(own.Event, own.before.read(m)) }, Rejected},
		{func() error { return auth.Check(own.Event, rm.current.read(m)) }, SoftFailed},
	} {
		switch err := check.fails(); {
		case errors.As(err, &refused):
			return check.means, nil
		case err != nil:
			return 0, err
		}
	}
	return Accepted, nil
}

// read is a state as the rules ask for it.
func (s modelState) read(m *acceptModel) auth.State {
	return func(typ, key string) (*matrix.Event, error) {
		if id, ok := s[auth.Key{Type: typ, StateKey: key}]; ok {
			return m.events[id].Event, nil
		}
		return nil, nil
	}
}

// take makes an event part of its room.
func (m *acceptModel) take(rm *modelRoom, own *modelEvent) error {
	states := []modelState{own.behind()}
	ends := slices.DeleteFunc(slices.Clone(rm.ends), func(end *modelEvent) bool { return slices.Contains(own.PrevEvents, end.ID) })
	if most := maxPrevEvents - 1; len(ends) > most {
		ends = ends[len(ends)-most:]
		states = append(states, rm.current)
		rm.scarred = true
	}
	for _, end := range ends {
		states = append(states, end.behind())
	}
	var err error
	if rm.current, err = m.resolve(rm, states); err != nil {
		return err
	}
	own.after, rm.ends = rm.current, append(ends, own)
	return m.redactions(rm, own)
}

// redactions applies an event to what it redacts, and what waits for it to it.
func (m *acceptModel) redactions(rm *modelRoom, own *modelEvent) error {
	if own.Type == "m.room.redaction" && own.Redacts != "" {
		target := m.events[own.Redacts]
		if target == nil {
			if rm.waiting[own.Redacts] == nil {
				rm.waiting[own.Redacts] = own
			}
		} else if err := m.redact(rm, own, target); err != nil {
			return err
		}
	}
	by := rm.waiting[own.ID]
	if by == nil {
		return nil
	}
	delete(rm.waiting, own.ID)
	return m.redact(rm, by, own)
}

func (m *acceptModel) redact(rm *modelRoom, by, target *modelEvent) error {
	may, err := auth.MayRedact(by.Event, target.Event, rm.current.read(m))
	if err != nil || !may {
		return err
	}
	rm.scarred = true
	target.Event, err = target.RedactedCopy()
	return err
}

// resolve makes one state of several.
func (m *acceptModel) resolve(rm *modelRoom, states []modelState) (modelState, error) {
	if len(states) == 0 {
		return nil, nil
	}
	unconflicted, conflicted := maps.Clone(states[0]), make(map[auth.Key][]matrix.EventID)
	for _, one := range states {
		for key := range one {
			for _, other := range states {
				if id, ok := other[key]; !ok || id != one[key] {
					if !slices.Contains(conflicted[key], one[key]) {
						conflicted[key] = append(conflicted[key], one[key])
					}
					delete(unconflicted, key)
				}
			}
		}
	}
	if len(conflicted) == 0 {
		return states[0], nil
	}
	resolved, err := resolve.Resolve(resolve.Input{
		Version: rm.version, Conflicted: conflicted,
		Unconflicted: func(key auth.Key) (matrix.EventID, error) { return unconflicted[key], nil },
		Event:        func(id matrix.EventID) (*matrix.Event, error) { return m.events[id].Event, nil },
		Rejected:     func(id matrix.EventID) (bool, error) { return m.events[id].verdict == Rejected, nil },
		AuthDifference: func() (ids []matrix.EventID, err error) {
			return m.difference(rm, states), nil
		},
		Subgraph: func(ends []matrix.EventID) ([]matrix.EventID, error) { return m.subgraph(rm, ends), nil },
	})
	if err != nil {
		return nil, err
	}
	if unconflicted == nil {
		unconflicted = make(modelState)
	}
	maps.Copy(unconflicted, resolved)
	return unconflicted, nil
}

// difference is what is in the auth chains of some states and not of all.
func (m *acceptModel) difference(rm *modelRoom, states []modelState) (ids []matrix.EventID) {
	var chains []eventSet
	for _, state := range states {
		var chain eventSet
		for _, id := range state {
			chain.join(m.events[id].chain)
		}
		chains = append(chains, chain)
	}
	for _, ev := range rm.events {
		has := func(chain eventSet) bool { return chain.has(ev.place) }
		if slices.ContainsFunc(chains, has) && slices.ContainsFunc(chains, func(chain eventSet) bool { return !has(chain) }) {
			ids = append(ids, ev.ID)
		}
	}
	return ids
}

// subgraph is what is on paths between the ends, with them.
func (m *acceptModel) subgraph(rm *modelRoom, ends []matrix.EventID) (ids []matrix.EventID) {
	var are, below eventSet
	for _, id := range ends {
		are.add(m.events[id].place)
		below.join(m.events[id].chain)
	}
	for _, ev := range rm.events {
		leads := slices.ContainsFunc(ends, func(id matrix.EventID) bool { return ev.chain.has(m.events[id].place) })
		if are.has(ev.place) || below.has(ev.place) && leads {
			ids = append(ids, ev.ID)
		}
	}
	return ids
}
