package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// importStep is how many events are in memory at a time while a room is brought here.
const importStep = 512

// progressEvery is how often the log is told how far a join has come.
const progressEvery = 10 * time.Second

// bringRoom brings the room of an answer that is in a spool into the store and joins
// it.
func (j *Joiner) bringRoom(ctx context.Context, join store.RoomJoin, room matrix.RoomID, from *spool, index *joinIndex) error {
	log := j.log.With("room", room, "server", join.Server)
	im := j.rooms.Import(join, room)
	later := postponed{joiner: j, join: join}
	order := index.order()
	began, told, left := time.Now(), time.Now(), index.dropped+index.came-len(order)
	for done := 0; done < len(order); done += j.step {
		if time.Since(told) > progressEvery {
			told = time.Now()
			log.Info("joining a room", "events", done, "of", len(order), "took", time.Since(began).Round(time.Second))
		}
		refused, err := j.bringSome(ctx, im, &later, from, index, order[done:min(done+j.step, len(order))])
		if err != nil {
			return err
		}
		left += refused
	}
	event, err := j.joinEvent(ctx, join, from)
	if err != nil {
		return err
	}
	if err := im.Finish(ctx, event); err != nil {
		return err
	}
	log.Info("joined a room", "user", join.User, "events", len(order), "left_out", left, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// bringSome brings some events, and says how many it left out.
func (j *Joiner) bringSome(ctx context.Context, im *state.Import, later *postponed, from *spool, index *joinIndex, numbers []uint32) (refused int, err error) {
	events := make([]state.ImportedEvent, 0, len(numbers))
	for _, n := range numbers {
		_, data, err := from.read(index.events[n].place)
		if err != nil {
			return 0, err
		}
		ev, err := matrix.Parse(index.version, bytes.Clone(data))
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errSpool, err)
		}
		events = append(events, state.ImportedEvent{Event: ev, State: index.events[n].state})
	}
	sound, err := j.verifySome(ctx, im, later, events)
	if err != nil {
		return 0, err
	}
	refused = len(events) - len(sound)
	refusals, err := im.Put(ctx, sound)
	if err != nil {
		return refused, err
	}
	var missing []state.ImportedEvent
	for i, refusal := range refusals {
		if refusal == nil {
			continue
		}
		refused++
		j.log.Debug("an event of a join is left out", "event", sound[i].ID, "err", refusal)
		if _, is := errors.AsType[*state.MissingError](refusal); is && later.count > 0 {
			missing = append(missing, sound[i])
		}
	}
	_, err = later.put(ctx, missing)
	return refused, err
}

const (
	// maxPostponed is how many events of a join are kept to be checked later.
	maxPostponed = 1000
	// maxKeyRounds is how often, in one join, further servers are asked for their keys
	// where there were more than can be asked at a time: some 64, for 20 seconds.
	maxKeyRounds = 30
)

// postponed are the events of a join that cannot be checked for now, and those that
// cite what is left out. They are kept for later; of more than maxPostponed the rest is
// left out for good.
type postponed struct {
	joiner *Joiner
	join   store.RoomJoin
	count  int
	rounds int // in which further servers were asked for keys
}

// put keeps events, and says which of them are kept.
func (p *postponed) put(ctx context.Context, events []state.ImportedEvent) (kept map[matrix.EventID]bool, err error) {
	events = events[:min(len(events), maxPostponed-p.count)]
	p.count += len(events)
	kept = make(map[matrix.EventID]bool, len(events))
	for _, inState := range [...]bool{true, false} {
		var ids []matrix.EventID
		var pdus []jsontext.Value
		for _, ev := range events {
			if ev.State == inState {
				ids, pdus = append(ids, ev.ID), append(pdus, ev.JSON())
			}
		}
		n, err := p.joiner.leftOut(ctx, p.join.Room, p.join.Server, pdus, inState)
		if err != nil {
			return nil, err
		}
		for _, id := range ids[:n] {
			kept[id] = true
		}
	}
	return kept, nil
}

