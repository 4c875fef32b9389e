package state

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// ErrJoinOver is wrapped where a join has ended by other means while its room was
// being brought here.
var ErrJoinOver = errors.New("the join is over")

// An Import brings a room here whose state another server has given as the answer to
// a join: first its events, as outliers, each behind what it cites (Put); then the
// state that they make, and the join (Finish). Until that last write nobody finds the
// room, or finds it as it was when we left it. Events that are here already, from
// an import that was cut short or from when we were in the room before, are taken as
// they are. An Import is used by one goroutine.
type Import struct {
	rooms   *Rooms
	num     store.RoomNum
	id      matrix.RoomID
	serial  store.Position // of the join that it belongs to
	version *matrix.Version
	cache   eventCache
	given   []givenEvent // of the state
	create  matrix.EventID
}

// givenEvent is an event of the state that was given.
type givenEvent struct {
	slot   store.Slot
	num    store.EventNum
	server store.ServerNum // of a joined member of another server
	member givenMember
}

// givenMember says what a member event makes of its user.
type givenMember uint8

const (
	otherMember   givenMember = iota // nothing that is counted
	joinedMember                     // of whatever server
	invitedMember                    // of whatever server
	localMember   givenMember = 1 << 7
)

// ImportedEvent is an event of the answer to a join, and whether the state has it.
type ImportedEvent struct {
	*matrix.Event
	State bool
}

// Import begins to bring a room here for a join that stands in the store.
func (r *Rooms) Import(join store.RoomJoin, room matrix.RoomID) *Import {
	return &Import{rooms: r, num: join.Room, id: room, serial: join.Serial, version: join.Version}
}

// Known says which of some events are here already, and checked: their signatures need
// not be checked again.
func (im *Import) Known(events []ImportedEvent) ([]bool, error) {
	known := make([]bool, len(events))
	err := im.rooms.store.View(func(tx *store.Tx) error {
		for i, ev := range events {
			place, here, err := tx.EventPlace(ev.ID)
			if err != nil {
				return err
			}
			known[i] = here && !place.Unchecked
		}
		return nil
	})
	return known, err
}

// maxImported is how many events one write brings here: more than others take, for
// each write of a commit touches most of the pages that lead from IDs to events.
const maxImported = 512

// maxImportHold is after how long such a write takes no further event: others wait.
const maxImportHold = 100 * time.Millisecond

// Put stores events whose form, hashes and signatures are checked, in an order in
// which each comes behind what it cites. An event that breaks the rules, by what it
// cites or since that is not here, is left out: refused has the reasons, at the
// events' places. Any other error decides nothing.
func (im *Import) Put(ctx context.Context, events []ImportedEvent) (refused []error, err error) {
	for len(refused) < len(events) && err == nil {
		var some []error
		some, err = im.putSome(ctx, events[len(refused):])
		refused = append(refused, some...)
	}
	return refused, err
}

// putSome stores the first of some events in one write.
func (im *Import) putSome(ctx context.Context, events []ImportedEvent) (refused []error, err error) {
	defer im.rooms.locks.own(im.id)()
	begun := len(im.given)
	err = im.rooms.store.Update(ctx, func(tx *store.Tx) error {
		im.given, refused = im.given[:begun], nil
		im.cache.clear() // of a write that failed
		if err := im.mayGoOn(tx); err != nil {
			return err
		}
		began := time.Now()
		for _, ev := range events[:min(len(events), maxImported)] {
			if len(refused) > 0 && time.Since(began) > maxImportHold {
				return nil
			}
			refusal, err := im.put(tx, ev)
			if err != nil {
				return fmt.Errorf("import %s: %w", ev.ID, err)
			}
			refused = append(refused, refusal)
		}
		return nil
	})
	if err != nil {
		im.given = im.given[:begun]
		return nil, err
	}
	return refused, nil
}

// mayGoOn finds the join that the import belongs to.
func (im *Import) mayGoOn(tx *store.Tx) error {
	join, err := tx.Join(im.num)
	if errors.Is(err, store.ErrNotFound) || err == nil && join.Serial != im.serial {
		return fmt.Errorf("import %s: %w", im.id, ErrJoinOver)
	}
	return err
}

