package server

import (
	"errors"
	"strings"
	"testing"
	"time"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// The owner sees who does not answer and what a room takes, and has servers tried
// again, while no server runs.
func TestFederationCommands(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(dir, "hearth.example", store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	rooms := state.New(state.Config{Store: st, Server: "hearth.example", Key: testSigningKey()})
	room, err := rooms.Create(t.Context(), state.Creation{Creator: "@alice:hearth.example", Version: "12"})
	err = errors.Join(err, st.Update(t.Context(), func(tx *store.Tx) error {
		since := time.Now().Add(-time.Hour)
		behind, err := tx.PutServerNum("behind.example")
		return errors.Join(err,
			tx.PutBehind(behind, store.Behind{}),
			tx.PutBackoff("silent.example", store.Backoff{Failures: 7, Since: since, Until: since.Add(3 * time.Hour)}))
	}), st.Close())
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, code := invoke(t, append(args, "--data", dir), "")
		if code != 0 {
			t.Errorf("%q: exit %d: %s", args, code, out)
		}
		return out
	}
	lines := strings.Split(run("federation", "list"), "\n")
	if len(lines) < 2 || !strings.HasPrefix(lines[0], "behind.example  some pending") || !strings.Contains(lines[0], "tried now") ||
		!strings.HasPrefix(lines[1], "silent.example") || !strings.Contains(lines[1], "7 failures since ") ||
		!strings.Contains(lines[1], "tried again in 2h0m0s") && !strings.Contains(lines[1], "tried again in 1h59m") {
		t.Errorf("federation list prints %q", lines)
	}
	if got := run("federation", "retry", "silent.example"); got != "silent.example is tried again\n" {
		t.Errorf("federation retry prints %q", got)
	}
	if got := run("federation", "list"); strings.Contains(got, "silent.example") {
		t.Errorf("then federation list prints %q", got)
	}
	got := strings.Fields(run("room", "list"))
	want := string(room) + " version 12 1 members, 1 here 1 servers 1 extremities "
	if line := strings.Join(got, " "); !strings.HasPrefix(line, want) || !strings.HasSuffix(line, " KiB") {
		t.Errorf("room list prints %q, want %q", got, want)
	}
}

func testSigningKey() matrix.SigningKey {
	return matrix.SigningKey{ID: "ed25519:test", Private: make([]byte, 64)}
}