// verifySome returns the events that may be used: those that are here already, and of
// the others those that are signed as they must be, in their redacted form where the
// content hash does not fit.
//
// Members' events are used on the word of the server that gives the state, too, where
// their own servers are away and have not told us of the key. What we left out would
// be missing in the states that we give to others, and nothing would put it there. They
// are checked if the keys can be had within a day, and when the room is joined anew: see
// [state.Rooms.Disown].
func (j *Joiner) verifySome(ctx context.Context, im *state.Import, later *postponed, events []state.ImportedEvent) ([]state.ImportedEvent, error) {
	known, err := im.Known(events)
	if err != nil {
		return nil, err
	}
	unknown := make([]*matrix.Event, 0, len(events))
	for i, ev := range events {
		if !known[i] {
			unknown = append(unknown, ev.Event)
		}
	}
	errs := checkEvents(ctx, unknown, j.verify)
	for later.rounds < maxKeyRounds && j.askFurther(ctx, unknown, errs) {
		later.rounds++
	}
	if err := ctx.Err(); err != nil {
		return nil, err // nothing was found out
	}
	faults, at := make([]error, len(events)), 0
	var unsure []state.ImportedEvent
	for i := range events {
		if known[i] {
			continue
		}
		events[i].Event, faults[i] = unknown[at], errs[at]
		at++
		if errors.Is(faults[i], ErrUnreachable) {
			unsure = append(unsure, events[i])
		}
	}
	kept, err := later.put(ctx, unsure)
	if err != nil {
		return nil, err
	}
	sound := events[:0:0]
	for i, ev := range events {
		ev.Unchecked = errors.Is(faults[i], ErrKeyUntold) && kept[ev.ID] && j.trustable(ev.Event)
		if faults[i] == nil || ev.Unchecked {
			sound = append(sound, ev)
		}
		if faults[i] != nil {
			j.log.Debug("an event of a join is not checked", "event", ev.ID, "used", ev.Unchecked, "err", faults[i])
		}
	}
	return sound, nil
}

// askFurther checks those events again whose servers there was no time to ask for their
// keys, and says whether there were some.
func (j *Joiner) askFurther(ctx context.Context, events []*matrix.Event, errs []error) bool {
	var again []*matrix.Event
	var places []int
	for i, err := range errs {
		if errors.Is(err, ErrKeyUnasked) {
			again, places = append(again, events[i]), append(places, i)
		}
	}
	if len(again) == 0 || ctx.Err() != nil {
		return false
	}
	for i, err := range j.verify(ctx, again) {
		errs[places[i]] = err
	}
	return true
}

// trustable says whether an event may be used on the word of the server that gives a room:
// it is a member's, of nobody of ours, and nobody else's word is needed for it.
func (j *Joiner) trustable(ev *matrix.Event) bool {
	member, err := ev.Member()
	return ev.Type == "m.room.member" && err == nil && member.AuthorisedVia == "" && !concerns(ev, j.own)
}

// concerns says whether an event is by a user of a server, or about one.
func concerns(ev *matrix.Event, server matrix.ServerName) bool {
	return ev.Sender.Server() == server || ev.StateKey != nil && matrix.UserID(*ev.StateKey).Server() == server
}

// joinEvent returns our event with the signatures that it needs: as the other server
// returned it, after a check that it is ours but for signatures.
//
// Spec: SS send_join, event: "Required if the room is restricted and the joining user
// is authorised by one of the conditions."
func (j *Joiner) joinEvent(ctx context.Context, join store.RoomJoin, from *spool) (*matrix.Event, error) {
	own, err := matrix.Parse(join.Version, join.Event)
	if err != nil {
		return nil, err
	}
	raw, err := returned(from)
	if err != nil {
		return nil, err
	}
	return j.signedEvent(ctx, own, raw)
}

// signedEvent returns our event as another server returned it, raw, if that is ours
// and carries more signatures; and our own if it needs no more.
func (j *Joiner) signedEvent(ctx context.Context, own *matrix.Event, raw []byte) (*matrix.Event, error) {
	if len(own.RequiredSigners()) <= 1 {
		return own, nil
	}
	if raw == nil {
		return nil, fmt.Errorf("the other server did not return the event of the join: %w", state.ErrGivenState)
	}
	ev, err := matrix.Parse(own.Version, raw)
	if err != nil || !sameEvent(ev, own) {
		return nil, errors.Join(fmt.Errorf("the other server returned another event: %w", state.ErrGivenState), err)
	}
	if err := j.verify(ctx, []*matrix.Event{ev})[0]; err != nil {
		return nil, fmt.Errorf("the event that the other server returned: %w", err)
	}
	return ev, nil
}

// sameEvent says whether two events differ in their signatures alone.
func sameEvent(a, b *matrix.Event) bool {
	x, errX := withoutSignatures(a)
	y, errY := withoutSignatures(b)
	return a.ID == b.ID && errX == nil && errY == nil && bytes.Equal(x, y)
}

func withoutSignatures(ev *matrix.Event) ([]byte, error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(ev.JSON(), &members); err != nil {
		return nil, err
	}
	delete(members, "signatures")
	delete(members, "unsigned")
	text, err := json.Marshal(members, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	return matrix.CanonicalFor(ev.Version, text)
}