// put stores one event, or says why not.
func (im *Import) put(tx *store.Tx, ev ImportedEvent) (refusal, err error) {
	if ev.Room != im.id || !ev.IsState() {
		return fmt.Errorf("%s is no state event of the room: %w", ev.ID, ErrGivenState), nil
	}
	place, here, err := tx.EventPlace(ev.ID)
	if err != nil {
		return nil, err
	}
	if here && place.Unchecked && place.Room == im.num {
		if err := tx.SetChecked(ev.Event); err != nil {
			return nil, err
		}
		if place, _, err = tx.EventPlace(ev.ID); err != nil {
			return nil, err
		}
	}
	if here {
		if place.Room != im.num || place.Rejected || !place.HasSlot {
			return fmt.Errorf("%s is here, and no part of any state: %w", ev.ID, ErrGivenState), nil
		}
		return nil, im.give(tx, ev, place.Slot, place.StateNum)
	}
	if refusal, err = im.judge(tx, ev.Event); refusal != nil || err != nil {
		return refusal, err
	}
	num, err := tx.NextEventNum(true)
	if err != nil {
		return nil, err
	}
	slot, err := tx.PutSlot(im.num, ev.Type, *ev.StateKey)
	if err != nil {
		return nil, err
	}
	if err := tx.PutEvent(im.num, num, store.NewEvent{Event: ev.Event, Slot: slot, HasSlot: true, Outlier: true}); err != nil {
		return nil, err
	}
	rm := &room{rooms: im.rooms, tx: tx, num: im.num, id: im.id, head: store.Head{Version: im.version}}
	if err := rm.redactLate(ev.Event, num); err != nil {
		return nil, err
	}
	return nil, im.give(tx, ev, slot, num)
}

// judge holds an event to what it cites. refusal says why it breaks the rules.
func (im *Import) judge(tx *store.Tx, ev *matrix.Event) (refusal, err error) {
	if ev.Is("m.room.create", "") {
		return im.judgeCreate(tx, ev)
	}
	a := acceptance{rooms: im.rooms, ev: ev, cache: &im.cache, num: im.num, head: store.Head{Version: im.version}}
	cited, lacking, err := a.cited(tx)
	if err != nil {
		return nil, err
	}
	if len(lacking) > 0 {
		return &MissingError{Event: ev.ID, Events: lacking, cited: len(lacking)}, nil
	}
	verdict, err := cited.judge(ev)
	if verdict == Rejected {
		return fmt.Errorf("%s breaks the rules by what it cites: %w", ev.ID, ErrGivenState), nil
	}
	return nil, err
}

// judgeCreate holds an event to what the first of a room must be. A room has one.
func (im *Import) judgeCreate(tx *store.Tx, ev *matrix.Event) (refusal, err error) {
	first := im.create
	head, err := tx.Head(im.num)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, err
	default:
		create, err := EventAt(tx, im.num, head.Current, "m.room.create", "")
		if err != nil {
			return nil, err
		}
		if create != nil {
			first = create.ID
		}
	}
	switch {
	case first != "" && first != ev.ID:
		return fmt.Errorf("%s is a second m.room.create: %w", ev.ID, ErrGivenState), nil
	case citesToBegin(ev):
		return fmt.Errorf("m.room.create cites events: %w", ErrGivenState), nil
	}
	im.create = ev.ID
	return checkCreation(ev), nil
}

// give notes an event that is here now, if the state has it.
func (im *Import) give(tx *store.Tx, ev ImportedEvent, slot store.Slot, num store.EventNum) error {
	if !ev.State {
		return nil
	}
	g := givenEvent{slot: slot, num: num}
	if slot.Member() {
		if err := im.giveMember(tx, ev.Event, &g); err != nil {
			return err
		}
	}
	im.given = append(im.given, g)
	return nil
}

func (im *Import) giveMember(tx *store.Tx, ev *matrix.Event, g *givenEvent) error {
	user, err := matrix.ParseUserID(*ev.StateKey)
	if err != nil {
		return nil // no membership of anybody
	}
	member, err := ev.Member()
	if err != nil {
		return nil // no membership, nothing to count
	}
	switch member.Membership {
	case matrix.Join:
		g.member = joinedMember
	case matrix.Invite:
		g.member = invitedMember
	}
	if im.rooms.isLocal(user) {
		g.member |= localMember
		return nil
	}
	if g.member == joinedMember {
		g.server, err = tx.PutServerNum(user.Server())
	}
	return err
}
