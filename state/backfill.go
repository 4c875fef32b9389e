package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// ErrNoPlace is wrapped where history shall be put before an event that has no place in
// the room's past itself.
var ErrNoPlace = errors.New("the event has no place in the room's past")

// Bounds of one call of Backfill.
const (
	maxBackfill       = 256 // events that it takes in
	maxBackfillStates = 4   // states that it asks for
)

// HasGap says whether an event stands on what has no place here: then more of
// the room's past may be had by asking for what comes before it.
func HasGap(tx *store.Tx, ev *store.StoredEvent) (bool, error) {
	for _, id := range ev.PrevEvents {
		place, here, err := tx.EventPlace(id)
		if err != nil || !here || place.Outlier {
			return true, err
		}
	}
	return false, nil
}

// Backfill takes in, as history, what another server gave as the events that one of
// ours stands on. Those of events that it does not stand on are left out: see
// [Rooms.Recall] for such. What it stands on and what is cited must be here or among
// them, or is fetched from the source: what is cited as outliers, and for the oldest
// the state before them, unless the events tell it themselves.
//
// They become part of the room's past, where users see them as the state before them
// allows, and not of its present: they are no extremities, and no news to anybody.
// Each is held to what it cites and to the state before it; one that breaks the rules
// keeps its place, but nobody sees it there. It returns how many events were accepted. An
// error tells of the first that could not be taken; what could be stays.
//
// Spec: SS Backfilling and retrieving missing events; Checks performed on receipt of
// a PDU, steps 4 and 5.
func (r *Rooms) Backfill(ctx context.Context, at matrix.EventID, events []*matrix.Event, from Source) (taken int, err error) {
	b := r.backfill(from)
	if err := b.begin(at); err != nil {
		return 0, fmt.Errorf("backfill before %s: %w", at, err)
	}
	pool := make(map[matrix.EventID]*matrix.Event)
	for _, ev := range events[:min(len(events), maxBackfill)] {
		if ev.Room == b.at.Room && ev.ID != at {
			pool[ev.ID] = ev
		}
	}
	if b.list, _, err = b.order(b.at.Event, pool); err == nil {
		b.rise()
		err = b.take(ctx)
	}
	if err != nil {
		return b.taken, fmt.Errorf("backfill before %s: %w", at, err)
	}
	return b.taken, nil
}

// Recall takes in one event as history that stands somewhere before an event of ours,
// with a gap in between, and with the state before it from the source. That it stands
// there is the other server's word alone, which is not taken for who is banned now:
// the event may have been made since, beside the ban.
func (r *Rooms) Recall(ctx context.Context, before matrix.EventID, ev *matrix.Event, from Source) error {
	b := r.backfill(from)
	if err := b.begin(before); err != nil {
		return fmt.Errorf("recall %s: %w", ev.ID, err)
	}
	if ev.Room != b.at.Room {
		return fmt.Errorf("recall %s: it is of the room %s: %w", ev.ID, ev.Room, ErrNoPlace)
	}
	if banned, err := b.banned(ev.Sender); banned || err != nil {
		return errors.Join(err, fmt.Errorf("recall %s: its sender is banned: %w", ev.ID, ErrNoPlace))
	}
	b.list = []*matrix.Event{ev}
	b.heights[ev.ID] = min(ev.Depth, b.place.Height-1)
	if err := b.take(ctx); err != nil {
		return fmt.Errorf("recall %s: %w", ev.ID, err)
	}
	return nil
}

// banned says whether a user is banned from the room now.
func (b *backfilling) banned(user matrix.UserID) (banned bool, err error) {
	err = b.rooms.store.View(func(tx *store.Tx) error {
		ev, err := Current(tx, b.at.Room, "m.room.member", string(user))
		if ev == nil || err != nil {
			return err
		}
		member, err := ev.Member()
		banned = err == nil && member.Membership == matrix.Ban
		return nil
	})
	return banned, err
}

// A backfilling is one call of Backfill.
type backfilling struct {
	*gathering
	at      *store.StoredEvent // what the events come before
	place   store.Place
	first   store.EventNum
	version *matrix.Version
	list    []*matrix.Event          // the oldest first
	heights map[matrix.EventID]int64 // where they go
	states  int                      // how many may still be asked for
	taken   int
}

