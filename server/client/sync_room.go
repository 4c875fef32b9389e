package client

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// roomEntry is what /sync says about a joined or left room, but for the state,
// which follows it in the answer.
type roomEntry struct {
	Summary       *roomSummary                    `json:"summary,omitzero"`
	Timeline      roomTimeline                    `json:"timeline"`
	Ephemeral     eventList[jsontext.Value]       `json:"ephemeral,omitzero"`
	AccountData   eventList[accountDataEvent]     `json:"account_data,omitzero"`
	Unread        *unreadCounts                   `json:"unread_notifications,omitzero"`
	UnreadThreads map[matrix.EventID]unreadCounts `json:"unread_thread_notifications,omitzero"`
}

// roomTimeline is a part of a room's timeline.
type roomTimeline struct {
	Events    []jsontext.Value `json:"events"`
	Limited   bool             `json:"limited"`
	PrevBatch string           `json:"prev_batch,omitzero"`
}

// roomSync is the work on one room's entry, within one View.
type roomSync struct {
	*Server
	tx     *store.Tx
	req    syncRequest
	room   syncRoom
	head   store.Head
	since  store.Position // 0: the whole room is new to the client
	upto   store.Position
	next   streamToken
	format *formatter

	entry  roomEntry
	shown  []*store.StoredEvent // the timeline, oldest first
	state  []store.EventNum     // what the state section holds
	before store.SnapshotID     // the state before the timeline
	after  store.SnapshotID     // the state behind it
	named  bool                 // members or the name have changed, maybe in an event that is not shown
	read   bool                 // the user has read on
}

// stateChunk is how many state events are formatted in one View.
const stateChunk = 256

// answerRoom writes a room's entry, if it has one.
func (s *Server) answerRoom(req syncRequest, room syncRoom, out *syncWriter) error {
	switch room.section {
	case "invite":
		return s.answerStripped(req, room, "invite_state", out)
	case "knock":
		return s.answerStripped(req, room, "knock_state", out)
	}
	if room.member.Forgotten { // nothing is told but that the user is out of it
		return out.room(room.section, room.id, []byte(`{"timeline":{"events":[]}}`))
	}
	rs := &roomSync{Server: s, req: req, room: room, upto: out.next.pos, next: out.next}
	var entry []byte
	err := s.store.View(func(tx *store.Tx) (err error) {
		rs.tx = tx
		if _, err := tx.Head(room.member.Room); errors.Is(err, store.ErrNotFound) {
			return nil // purged since the rooms were listed: the next sync tells
		}
		if err := rs.collect(); err != nil {
			return err
		}
		if rs.empty() {
			return nil
		}
		entry, err = rs.write()
		return err
	})
	if err != nil {
		return fmt.Errorf("sync room %s: %w", room.id, err)
	}
	if entry == nil {
		return nil
	}
	if err := out.room(room.section, room.id, entry); err != nil {
		return err
	}
	for first := true; len(rs.state) > 0; first = false {
		chunk := rs.state[:min(len(rs.state), stateChunk)]
		rs.state = rs.state[len(chunk):]
		events, err := s.formatState(req, room, chunk)
		if err != nil {
			return err
		}
		if err := out.write(joinValues(events, first)); err != nil {
			return err
		}
	}
	return out.write([]byte("]}}"))
}

// collect finds all that the entry holds.
func (rs *roomSync) collect() error {
	if err := rs.place(); err != nil {
		return err
	}
	if err := rs.collectTimeline(); err != nil {
		return err
	}
	if err := rs.collectState(); err != nil {
		return err
	}
	if err := rs.collectData(); err != nil {
		return err
	}
	if rs.room.section != "join" {
		return nil
	}
	if err := rs.collectEphemeral(); err != nil {
		return err
	}
	return rs.summarize()
}

// place finds from where to where the entry reaches. A room that the user was not
// in at the token and has joined since is new as a whole; one that was left ends
// there. Who never was in a room that he is out of learns nothing but that.
func (rs *roomSync) place() (err error) {
	member := rs.room.member
	if rs.head, err = rs.tx.Head(member.Room); err != nil {
		return err
	}
	if rs.format, err = rs.formatter(rs.tx, member.Room, rs.req.who); err != nil {
		return err
	}
	rs.format.id = ""
	rs.format.filter = rs.req.filter
	rs.since = rs.req.since.pos
	if member.Joined > rs.since {
		before, err := rs.joinedAt(rs.since)
		if err != nil {
			return err
		}
		if !before {
			rs.since = 0
			// What the client has from an earlier stay does not reach up to this one.
			rs.entry.Timeline.Limited = !rs.req.initial
		}
	}
	if rs.room.section == "leave" {
		rs.upto = min(rs.upto, member.Left)
	}
	return nil
}

