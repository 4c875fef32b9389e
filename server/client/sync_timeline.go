package client

import (
	"slices"

	"hearth/state"
	"hearth/store"
)

// maxLookedAt bounds how many events are looked at for those that pass a filter.
const maxLookedAt = 2000

// collectTimeline takes the newest events that the user may see and wants. It ends
// where state changed unseen: the state section tells what that led to. It ends as
// well behind state that changed again later in an event that is left out: shown,
// it would undo for the client what the state section tells of that. And it begins
// with an event behind which more of the state is different than the event says, as
// where forks met, or a gap or the history before a join was never here: the state
// section then tells what is behind that event. Nor does it reach over a gap.
func (rs *roomSync) collectTimeline() error {
	filter := &rs.req.filter.Room.Timeline
	limit := filter.Most(10, maxPage)
	looked, size := 0, 0
	end := store.EventNum(rs.upto+1) << 1
	first := rs.upto             // the position before the first event that is shown
	at := rs.upto                // the position whose state is that before the timeline
	var later *store.StoredEvent // the event behind ev
	err := rs.tx.TimelineBack(rs.room.member.Room, end, func(ev *store.StoredEvent) (bool, error) {
		jumped, err := rs.jumped(ev.After, later)
		if jumped || err != nil {
			at = later.Num.Position()
			return false, err
		}
		if gap, err := rs.afterGap(later); gap || err != nil {
			rs.entry.Timeline.Limited = true
			return false, err
		}
		if later = nil; ev.Num.Position() <= rs.since {
			return false, nil
		}
		looked++
		wanted, unseen, err := rs.wants(filter, ev)
		if err != nil {
			return false, err
		}
		full := len(rs.shown) == limit || size >= maxPageBytes || ev.HasSlot && rs.hidden[ev.Slot]
		if wanted && full || unseen || looked > maxLookedAt {
			rs.entry.Timeline.Limited = true
			return false, nil
		}
		if !wanted {
			rs.hide(ev)
		}
		rs.named = rs.named || names(ev)
		if wanted {
			rs.shown = append(rs.shown, ev)
			size += len(ev.JSON())
			first = ev.Num.Position() - 1
			at = first
		}
		later = ev
		return true, nil
	})
	if err != nil {
		return err
	}
	if jumped, err := rs.jumped(0, later); err != nil { // it is the first of all
		return err
	} else if jumped {
		at = later.Num.Position()
	}
	slices.Reverse(rs.shown)
	rs.entry.Timeline.PrevBatch = streamToken{pos: first}.String()
	if rs.before, err = rs.tx.CurrentAt(rs.room.member.Room, at); err != nil {
		return err
	}
	if rs.after, err = rs.tx.CurrentAt(rs.room.member.Room, rs.upto); err != nil {
		return err
	}
	return rs.addFarewell(filter, limit)
}

// jumped says whether more of the room's state is different behind an event than the
// event says itself, as it was before, and notes it. With use_state_after the state
// section tells of that anyhow. later may be nil.
func (rs *roomSync) jumped(before store.SnapshotID, later *store.StoredEvent) (jumped bool, err error) {
	if later == nil || before == later.After || rs.req.stateAfter != "" {
		return false, nil
	}
	err = rs.tx.DiffSnapshots(rs.room.member.Room, before, later.After, func(slot store.Slot, _, is store.EventNum) (bool, error) {
		jumped = !later.HasSlot || slot != later.Slot || is != later.StateNum()
		return !jumped, nil
	})
	if jumped {
		rs.entry.Timeline.Limited = true
		if len(rs.shown) > 0 && rs.shown[len(rs.shown)-1] == later {
			rs.told = later.StateNum()
		}
	}
	return jumped, err
}

// afterGap says whether an event stands on others that are not here: between it and what
// came before is more, which the client gets by going back from the event, or not at all.
// later may be nil.
func (rs *roomSync) afterGap(later *store.StoredEvent) (bool, error) {
	if later == nil || later.Sender.Server() == rs.store.Server() {
		return false, nil
	}
	return state.HasGap(rs.tx, later)
}

// hide notes that an event is left out, if it is what tells of state that is wanted
// and no event told of later.
func (rs *roomSync) hide(ev *store.StoredEvent) {
	again := func(later *store.StoredEvent) bool { return later.HasSlot && later.Slot == ev.Slot }
	if !ev.HasSlot || rs.req.stateAfter != "" || !rs.req.filter.Room.State.MatchEvent(ev.Event) || slices.ContainsFunc(rs.shown, again) {
		return
	}
	if rs.hidden == nil {
		rs.hidden = make(map[store.Slot]bool)
	}
	rs.hidden[ev.Slot] = true
}

// addFarewell adds the member event that tells why a user is out of a room, where
// it is not what ended his stay: his invite was declined or taken back, or he was
// banned after he had left. He need not see anything else of the room's.
func (rs *roomSync) addFarewell(filter *RoomEventFilter, limit int) error {
	num := rs.room.member.Event
	if rs.room.section != "leave" || num == 0 {
		return nil
	}
	ev, err := rs.tx.Event(rs.room.member.Room, num)
	if err != nil {
		return err
	}
	if ev.Num.Aside() { // it came with a state, and stands nowhere in the timeline
		if rs.room.member.Position <= rs.req.since.pos {
			return nil
		}
	} else if ev.Num.Position() <= max(rs.upto, rs.req.since.pos) {
		return nil
	}
	rs.farewell = num
	if rs.upto != 0 && rs.since >= rs.upto {
		// An invite may have come between the end of the stay and the token: then
		// the client was never told how the stay ended.
		rs.entry.Timeline.Limited = true
	}
	if limit != 0 && filter.MatchEvent(ev.Event) {
		rs.shown = append(rs.shown, ev)
	}
	return nil
}

// wants says whether an event may and shall be shown, and whether it changed the
// state without being seen.
func (rs *roomSync) wants(filter *RoomEventFilter, ev *store.StoredEvent) (wanted, unseen bool, err error) {
	if ev.IsState() {
		sees, err := rs.format.viewer.Sees(ev)
		if err != nil || !sees {
			return false, true, err
		}
	}
	wanted, err = rs.format.wants(filter, ev)
	return wanted, false, err
}

// wants says whether an event may and shall be shown.
func (f *formatter) wants(filter *RoomEventFilter, ev *store.StoredEvent) (bool, error) {
	if !filter.MatchEvent(ev.Event) {
		return false, nil
	}
	if match, err := related(f.tx, filter, ev); !match || err != nil {
		return false, err
	}
	return f.shows(ev)
}
