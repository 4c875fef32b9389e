package client

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

func TestTypingRooms(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var serials memorySerials
	serials.start(now)
	var typing typingRooms
	typing.start(&serials, now)
	begin := serials.now()
	content := func(room store.RoomNum, since uint64, ignored ...matrix.UserID) string {
		list := ignoredUsers{}
		for _, user := range ignored {
			list[user] = nil
		}
		text, ok := typing.Since(room, since, list)
		return fmt.Sprintf("%s %v", string(text), ok)
	}
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if typing.set(1, "@a:x", now, now) {
		t.Error("that somebody does not type is news")
	}
	if !typing.set(1, "@b:x", now.Add(time.Minute), now) || !typing.set(1, "@a:x", now.Add(time.Second), now) {
		t.Error("that somebody types is no news")
	}
	if typing.set(1, "@a:x", now.Add(2*time.Second), now) {
		t.Error("that somebody still types is news")
	}
	want(content(1, begin), `{"user_ids":["@a:x","@b:x"]} true`)
	want(content(1, begin, "@b:x"), `{"user_ids":["@a:x"]} true`)
	want(content(1, serials.now()), ` false`)
	want(content(2, begin), ` false`)
	if rooms := typing.expire(now.Add(1500 * time.Millisecond)); len(rooms) > 0 {
		t.Errorf("%v ended early", rooms)
	}
	before := serials.now()
	if rooms := typing.expire(now.Add(2 * time.Second)); len(rooms) != 1 || len(rooms[1]) != 1 {
		t.Errorf("%v ended, want room 1", rooms)
	}
	want(content(1, before), `{"user_ids":["@b:x"]} true`)
	if !typing.set(1, "@b:x", now, now) {
		t.Error("the end is no news")
	}
	want(content(1, before), `{"user_ids":[]} true`)
	// Who was never here is told where somebody types, and nothing else.
	want(content(1, 0), ` false`)
	typing.set(2, "@b:x", now.Add(time.Minute), now)
	want(content(2, 0), `{"user_ids":["@b:x"]} true`)
	// A token from before a restart: whoever typed then types no longer.
	old := serials.now()
	serials.start(now.Add(time.Hour))
	typing.start(&serials, now.Add(time.Hour))
	want(content(2, old), `{"user_ids":[]} true`)
	want(content(2, serials.now()), ` false`)
	old = serials.now()
	serials.start(now.Add(-time.Hour))
	typing.start(&serials, now.Add(-time.Hour))
	want(content(2, old), `{"user_ids":[]} true`)
}

func TestTypingListIsBounded(t *testing.T) {
	now := time.Now()
	var serials memorySerials
	serials.start(now)
	var typing typingRooms
	typing.start(&serials, now)
	for i := range maxTypingUsers + 50 {
		typing.set(1, matrix.UserID(fmt.Sprintf("@u%d:x", i)), now.Add(time.Minute), now)
	}
	content, _ := typing.Since(1, 0, nil)
	if n := strings.Count(string(content), "@"); n != maxTypingUsers {
		t.Errorf("the list has %d users", n)
	}
}

// Other servers are told that a local user begins and ends to type, and now and then
// that it lasts; never of their own users.
func TestTypingIsTold(t *testing.T) {
	var typing typingRooms
	var serials memorySerials
	now := time.UnixMilli(1_700_000_000_000)
	serials.start(now)
	typing.start(&serials, now.Add(-maxTypingTime))
	if typing.tell(1, "@a:x", false, now) {
		t.Error("that nobody types is told")
	}
	for _, step := range []struct {
		after time.Duration
		types bool
		want  bool
	}{
		{0, true, true}, {time.Second, true, false}, {tellAgain, true, true}, {tellAgain + time.Second, true, false},
		{tellAgain + 2*time.Second, false, true}, {tellAgain + 3*time.Second, false, false}, {tellAgain + 4*time.Second, true, true},
	} {
		if got := typing.tell(1, "@a:x", step.types, now.Add(step.after)); got != step.want {
			t.Errorf("after %v, typing %v: told %v", step.after, step.types, got)
		}
	}
}

// Who typed before a restart, and was told to others, may end after it: a first end is
// told for as long as anybody may have typed since then.
func TestTypingEndsAfterRestart(t *testing.T) {
	var typing typingRooms
	var serials memorySerials
	now := time.UnixMilli(1_700_000_000_000)
	serials.start(now)
	typing.start(&serials, now)
	for _, step := range []struct {
		after time.Duration
		types bool
		want  bool
	}{
		{time.Second, false, true}, {2 * time.Second, false, false}, {3 * time.Second, true, true},
		{4 * time.Second, false, true}, {5 * time.Second, false, false}, {6 * time.Second, true, true},
		{7 * time.Second, true, false}, {maxTypingTime, false, true}, {maxTypingTime + 1, false, false},
	} {
		at := now.Add(step.after)
		if got := typing.tell(1, "@a:x", step.types, at); got != step.want {
			t.Errorf("after %v, typing %v: told %v", step.after, step.types, got)
		}
	}
}
