package client

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// maxSyncWait is the longest that a sync waits for news, whatever the client asks.
const maxSyncWait = 3 * time.Minute

// syncRequest is what a client asks of /sync.
type syncRequest struct {
	who        session
	filter     *Filter
	filterHash uint64 // of the parameter; see lazyClient
	since      streamToken
	initial    bool // everything, not what is new behind since
	fullState  bool
	stateAfter string // the name of the section for the state behind the timeline; "": before it
	timeout    time.Duration
	presence   PresenceState // what the device is marked as while it waits
	woken      bool          // it has waited, and there was news
}

// lazyClient returns who keeps the members that the sync gives.
func (req *syncRequest) lazyClient() lazyClient {
	return lazyClient{deviceName{req.who.num, req.who.device}, req.filterHash}
}

// stateName is the name of the section of a room's state.
func (req *syncRequest) stateName() string { return cmp.Or(req.stateAfter, "state") }

// sync answers GET /sync: what is new for a user behind a token, as soon as
// there is something or the timeout ends.
//
// The answer is written as it is read, a View for each room, none held while
// the client takes it. All of it stands at one position of the stream.
//
// Spec: CS Syncing.
func (s *Server) sync(w http.ResponseWriter, r *http.Request, who session) error {
	req, err := s.beginSync(r, who)
	if err != nil {
		return err
	}
	defer s.endSync(req)
	timer := time.NewTimer(req.timeout)
	defer timer.Stop()
	for over := req.timeout == 0; ; {
		watch := s.store.Watch(req.who.num)
		if done, err := s.trySync(w, r, req, over); done || err != nil {
			return err
		}
		req.woken = api.Await(r, timer.C, watch.News())
		over = !req.woken // time is up, or the server stops: the next look is the last
	}
}

// beginSync reads a sync and notes that it has begun. The request is on the heap, and
// the frame of what waits is small: as the stack of a goroutine halves only where a
// quarter of it is enough, 100 bytes more there can cost each parked sync 8 KiB.
func (s *Server) beginSync(r *http.Request, who session) (*syncRequest, error) {
	req, err := s.readSync(r, who)
	if err != nil {
		return nil, err
	}
	s.noteSync(who, req.presence)
	if err := s.acknowledgeToDevice(r.Context(), who, req.since.delivered()); err != nil {
		s.noteSyncEnd(who, req.presence)
		return nil, err
	}
	return &req, nil
}

func (s *Server) endSync(req *syncRequest) { s.noteSyncEnd(req.who, req.presence) }

// trySync answers if there is news, or if this look is the last. It leaves nothing
// behind that would weigh on a sync that waits.
func (s *Server) trySync(w http.ResponseWriter, r *http.Request, req *syncRequest, last bool) (done bool, err error) {
	if req.woken {
		if err := s.stillLoggedIn(req.who); err != nil {
			return true, err
		}
	}
	out := &syncWriter{w: w}
	if err := s.answerSync(r.Context(), *req, out); err != nil {
		return true, out.abort(err)
	}
	if !out.begun && !last {
		return false, nil
	}
	return true, out.finish()
}

// readSync reads the query of /sync.
func (s *Server) readSync(r *http.Request, who session) (syncRequest, error) {
	q := r.URL.Query()
	req := syncRequest{who: who, initial: true}
	var err error
	if req.filter, err = s.findFilter(who, q.Get("filter")); err != nil {
		return req, err
	}
	req.filterHash = hashFilter(q.Get("filter"))
	if since := q.Get("since"); since != "" {
		if req.since, err = parseToken("since", since); err != nil {
			return req, err
		}
		// A token from the future is one of data that were restored to an
		// earlier day: the client is better off beginning anew.
		if req.initial, err = s.inFuture(req.since); err != nil {
			return req, err
		}
	}
	if req.initial {
		req.since = streamToken{}
	}
	if req.fullState, err = queryBool(q.Get("full_state"), "full_state"); err != nil {
		return req, err
	}
	for _, prefix := range []string{"org.matrix.msc4222.", ""} { // MSC4222, before it was in the specification
		asked, err := queryBool(q.Get(prefix+"use_state_after"), prefix+"use_state_after")
		if err != nil {
			return req, err
		}
		if asked {
			req.stateAfter = prefix + "state_after"
		}
	}
	if req.presence = Online; q.Get("set_presence") != "" {
		if req.presence, err = parsePresence("set_presence", q.Get("set_presence")); err != nil {
			return req, err
		}
	}
	if text := q.Get("timeout"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil || ms < 0 {
			return req, api.ErrInvalidParam.Because("timeout must be a number of milliseconds")
		}
		req.timeout = time.Duration(min(ms, maxSyncWait.Milliseconds())) * time.Millisecond
	}
	if req.initial || req.fullState {
		req.timeout = 0
	}
	return req, nil
}

// inFuture says whether a token stands behind all that has happened. Ask a View, as
// the sync that gave it did: [store.Store.Position] lags a moment behind.
func (s *Server) inFuture(token streamToken) (future bool, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		future = token.pos > tx.Position()
		return nil
	})
	return future, err
}

// queryBool reads a query parameter that is true or false; absent is false.
func queryBool(text, name string) (bool, error) {
	switch text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, api.ErrInvalidParam.Because("%s must be true or false", name)
}