func (r *Rooms) backfill(from Source) *backfilling {
	g := &gathering{rooms: r, from: from, asked: make(map[matrix.EventID]bool), left: maxFetched, rounds: maxRounds}
	return &backfilling{gathering: g, heights: make(map[matrix.EventID]int64), states: maxBackfillStates}
}

// begin finds the event that the others come before.
func (b *backfilling) begin(at matrix.EventID) error {
	return b.rooms.store.View(func(tx *store.Tx) error {
		room, num, here := tx.EventByID(at)
		if !here {
			return refuse(ErrUnknownEvent, "There is no event %s", at)
		}
		head, err := tx.Head(room)
		if err != nil {
			return err
		}
		if b.at, err = tx.Event(room, num); err != nil {
			return err
		}
		b.first, b.version = head.First, head.Version
		var ok bool
		if b.place, ok, err = tx.PlaceOf(room, num); err == nil && !ok {
			err = ErrNoPlace
		}
		return err
	})
}

// rise gives the events their heights: that of their depth, but below each event of the
// list that stands on them, whatever depths their servers wrote.
func (b *backfilling) rise() {
	below := make(map[matrix.EventID]int64)
	under := func(ev *matrix.Event, height int64) {
		for _, id := range ev.PrevEvents {
			if was, ok := below[id]; !ok || height < was {
				below[id] = height
			}
		}
	}
	under(b.at.Event, b.place.Height)
	for _, ev := range slices.Backward(b.list) {
		height := ev.Depth
		if limit, ok := below[ev.ID]; ok && limit > math.MinInt64 {
			height = min(height, limit-1)
		}
		b.heights[ev.ID] = height
		under(ev, height)
	}
}

// take takes the events of the list, in steps between which nothing is held. One that
// cannot be taken is left out, and the next one is taken with the state before it.
func (b *backfilling) take(ctx context.Context) (failure error) {
	if err := b.fetchCited(ctx); err != nil {
		return err
	}
	for len(b.list) > 0 {
		done, err := b.takeSome(ctx, nil)
		if b.list = b.list[done:]; err == nil {
			continue
		}
		if resolvable(err) {
			err = b.takeOn(ctx, err)
		}
		if err != nil && !resolvable(err) {
			return err
		}
		failure = cmp.Or(failure, err)
		b.list = b.list[1:]
	}
	return failure
}

// takeOn takes the first event of the list with the state before it. why is how it
// failed without.
func (b *backfilling) takeOn(ctx context.Context, why error) error {
	if cited, _ := lacking(why); len(cited) > 0 {
		return why
	}
	state, err := b.below(ctx)
	if err != nil {
		return failed(b.list[0], why, err)
	}
	_, err = b.takeSome(ctx, state)
	return err
}