// joinedAt says whether the user was in the room at a position.
func (rs *roomSync) joinedAt(pos store.Position) (bool, error) {
	at, err := rs.tx.CurrentAt(rs.room.member.Room, pos)
	if err != nil {
		return false, err
	}
	ev, err := state.EventAt(rs.tx, rs.room.member.Room, at, "m.room.member", string(rs.req.who.user))
	if ev == nil || err != nil {
		return false, err
	}
	member, err := ev.Member()
	return err == nil && member.Membership == matrix.Join, nil
}

// maxLookedAt bounds how many events are looked at for those that pass a filter.
const maxLookedAt = 2000

// collectTimeline takes the newest events that the user may see and wants. It ends
// where state changed unseen: the state section tells what that led to.
func (rs *roomSync) collectTimeline() error {
	filter := &rs.req.filter.Room.Timeline
	limit := filter.Most(10, maxPage)
	looked, size := 0, 0
	end := store.EventNum(rs.upto+1) << 1
	first := rs.upto // the position before the first event that is shown
	err := rs.tx.TimelineBack(rs.room.member.Room, end, func(ev *store.StoredEvent) (bool, error) {
		if ev.Num.Position() <= rs.since {
			return false, nil
		}
		looked++
		wanted, unseen, err := rs.wants(filter, ev)
		if err != nil {
			return false, err
		}
		if wanted && (len(rs.shown) == limit || size >= maxPageBytes) || unseen || looked > maxLookedAt {
			rs.entry.Timeline.Limited = true
			return false, nil
		}
		rs.named = rs.named || names(ev)
		if wanted {
			rs.shown = append(rs.shown, ev)
			size += len(ev.JSON())
			first = ev.Num.Position() - 1
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	slices.Reverse(rs.shown)
	rs.entry.Timeline.PrevBatch = streamToken{pos: first}.String()
	if rs.before, err = rs.tx.CurrentAt(rs.room.member.Room, first); err != nil {
		return err
	}
	if rs.after, err = rs.tx.CurrentAt(rs.room.member.Room, rs.upto); err != nil {
		return err
	}
	return rs.addFarewell(filter, limit)
}

// addFarewell adds the member event that tells why a user is out of a room, where
// it is not what ended his stay: his invite was declined or taken back, or he was
// banned after he had left. He need not see anything else of the room's.
func (rs *roomSync) addFarewell(filter *RoomEventFilter, limit int) error {
	num := rs.room.member.Event
	if rs.room.section != "leave" || num.Position() <= max(rs.upto, rs.req.since.pos) || limit == 0 {
		return nil
	}
	ev, err := rs.tx.Event(rs.room.member.Room, num)
	if err != nil || !filter.MatchEvent(ev.Event) {
		return err
	}
	rs.shown = append(rs.shown, ev)
	if rs.upto != 0 && rs.since >= rs.upto {
		// An invite may have come between the end of the stay and the token: then
		// the client was never told how the stay ended.
		rs.entry.Timeline.Limited = true
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

// collectData takes the room's account data that changed.
func (rs *roomSync) collectData() error {
	data, err := rs.syncRoomData(rs.tx, rs.req.who, rs.room.member.Room, rs.since)
	if err != nil {
		return err
	}
	rs.entry.AccountData = listOf(keep(data, func(ev accountDataEvent) bool {
		return rs.req.filter.Room.AccountData.MatchIn(rs.room.id, ev.Type, rs.req.who.user)
	}))
	return nil
}

// collectEphemeral takes receipts, typing and unread counts.
func (rs *roomSync) collectEphemeral() error {
	room, filter := rs.room.member.Room, &rs.req.filter.Room.Ephemeral
	receipts, read, err := rs.syncReceipts(rs.tx, rs.req.who, rs.format.ignored, room, rs.since)
	if err != nil {
		return err
	}
	rs.read = read
	if filter.MatchIn(rs.room.id, "m.receipt", "") {
		for _, content := range receipts {
			rs.addEphemeral("m.receipt", content)
		}
	}
	if filter.MatchIn(rs.room.id, "m.typing", "") {
		if typing, ok := rs.typing.Since(room, rs.req.since.typing, rs.format.ignored); ok {
			rs.addEphemeral("m.typing", typing)
		}
	}
	byThread := rs.req.filter.Room.Timeline.UnreadThreadNotifications
	counts, threads, err := rs.unread(rs.tx, rs.req.who, room, byThread)
	if err != nil {
		return err
	}
	rs.entry.Unread, rs.entry.UnreadThreads = &counts, threads
	return nil
}

func (rs *roomSync) addEphemeral(typ string, content jsontext.Value) {
	ev := append([]byte(`{"type":"`+typ+`","content":`), content...)
	rs.entry.Ephemeral.Events = append(rs.entry.Ephemeral.Events, append(ev, '}'))
}

// empty says whether the client learns nothing from the entry. A membership
// that changed is news even where all events are filtered out, and so are unread
// counts where the user has read on.
func (rs *roomSync) empty() bool {
	e := &rs.entry
	fresh := rs.req.initial || rs.req.fullState || rs.room.member.Position > rs.req.since.pos
	return !fresh && len(rs.shown) == 0 && len(rs.state) == 0 && len(e.Ephemeral.Events) == 0 &&
		len(e.AccountData.Events) == 0 && !e.Timeline.Limited && !rs.named && !rs.read
}

// write returns the entry up to the first state event.
func (rs *roomSync) write() ([]byte, error) {
	rs.entry.Timeline.Events = make([]jsontext.Value, 0, len(rs.shown))
	for _, ev := range rs.shown {
		event, err := rs.format.event(ev)
		if err != nil {
			return nil, err
		}
		rs.entry.Timeline.Events = append(rs.entry.Timeline.Events, event)
	}
	b, err := json.Marshal(rs.entry, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return nil, err
	}
	name := rs.req.stateAfter
	if name == "" {
		name = "state"
	}
	b = append(append(b[:len(b)-1], `,"`...), name...)
	return append(b, `":{"events":[`...), nil
}

// formatState formats a part of the state section in a View of its own.
func (s *Server) formatState(req syncRequest, room syncRoom, nums []store.EventNum) ([]jsontext.Value, error) {
	events := make([]jsontext.Value, 0, len(nums))
	err := s.store.View(func(tx *store.Tx) error {
		format, err := s.formatter(tx, room.member.Room, req.who)
		if err != nil {
			return err
		}
		format.id = ""
		format.filter = req.filter
		for _, num := range nums {
			ev, err := tx.Event(room.member.Room, num)
			if err != nil {
				return err
			}
			event, err := format.event(ev)
			if err != nil {
				return err
			}
			events = append(events, event)
		}
		return nil
	})
	return events, err
}

// joinValues puts values one behind the other with commas between and, unless
// they are the first of their array, one before.
func joinValues(values []jsontext.Value, first bool) []byte {
	var b []byte
	for _, v := range values {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, v...)
	}
	return b
}

// answerStripped writes the entry of an invite or a knock: as much of the
// room's state as one may see who is not in it.
//
// Spec: CS Stripped state.
func (s *Server) answerStripped(req syncRequest, room syncRoom, name string, out *syncWriter) error {
	entry := []byte(`{"` + name + `":{"events":[`)
	err := s.store.View(func(tx *store.Tx) error {
		events, err := strippedState(tx, room.member)
		entry = append(append(entry, joinValues(events, true)...), "]}}"...)
		return err
	})
	if err != nil {
		return fmt.Errorf("sync room %s: %w", room.id, err)
	}
	return out.room(room.section, room.id, entry)
}

// strippedTypes are the state events that tell an invited user what the room is.
var strippedTypes = []string{
	"m.room.create", "m.room.name", "m.room.avatar", "m.room.topic",
	"m.room.join_rules", "m.room.canonical_alias", "m.room.encryption",
}

// strippedState returns the stripped state for an invite or a knock: that which
// came with it, or the room's own at that event, with the inviter's and the
// user's own membership.
func strippedState(tx *store.Tx, m store.LocalMembership) ([]jsontext.Value, error) {
	if m.Stripped != nil {
		var events []jsontext.Value
		err := json.Unmarshal(m.Stripped, &events)
		return events, err
	}
	own, err := tx.Event(m.Room, m.Event)
	if err != nil {
		return nil, err
	}
	var events []jsontext.Value
	add := func(typ, key string) error {
		ev, err := state.EventAt(tx, m.Room, own.Before, typ, key)
		if ev != nil && err == nil {
			events = append(events, stripped(ev.Event))
		}
		return err
	}
	for _, typ := range strippedTypes {
		if err := add(typ, ""); err != nil {
			return nil, err
		}
	}
	if own.Sender != matrix.UserID(*own.StateKey) {
		if err := add("m.room.member", string(own.Sender)); err != nil {
			return nil, err
		}
	}
	return append(events, stripped(own.Event)), nil
}
