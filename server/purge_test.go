package server

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// `room purge` removes a room, whether the server runs or not, and says who left
// and how much it removed. The server's Run ends a purge that a command left.
func TestPurgeCommand(t *testing.T) {
	config := Config{Data: t.TempDir(), ServerName: "hearth.example", Listen: []string{freeAddress(t)}}
	s := start(t, config)
	ctx := context.Background()
	if _, err := s.owner.addUser(ctx, "alice", "swordfish", false); err != nil {
		t.Fatal(err)
	}
	var rooms []matrix.RoomID
	for range 2 {
		id, err := s.owner.rooms.Create(ctx, state.Creation{Creator: "@alice:hearth.example", Preset: state.PresetPrivate})
		if err != nil {
			t.Fatal(err)
		}
		rooms = append(rooms, id)
	}
	run := func(args ...string) (string, int) {
		return invoke(t, append(args, "--data", config.Data), "")
	}
	done := regexp.MustCompile(`^@alice:hearth.example left\npurged \S+: [1-9]\d* records removed\n$`)
	out, code := run("room", "purge", string(rooms[0]))
	if code != 0 || !done.MatchString(out) {
		t.Errorf("with a server: exit %d, %q", code, out)
	}
	if out, code = run("room", "purge", string(rooms[0])); code != 1 || !strings.Contains(out, "does not know") {
		t.Errorf("a second time: exit %d, %q", code, out)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if out, code = run("room", "purge", string(rooms[1])); code != 0 || !done.MatchString(out) {
		t.Errorf("without a server: exit %d, %q", code, out)
	}
	if out, code = run("room", "list"); code != 0 || out != "" {
		t.Errorf("rooms after that: exit %d, %q", code, out)
	}
	if out, code = run("check"); code != 0 {
		t.Errorf("check: exit %d, %q", code, out)
	}
}

// A purge that nobody listens to any more stops, and tells no lie to who does.
func TestPurgeIsTold(t *testing.T) {
	for answers, want := range map[string]string{
		`{"left":"@a:b"}{"removed":5}{"removed":9,"done":true}`: "@a:b left\n5 records removed so far\npurged !r: 9 records removed\n",
		`{"removed":5}`:              "5 records removed so far\nthe server has stopped and will go on with the purge: EOF",
		`{"error":"the disk broke"}`: "the disk broke",
	} {
		var out strings.Builder
		if err := printPurge(&out, "!r", jsontext.NewDecoder(strings.NewReader(answers))); err != nil {
			out.WriteString(err.Error())
		}
		if out.String() != want {
			t.Errorf("%s:\n%s\nwant:\n%s", answers, out.String(), want)
		}
	}
}

// A server that starts on data with half a room removes the rest.
func TestRunEndsPurges(t *testing.T) {
	config := Config{Data: t.TempDir(), ServerName: "hearth.example", Listen: []string{freeAddress(t)}}
	if err := start(t, config).stop(); err != nil { // it has made the data
		t.Fatal(err)
	}
	half, err := openOwner(Config{Data: config.Data, PasswordCost: 4})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := half.addUser(t.Context(), "alice", "swordfish", false); err != nil {
		t.Fatal(err)
	}
	id, err := half.rooms.Create(t.Context(), state.Creation{Creator: "@alice:hearth.example", Preset: state.PresetPrivate})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := half.leaveRoom(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := half.store.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.BeginPurge(tx.RoomNum(id))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := half.store.Close(); err != nil {
		t.Fatal(err)
	}
	s := start(t, config)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left := 0
		if err := s.store.View(func(tx *store.Tx) error {
			return tx.Purges(func(store.RoomNum) (bool, error) { left++; return true, nil })
		}); err != nil {
			t.Fatal(err)
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the purge does not end")
		}
	}
}
