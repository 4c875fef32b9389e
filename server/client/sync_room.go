package client

import (
	"errors"
	"fmt"

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
	Ephemeral     *ephemeralEvents                `json:"ephemeral,omitzero"`
	AccountData   eventList[accountDataEvent]     `json:"account_data,omitzero"`
	Unread        *unreadCounts                   `json:"unread_notifications,omitzero"`
	UnreadThreads map[matrix.EventID]unreadCounts `json:"unread_thread_notifications,omitzero"`
}

// ephemeralEvents is what is typed and read in a room. The section is in the entry of
// every joined room, be there events in it or not.
type ephemeralEvents struct {
	Events []jsontext.Value `json:"events"`
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
	// farewell is the member event that tells why the user is out of the room,
	// where that is not what ended his stay; else 0.
	farewell store.EventNum
	// hidden is the state that changes within the timeline, in events that the
	// client does not want there, and not in any shown later. With use_state_after
	// it is empty, as the state behind the timeline is told anyhow.
	hidden map[store.Slot]bool
	// told is the event that the timeline begins with, where the state section is that
	// behind it; else 0.
	told  store.EventNum
	named bool // members or the name have changed, maybe in an event that is not shown
	read  bool // the user has read on
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
		entry := `{"timeline":{"events":[]}}`
		if req.stateAfter != "" { // by which clients see that the server knows of it
			entry = `{"timeline":{"events":[]},"` + req.stateAfter + `":{"events":[]}}`
		}
		return out.room(room.section, room.id, []byte(entry))
	}
	if room.member.PDU != nil { // of a room that this server never was in, or no more
		return s.answerDeparture(req, room, out)
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
	for len(rs.state) > 0 {
		events, err := s.formatState(req, room, rs.nextState())
		if err != nil {
			return err
		}
		if err := out.write(events); err != nil {
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
	rs.entry.Ephemeral = new(ephemeralEvents)
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
		typing, changed := rs.typing.Since(room, rs.req.since.memory, rs.format.ignored)
		if !changed && rs.since == 0 { // the room is new to the client, whoever types since when
			typing, changed = rs.typing.Since(room, 0, rs.format.ignored)
		}
		if changed {
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
	return !fresh && len(rs.shown) == 0 && len(rs.state) == 0 && (e.Ephemeral == nil || len(e.Ephemeral.Events) == 0) &&
		len(e.AccountData.Events) == 0 && !e.Timeline.Limited && !rs.named && !rs.read
}

// write returns the entry up to the first chunk of the state, which is most often all
// of it.
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
	b = append(append(b[:len(b)-1], `,"`...), rs.req.stateName()...)
	return rs.format.appendEvents(append(b, `":{"events":[`...), rs.nextState(), true)
}

// nextState takes the next chunk of the state section.
func (rs *roomSync) nextState() []store.EventNum {
	chunk := rs.state[:min(len(rs.state), stateChunk)]
	rs.state = rs.state[len(chunk):]
	return chunk
}

// formatState formats a part of the state section, which is not the first, in a View
// of its own.
func (s *Server) formatState(req syncRequest, room syncRoom, nums []store.EventNum) (events []byte, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		format, err := s.formatter(tx, room.member.Room, req.who)
		if err != nil {
			return err
		}
		format.id = ""
		format.filter = req.filter
		events, err = format.appendEvents(nil, nums, false)
		return err
	})
	return events, err
}

// appendEvents appends events to an array, of which they are the first or not.
func (f *formatter) appendEvents(b []byte, nums []store.EventNum, first bool) ([]byte, error) {
	for _, num := range nums {
		ev, err := f.tx.Event(f.room, num)
		if err != nil {
			return nil, err
		}
		event, err := f.event(ev)
		if err != nil {
			return nil, err
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, event...)
	}
	return b, nil
}

// appendValues puts values one behind the other with commas between and, unless
// they are the first of their array, one before.
func appendValues(b []byte, values []jsontext.Value, first bool) []byte {
	for _, v := range values {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, v...)
	}
	return b
}
