package federation

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// An inboxTry is one pass over the events that wait in a room.
type inboxTry struct {
	*inbox
	life    context.Context // of the server
	ctx     context.Context // ends when the try is to make way for others
	room    store.RoomNum
	id      matrix.RoomID
	version *matrix.Version
	others  []matrix.ServerName // that are in the room, those with most members first
	inside  bool                // the server whose events are tried is in the room
	again   int                 // tries at the same event that brought it nearer
	silent  map[matrix.ServerName]bool
	unsure  map[uint64]bool   // events, by their orders, whose keys cannot be had for now
	left    bool              // some events stay for another pass
	origin  matrix.ServerName // whose events are tried now
	moved   bool              // some events have left the inbox
}

// step tries the next events and says whether none are left.
func (t *inboxTry) step() (done bool, err error) {
	entries, passed, err := t.batch(t.room, t.passes)
	if t.left = t.left || passed; err != nil || len(entries) == 0 {
		return true, err
	}
	t.origin = entries[0].Origin
	refused, err := t.look(t.origin)
	switch {
	case err != nil:
		return false, err
	case errors.Is(refused, errArriving): // see [Server.Joined]
		t.left = true
		return true, nil
	case errors.Is(refused, errACL) && entries[0].Part != store.InboxNews:
		// What was used on the word of a server that is barred now is checked all the more.
	case refused != nil: // the room is gone, we are out of it, or they are
		return false, t.drop(entries, refused)
	}
	entries, events, err := t.verify(entries)
	if err != nil || len(events) == 0 {
		return false, err
	}
	if entries[0].Part != store.InboxNews {
		return false, t.mend(entries, events)
	}
	ctx, cancel := context.WithTimeout(t.ctx, inboxPatience)
	defer cancel()
	var trusted []*matrix.Event
	unchecked := func(ev *matrix.Event) { trusted = append(trusted, ev) }
	if !t.inside {
		unchecked = nil
	}
	from := t.keeping(ctx, t.origin, &trusted, t.source(t.version, unchecked, t.askable(t.origin)...))
	verdicts, err := t.rooms.AcceptFrom(ctx, events, from)
	if t.life.Err() != nil {
		return false, nil
	}
	if len(verdicts) > 0 {
		t.again = 0
	}
	if removeErr := t.remove(entries[:len(verdicts)]); removeErr != nil || err == nil {
		return false, removeErr
	}
	return false, t.judge(entries[len(verdicts)], ctx.Err(), err)
}

// judge decides about an event that was not accepted: whether it stays. An error is
// one of this server, which is no reason to ask others.
func (t *inboxTry) judge(e store.InboxEvent, late, why error) error {
	old := t.now().Sub(time.UnixMilli(e.Received)) > inboxAge
	switch {
	case errors.Is(why, state.ErrFetch) || late != nil:
		if old {
			return t.drop([]store.InboxEvent{e}, why)
		}
		t.silent[e.Origin], t.left = true, true
		return nil
	case errors.Is(why, state.ErrTooMuchMissing):
		if t.again++; t.again < inboxAgain {
			return nil // what came is kept, so that this ends
		}
		return t.drop([]store.InboxEvent{e}, why)
	case fetchable(why), errors.Is(why, state.ErrGivenState):
		return t.drop([]store.InboxEvent{e}, why)
	case errors.Is(why, state.ErrUnknownRoom):
		return nil // the next step sees that
	}
	return why
}

// drop gives up events: nobody has what they lack, or it cannot be.
func (t *inboxTry) drop(entries []store.InboxEvent, why error) error {
	t.again = 0
	t.log.Info("event is given up", "room", t.id, "origin", entries[0].Origin, "err", why)
	return t.remove(entries)
}

// remove takes events out of the inbox.
func (t *inboxTry) remove(entries []store.InboxEvent) error {
	t.moved = t.moved || len(entries) > 0
	return t.inbox.remove(t.life, entries)
}