// answerSync writes what is new, if anything is.
func (s *Server) answerSync(ctx context.Context, req syncRequest, out *syncWriter) error {
	var rooms []syncRoom
	err := s.store.View(func(tx *store.Tx) (err error) {
		out.next = streamToken{pos: tx.Position(), memory: s.serials.now()}
		if req.initial {
			s.lazy.begin(req.lazyClient(), out.next.pos)
		}
		if err = s.syncTop(tx, req, out); err != nil {
			return err
		}
		rooms, err = s.syncRooms(tx, req, out.next)
		return err
	})
	if err != nil {
		return err
	}
	if len(rooms) > 0 { // all that they show was asked for before the position was taken
		s.sending.settle(ctx, deviceName{req.who.num, req.who.device})
	}
	for _, room := range rooms {
		if err := s.answerRoom(req, room, out); err != nil {
			return err
		}
	}
	return nil
}

// syncTop prepares the sections that belong to no room.
func (s *Server) syncTop(tx *store.Tx, req syncRequest, out *syncWriter) error {
	devices, news, err := s.syncDevices(tx, req.who, req.since.pos, out.next.pos)
	if err != nil {
		return err
	}
	data, err := s.syncAccountData(tx, req.who, req.since.pos)
	if err != nil {
		return err
	}
	data = keep(data, func(ev accountDataEvent) bool { return req.filter.AccountData.Match(ev.Type, req.who.user) })
	presence, err := s.syncPresence(tx, req, devices.DeviceLists.met)
	if err != nil {
		return err
	}
	out.next.toDevice = devices.delivered
	out.top = syncTop{
		NextBatch:   out.next.String(),
		AccountData: listOf(data),
		Presence:    listOf(presence),
		deviceSync:  devices,
	}
	if news || len(data) > 0 || len(presence) > 0 || req.initial {
		return out.begin()
	}
	return nil
}

// syncRoom is one room that may have something to say.
type syncRoom struct {
	section string // "join", "leave", "invite" or "knock"
	member  store.LocalMembership
	id      matrix.RoomID
}

// syncRooms finds the rooms that may have something to say, in the order of
// the sections.
func (s *Server) syncRooms(tx *store.Tx, req syncRequest, next streamToken) ([]syncRoom, error) {
	changed, err := changedRooms(tx, req, next)
	if err != nil {
		return nil, err
	}
	hidden, err := readHiddenInvites(tx, req.who)
	if err != nil {
		return nil, err
	}
	recount := !req.initial && rulesPosition(tx, req.who) > req.since.pos
	var joined, others []syncRoom
	err = tx.LocalMemberships(req.who.num, func(m store.LocalMembership) (bool, error) {
		fresh := req.initial || m.Position > req.since.pos
		changes := req.fullState || fresh || changed.has(m.Room) || s.typing.Changed(m.Room, req.since.memory)
		if m.Membership == matrix.Join && !changes {
			if !recount {
				return true, nil // most rooms in most syncs
			}
			if unread, err := mayBeUnread(tx, req.who, m.Room); !unread || err != nil {
				return true, err
			}
		}
		id := tx.RoomID(m.Room)
		if !req.filter.Room.Wants(id) {
			return true, nil
		}
		if m.Forgotten { // the other devices learn that the user has left, once
			if fresh && !req.initial {
				others = append(others, syncRoom{"leave", m, id})
			}
			return true, nil
		}
		switch m.Membership {
		case matrix.Join:
			joined = append(joined, syncRoom{"join", m, id})
		case matrix.Invite:
			if hide, err := hidden.hides(tx, m); hide || err != nil {
				return true, err
			}
			if fresh || hidden.changed > req.since.pos {
				others = append(others, syncRoom{"invite", m, id})
			}
		case matrix.Knock:
			if fresh {
				others = append(others, syncRoom{"knock", m, id})
			}
		default:
			// leave has "the rooms that the user has left or been banned from" (sync.yaml),
			// include_leave is about "rooms that the user has left" (sync_filter.yaml).
			asked := req.filter.Room.IncludeLeave || m.Membership == matrix.Ban
			if (req.initial || req.fullState) && asked || !req.initial && fresh {
				others = append(others, syncRoom{"leave", m, id})
			}
		}
		return true, nil
	})
	return append(joined, inSections(others)...), err
}

// inSections puts rooms that belong together beside each other.
func inSections(rooms []syncRoom) []syncRoom {
	sorted := make([]syncRoom, 0, len(rooms))
	for _, section := range []string{"invite", "knock", "leave"} {
		for _, room := range rooms {
			if room.section == section {
				sorted = append(sorted, room)
			}
		}
	}
	return sorted
}

// changedSet is a set of rooms, in order; the nil set holds all of them. It is a
// list since most syncs, which wait, make one for nothing.
type changedSet []store.RoomNum

func (set changedSet) has(room store.RoomNum) bool {
	if set == nil {
		return true
	}
	_, found := slices.BinarySearch(set, room)
	return found
}

// maxCatchUp is how many changes of the stream are looked through for the rooms
// they belong to. Who is further behind has every room looked at.
const maxCatchUp = 4096

// changedRooms returns the rooms that anything happened in.
func changedRooms(tx *store.Tx, req syncRequest, next streamToken) (changedSet, error) {
	if req.initial || next.pos-req.since.pos > maxCatchUp {
		return nil, nil
	}
	set := changedSet{}
	err := tx.Changes(req.since.pos, func(c store.Change) (bool, error) {
		if c.Room != 0 && (len(set) == 0 || set[len(set)-1] != c.Room) {
			set = append(set, c.Room)
		}
		return true, nil
	})
	slices.Sort(set)
	return slices.Compact(set), err
}

// keep returns the elements that a filter lets through.
func keep[T any](list []T, match func(T) bool) []T {
	kept := list[:0]
	for _, v := range list {
		if match(v) {
			kept = append(kept, v)
		}
	}
	return kept
}
