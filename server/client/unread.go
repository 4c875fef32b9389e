package client

import (
	"context"
	"fmt"
	"slices"
	"time"

	"hearth/server/push"
	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// unreadCounts is how many unread events notified a user.
type unreadCounts struct {
	Notifications int `json:"notification_count"`
	Highlights    int `json:"highlight_count"`
}

func (c *unreadCounts) add(ev store.UnreadEvent) {
	c.Notifications++
	if ev.Highlight {
		c.Highlights++
	}
}

// Bounds of what is remembered of unread events.
const (
	maxUnread       = 2000 // events that one count counts to
	maxUnreadLook   = 5000 // events looked at for one count
	unreadPatience  = 500 * time.Millisecond
	unreadInterval  = time.Minute
	unreadWriteSize = 64 // checkpoints in one write
)

// unread counts what a user has not read of a room: all of it, or with byThread
// the main timeline, and each thread for itself.
//
// Spec: CS Push Notifications, Receiving notifications; Receipts.
func (s *Server) unread(tx *store.Tx, who session, room store.RoomNum, byThread bool) (unreadCounts, map[matrix.EventID]unreadCounts, error) {
	key := unreadKey{who.num, room}
	entry := s.unreads.room(key)
	entry.mu.Lock()
	defer entry.mu.Unlock()
	if err := entry.load(tx, who, room); err != nil {
		return unreadCounts{}, nil, err
	}
	read, err := readUpto(tx, who, room)
	if err != nil {
		return unreadCounts{}, nil, err
	}
	entry.drop(read)
	if err := s.lookForUnread(tx, who, room, entry, read); err != nil {
		return unreadCounts{}, nil, fmt.Errorf("unread events in room %d: %w", room, err)
	}
	s.unreads.weigh(key, entry, len(entry.Events))
	main, threads := entry.count(byThread)
	return main, threads, nil
}

// load takes what is stored, at first, and drops what was found by other push
// rules than those of now, or while other users were ignored.
func (r *unreadRoom) load(tx *store.Tx, who session, room store.RoomNum) error {
	if !r.known {
		var err error
		if r.Unread, err = tx.Unread(who.num, room); err != nil {
			return err
		}
		r.known = true
	}
	if rules := rulesPosition(tx, who); rules != r.Rules {
		r.Unread, r.dirty = store.Unread{Rules: rules}, true
	}
	return nil
}

// rulesPosition is when a user last said what notifies him: by push rules, or by
// ignoring somebody. All counts are made anew then.
func rulesPosition(tx *store.Tx, who session) store.Position {
	return max(tx.AccountDataPosition(who.num, 0, pushRulesType), tx.AccountDataPosition(who.num, 0, ignoredType))
}

// mayBeUnread says whether a room has events behind what the user has read.
func mayBeUnread(tx *store.Tx, who session, room store.RoomNum) (bool, error) {
	head, err := tx.Head(room)
	if err != nil {
		return false, err
	}
	read, err := readUpto(tx, who, room)
	return head.Latest > read.all, err
}

// count adds up what is left.
func (r *unreadRoom) count(byThread bool) (main unreadCounts, threads map[matrix.EventID]unreadCounts) {
	for _, ev := range r.Events {
		if ev.Thread == 0 || !byThread {
			main.add(ev)
			continue
		}
		if threads == nil {
			threads = make(map[matrix.EventID]unreadCounts)
		}
		root := r.Threads[ev.Thread-1]
		counts := threads[root]
		counts.add(ev)
		threads[root] = counts
	}
	return main, threads
}

// readMarks is how far a user has read: the whole room, and threads further.
type readMarks struct {
	all     store.EventNum
	threads map[string]store.EventNum // mainThread or a root
}

// upto is how far one thread was read.
func (m readMarks) upto(thread string) store.EventNum { return max(m.all, m.threads[thread]) }

// readUpto takes the further of the public and private receipts. What came
// before the user did counts as read.
func readUpto(tx *store.Tx, who session, room store.RoomNum) (readMarks, error) {
	marks := readMarks{threads: make(map[string]store.EventNum)}
	member, _, err := tx.LocalMembership(who.num, room)
	if err != nil {
		return marks, err
	}
	marks.all = store.EventNum(member.Joined) << 1
	err = tx.UserReceipts(room, who.num, func(r store.Receipt) (bool, error) {
		if r.Thread == "" {
			marks.all = max(marks.all, r.Num)
		} else {
			marks.threads[r.Thread] = max(marks.threads[r.Thread], r.Num)
		}
		return true, nil
	})
	return marks, err
}

// drop takes out what has been read, and what is gone.
func (r *unreadRoom) drop(read readMarks, gone ...store.EventNum) {
	before := len(r.Events)
	r.Events = slices.DeleteFunc(r.Events, func(ev store.UnreadEvent) bool {
		return ev.Num <= read.upto(r.threadName(ev.Thread)) || slices.Contains(gone, ev.Num)
	})
	if len(r.Events) != before {
		r.dropThreads()
		r.dirty = true
	}
}

// dropThreads forgets the threads that no event is in any more.
func (r *unreadRoom) dropThreads() {
	old := r.Threads
	r.Threads = nil
	for i := range r.Events {
		if ev := &r.Events[i]; ev.Thread != 0 {
			ev.Thread = r.thread(string(old[ev.Thread-1]))
		}
	}
}

// threadName is the thread that an event refers to, as receipts name it.
func (r *unreadRoom) threadName(thread uint32) string {
	if thread == 0 {
		return mainThread
	}
	return string(r.Threads[thread-1])
}

// thread returns how events refer to a thread.
func (r *unreadRoom) thread(name string) uint32 {
	if name == mainThread {
		return 0
	}
	i := slices.Index(r.Threads, matrix.EventID(name))
	if i < 0 {
		i = len(r.Threads)
		r.Threads = append(r.Threads, matrix.EventID(name))
	}
	return uint32(i) + 1
}

// lookForUnread looks at the events behind those that were looked at before,
// newest first, and not at more than maxUnreadLook.
func (s *Server) lookForUnread(tx *store.Tx, who session, room store.RoomNum, entry *unreadRoom, read readMarks) error {
	type sighted struct {
		num       store.EventNum
		thread    string
		highlight bool
	}
	var latest store.EventNum
	var found []sighted
	var gone []store.EventNum // that were redacted
	var judge *judge
	looked := 0
	err := tx.TimelineBack(room, 0, func(ev *store.StoredEvent) (bool, error) {
		if ev.Num <= entry.Upto || ev.Num <= read.all || looked == maxUnreadLook {
			return false, nil
		}
		looked++
		latest = max(latest, ev.Num)
		if in, target, ok := tx.EventByID(ev.Redacts); ok && in == room {
			if ev, err := tx.Event(room, target); err != nil {
				return false, err
			} else if ev.RedactedBy != 0 {
				gone = append(gone, target)
			}
		}
		if judge == nil {
			var err error
			if judge, err = newJudge(tx, who, room); err != nil {
				return false, err
			}
		}
		own := ev.Sender == who.user && !ev.IsState()
		notify, highlight := judge.notifies(ev)
		if !notify && !own {
			return true, nil
		}
		thread, err := threadOf(tx, room, ev.Num)
		if err != nil {
			return false, err
		}
		if own { // where one speaks one has read
			read.threads[thread] = max(read.threads[thread], ev.Num)
			return true, nil
		}
		if ev.Num > read.upto(thread) {
			found = append(found, sighted{ev.Num, thread, highlight})
		}
		return true, nil
	})
	if err != nil || latest == 0 {
		return err
	}
	entry.drop(read, gone...)
	for _, ev := range slices.Backward(found) {
		entry.Events = append(entry.Events, store.UnreadEvent{Num: ev.num, Thread: entry.thread(ev.thread), Highlight: ev.highlight})
	}
	if len(entry.Events) > maxUnread {
		entry.Events = slices.Clone(entry.Events[len(entry.Events)-maxUnread:])
		entry.dropThreads()
	}
	entry.Upto, entry.dirty = latest, true
	return nil
}

// judge asks a user's push rules about the events of a room.
type judge struct {
	rules   *push.Ruleset
	ignored ignoredUsers
	context push.Context
	create  *matrix.Event
	event   *matrix.Event // m.room.power_levels, nil: none
	levels  *matrix.PowerLevels
}

func newJudge(tx *store.Tx, who session, room store.RoomNum) (*judge, error) {
	saved, err := savedRules(tx, who.num)
	if err != nil {
		return nil, err
	}
	head, err := tx.Head(room)
	if err != nil {
		return nil, err
	}
	ignored, err := readIgnored(tx, who.num)
	if err != nil {
		return nil, err
	}
	j := &judge{rules: saved.Rules(who.user), ignored: ignored, context: push.Context{User: who.user, Members: head.Joined}}
	for _, s := range []struct {
		typ, key string
		use      func(*store.StoredEvent)
	}{
		{"m.room.create", "", func(ev *store.StoredEvent) { j.create = ev.Event }},
		{"m.room.power_levels", "", func(ev *store.StoredEvent) { j.event = ev.Event }},
		{"m.room.member", string(who.user), func(ev *store.StoredEvent) {
			if m, err := ev.Member(); err == nil && m.DisplayName != nil {
				j.context.DisplayName = *m.DisplayName
			}
		}},
	} {
		ev, err := state.EventAt(tx, room, head.Current, s.typ, s.key)
		if err != nil {
			return nil, err
		}
		if ev != nil {
			s.use(ev)
		}
	}
	j.levels = matrix.DefaultPowerLevels(j.create)
	if j.event != nil {
		if levels, err := j.event.PowerLevels(); err == nil {
			j.levels = levels
		}
	}
	return j, nil
}

// usualNotifyLevel is the level that notifications need where the room does not
// say. Spec: CS m.room.power_levels, notifications.
const usualNotifyLevel = 50

// notifies says what the rules make of an event.
func (j *judge) notifies(ev *store.StoredEvent) (notify, highlight bool) {
	rule := j.rule(ev)
	if rule == nil {
		return false, false
	}
	return rule.Notifies()
}

// rule returns the rule that decides about an event, nil for none.
func (j *judge) rule(ev *store.StoredEvent) *push.Rule {
	if ev.RedactedBy != 0 || j.ignored.hides(ev.Event) {
		return nil
	}
	j.context.MayNotify = func(key string) bool {
		need, given := j.levels.Notifications[key]
		if !given {
			need = usualNotifyLevel
		}
		return auth.UserPower(j.create, j.event, ev.Sender) >= need
	}
	return j.rules.Match(ev.Event, &j.context)
}

// runUnread writes checkpoints now and then, and when ctx ends.
func (s *Server) runUnread(ctx context.Context) error {
	return s.runWrites(ctx, writes{"write what is unread", unreadInterval, unreadPatience, s.writeUnread})
}

// writeUnread stores the checkpoints that are out of date.
func (s *Server) writeUnread(ctx context.Context, patience time.Duration) error {
	type checkpoint struct {
		unreadKey
		store.Unread
	}
	var all []checkpoint
	for key, room := range s.unreads.all() {
		room.mu.Lock()
		if room.dirty {
			u := room.Unread
			u.Events, u.Threads = slices.Clone(u.Events), slices.Clone(u.Threads)
			all = append(all, checkpoint{key, u})
			room.dirty = false
		}
		room.mu.Unlock()
	}
	for part := range slices.Chunk(all, unreadWriteSize) {
		err := s.store.UpdatePatiently(ctx, patience, func(tx *store.Tx) error {
			for _, c := range part {
				if err := tx.PutUnread(c.user, c.room, c.Unread); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("checkpoints of unread events: %w", err)
		}
	}
	return nil
}