// look finds the room and who is in it, and says why the events of a server are not
// taken any more, or not yet. The server ACL is that of now: it may have come after
// them.
func (t *inboxTry) look(origin matrix.ServerName) (refused, err error) {
	type resident struct {
		name   matrix.ServerName
		joined uint64
	}
	var residents []resident
	err = t.store.View(func(tx *store.Tx) error {
		t.id = tx.RoomID(t.room)
		if t.version, refused, err = mayReceive(tx, t.room, origin); refused != nil || err != nil {
			return err
		}
		t.inside = tx.ServerInRoom(t.room, tx.ServerNum(origin))
		return tx.RoomServers(t.room, func(server store.ServerNum, joined uint64) (bool, error) {
			residents = append(residents, resident{tx.ServerName(server), joined})
			if len(residents) == 64 {
				residents = best(residents, func(r resident) uint64 { return r.joined })
			}
			return true, nil
		})
	})
	t.others = t.others[:0]
	for _, r := range best(residents, func(r resident) uint64 { return r.joined }) {
		t.others = append(t.others, r.name)
	}
	return refused, err
}

// best returns those few of a list that have most.
func best[T any](list []T, has func(T) uint64) []T {
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(has(b), has(a)) })
	return list[:min(len(list), moreServers+1)]
}

// askable returns the servers that are asked for what a server's events lack.
func (t *inboxTry) askable(origin matrix.ServerName) []matrix.ServerName {
	servers := []matrix.ServerName{origin}
	for _, other := range t.others {
		if other != origin && len(servers) <= moreServers {
			servers = append(servers, other)
		}
	}
	return servers
}

// passes says whether an event is left for another pass.
func (t *inboxTry) passes(e store.InboxEvent) bool { return t.silent[e.Origin] || t.unsure[e.Order] }

// verify returns the events that are signed as they must be, with their entries. Those
// whose keys cannot be had for now stay for another pass; the others are given up.
func (t *inboxTry) verify(entries []store.InboxEvent) (fit []store.InboxEvent, events []*matrix.Event, err error) {
	pdus := make([]jsontext.Value, len(entries))
	for i, e := range entries {
		pdus[i] = e.PDU
	}
	checked, errs := t.check(t.ctx, t.version, pdus)
	if t.ctx.Err() != nil {
		return nil, nil, t.ctx.Err()
	}
	for i, e := range entries {
		if errs[i] == nil {
			fit, events = append(fit, e), append(events, checked[i])
			continue
		}
		waits := errors.Is(errs[i], remote.ErrUnreachable) && t.now().Sub(time.UnixMilli(e.Received)) <= inboxAge
		known, err := t.disown(e, errs[i], waits)
		if err != nil {
			return nil, nil, err
		}
		if waits && !known {
			t.unsure[e.Order], t.left = true, true
		} else if err := t.drop(entries[i:i+1], errs[i]); err != nil {
			return nil, nil, err
		}
	}
	return fit, events, nil
}

// disown takes an event out of the state that was used on a server's word, where the
// signature that could not be checked then has turned out bad. That is held against what is
// here, which may have come with a good one since. Where the event waits for its keys only
// those count that have come. It says whether there is no more to be found out about it.
func (t *inboxTry) disown(e store.InboxEvent, why error, waits bool) (done bool, err error) {
	bad, _ := errors.AsType[*remote.PDUError](why)
	if e.Part == store.InboxNews || bad == nil || bad.Event == "" {
		return false, nil
	}
	var held *matrix.Event
	told := false
	err = t.store.View(func(tx *store.Tx) error {
		room, num, here := tx.EventByID(bad.Event)
		if !here || room != t.room {
			return nil
		}
		ev, err := tx.Event(room, num)
		if err == nil && ev.Unchecked {
			held = ev.Event
			told, err = toldSince(tx, ev.Event, e.Received)
		}
		return err
	})
	if held == nil || err != nil || waits && !told {
		return false, err
	}
	_, errs := t.check(t.ctx, t.version, []jsontext.Value{held.JSON()})
	switch why := errs[0]; {
	case t.ctx.Err() != nil:
		return false, t.ctx.Err()
	case errors.Is(why, matrix.ErrBadSignature), errors.Is(why, remote.ErrUnreachable) && told:
		t.log.Warn("a server has given a state with an event that is not signed", "room", t.id, "server", e.Origin, "event", bad.Event, "err", why)
		return true, t.rooms.Disown(t.ctx, t.id, bad.Event)
	}
	return false, nil
}