// fetchCited fetches what the events cite and what is neither here nor among them.
func (b *backfilling) fetchCited(ctx context.Context) error {
	among := make(map[matrix.EventID]bool, len(b.list))
	for _, ev := range b.list {
		among[ev.ID] = true
	}
	var absent []matrix.EventID
	err := b.rooms.store.View(func(tx *store.Tx) error {
		for _, ev := range b.list {
			for _, id := range ev.AuthEvents {
				if _, _, here := tx.EventByID(id); !here && !among[id] {
					among[id] = true
					absent = append(absent, id)
				}
			}
		}
		return nil
	})
	if err != nil || len(absent) == 0 {
		return err
	}
	// What nobody has makes the event that cites it fail, and no other.
	if err := b.fetchAside(ctx, b.at.Room, absent); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// below returns the state before the first event of the list: as the events tell it
// where they stand in a row right before one whose state is known, else as the source
// does.
func (b *backfilling) below(ctx context.Context) (*givenState, error) {
	state, err := b.told()
	if state != nil || err != nil {
		return state, err
	}
	if b.states--; b.states < 0 {
		return nil, fmt.Errorf("more than %d states: %w", maxBackfillStates, ErrTooMuchMissing)
	}
	return b.stateBefore(ctx, b.list[0])
}

// takeSome takes the first events of the list in one write; with a state before it,
// the first alone. It says how many came to have a place here, whatever the verdict.
func (b *backfilling) takeSome(ctx context.Context, given *givenState) (done int, err error) {
	r := b.rooms
	defer r.locks.own(b.at.Room)()
	recall := func(ev *matrix.Event, tx *store.Tx, cache *eventCache) error {
		a := acceptance{rooms: r, ctx: ctx, ev: ev, given: given, tx: tx, cache: cache}
		verdict, err := a.recall(b)
		if err != nil {
			return fmt.Errorf("accept %s: %w", ev.ID, err)
		}
		if verdict == Accepted {
			b.taken++
		}
		return nil
	}
	if given != nil {
		if err := recall(b.list[0], nil, new(eventCache)); err != nil {
			return 0, err
		}
		return 1, nil
	}
	var failed error
	taken := b.taken
	err = r.store.Update(ctx, func(tx *store.Tx) error {
		done, failed, b.taken = 0, nil, taken
		began, cache := time.Now(), new(eventCache)
		for _, ev := range b.list[:min(len(b.list), maxTogether)] {
			if done > 0 && (tx.Full() || time.Since(began) > maxHold) {
				return nil
			}
			if failed = recall(ev, tx, cache); failed != nil {
				if !resolvable(failed) {
					return failed // something may be half written
				}
				return nil
			}
			done++
		}
		return nil
	})
	if err != nil {
		b.taken = taken
		return 0, err
	}
	return done, failed
}

// recall takes the event as history.
func (a *acceptance) recall(b *backfilling) (Verdict, error) {
	if a.ev.Is("m.room.create", "") {
		return a.recallCreate(b)
	}
	verdict, err := a.look()
	if verdict == Known || err != nil {
		return verdict, err
	}
	if a.head.First != b.first {
		return 0, errBegunAnew
	}
	before, err := a.before()
	if err != nil {
		return 0, err
	}
	if verdict == 0 { // what is history now was held to a current state by others
		if verdict, err = a.judge(before, before); err != nil {
			return 0, err
		}
	}
	if verdict == Rejected && a.outlier.Outlier && !a.outlier.Rejected {
		verdict = SoftFailed // states may hold it: see run
	}
	return verdict, a.putHistory(b.placeOf(a.ev), before, verdict)
}

// recallCreate gives the event that the room began with its place.
func (a *acceptance) recallCreate(b *backfilling) (verdict Verdict, err error) {
	verdict = Known
	err = a.view(func(tx *store.Tx) error {
		known, err := a.known(tx)
		if err != nil || known {
			return err
		}
		if a.head.First != b.first {
			return errBegunAnew
		}
		create, err := numAt(tx, a.num, a.head.Current, "m.room.create", "")
		if a.outlier.Outlier && a.outlier.StateNum == create && create != 0 {
			verdict = Accepted
		}
		return err
	})
	if err != nil || verdict != Accepted {
		return Known, err // another one is worth nothing, not even to be kept
	}
	return Accepted, a.putHistory(b.placeOf(a.ev), 0, Accepted)
}

// placeOf returns where an event of the list goes.
func (b *backfilling) placeOf(ev *matrix.Event) store.Place {
	return store.Place{Position: b.place.Position, Height: b.heights[ev.ID]}
}

// putHistory stores the event with its place in the past, and does what it asks for
// beyond the state: it relates to others, redacts one, or is redacted. One that was
// rejected has a place, too, though nobody sees it there: the past goes on behind it.
func (a *acceptance) putHistory(place store.Place, before store.SnapshotID, verdict Verdict) error {
	return a.update(func(tx *store.Tx) error {
		a.writing = true
		num, err := a.put(tx, store.NewEvent{Before: before, Rejected: verdict == Rejected, SoftFailed: verdict == SoftFailed})
		if err != nil {
			return err
		}
		place.Num = num
		if err := tx.PutHistory(a.num, place); err != nil || verdict != Accepted {
			return err
		}
		rm := &room{rooms: a.rooms, tx: tx, num: a.num, id: a.ev.Room, head: a.head}
		if err := rm.relate(a.ev, num); err != nil {
			return err
		}
		if a.ev.Redacts != "" && a.ev.Type == "m.room.redaction" {
			a.cache.clear() // it may change any of them
			if err := rm.redact(a.ev, num); err != nil {
				return err
			}
		}
		return rm.redactLate(a.ev, num)
	})
}