// toldSince says whether a server that must have signed an event has told us its keys
// since a time, in milliseconds since 1970, and none of them is one that it is signed
// with.
func toldSince(tx *store.Tx, ev *matrix.Event, since int64) (bool, error) {
	signatures, err := ev.Signatures()
	if err != nil {
		return false, err
	}
	for _, server := range ev.RequiredSigners() {
		answer, err := tx.KeyAnswer(server)
		if errors.Is(err, store.ErrNotFound) || err == nil && answer.Fetched.UnixMilli() < since {
			continue
		}
		if err != nil {
			return false, err
		}
		known := slices.ContainsFunc(signatures[server], func(id string) bool {
			_, err := tx.VerifyKey(server, id)
			return err == nil
		})
		if !known {
			return true, nil
		}
	}
	return false, nil
}

// keeping is a source whose events that cannot be checked are kept for later: a state is
// taken without them, but for those that are trusted. These are kept before they are
// used, so that none is used and never checked.
func (t *inboxTry) keeping(ctx context.Context, origin matrix.ServerName, trusted *[]*matrix.Event, from state.Source) state.Source {
	events := from.Events
	from.Events = func(c context.Context, room matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
		unkept := make(map[matrix.EventID]bool)
		err := events(c, room, ids, func(ev *matrix.Event) error {
			kept, err := t.keepFor(ctx, origin, *trusted)
			for _, ev := range *trusted {
				unkept[ev.ID] = !kept
			}
			if *trusted = nil; err != nil || unkept[ev.ID] {
				return err
			}
			return take(ev)
		})
		keyless, _ := errors.AsType[*state.KeylessError](err)
		if keyless == nil {
			return err
		}
		if _, keepErr := t.keepFor(ctx, origin, keyless.Events); keepErr != nil {
			return keepErr
		}
		return err
	}
	return from
}

// keepFor keeps events until their keys can be had, if there is room. They are not put
// into the state then: what came with a state is held to the one that there is.
func (t *inboxTry) keepFor(ctx context.Context, origin matrix.ServerName, events []*matrix.Event) (kept bool, err error) {
	if len(events) == 0 {
		return true, nil
	}
	fresh, err := t.unkept(t.room, events)
	if err == nil && len(fresh) > 0 {
		t.left = true
		_, err = t.put(ctx, t.room, origin, store.InboxCited, fresh)
	}
	if errors.Is(err, errBusy) {
		return false, nil
	}
	return err == nil, err
}

// mend takes events that were left out of a join. What one cites may be among those
// whose keys cannot be had for now.
func (t *inboxTry) mend(entries []store.InboxEvent, events []*matrix.Event) error {
	for i, ev := range events {
		e := entries[i]
		err := t.rooms.Mend(t.ctx, ev, e.Part == store.InboxState)
		missing, _ := errors.AsType[*state.MissingError](err)
		switch {
		case t.ctx.Err() != nil:
			return t.ctx.Err()
		case missing != nil && t.now().Sub(time.UnixMilli(e.Received)) <= inboxAge:
			t.unsure[e.Order], t.left = true, true
			continue
		case missing != nil, errors.Is(err, state.ErrTangled):
			err = t.drop([]store.InboxEvent{e}, err)
		case err == nil:
			err = t.remove([]store.InboxEvent{e})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
