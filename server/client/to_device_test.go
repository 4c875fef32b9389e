package client

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

// A message for every device of a user with very many is one write that nobody can
// make as large as they like: it is refused whole.
func TestToDeviceFanOutIsBounded(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := s.account(t, "alice", "secret")
	err := s.store.Update(t.Context(), func(tx *store.Tx) error {
		user := tx.UserNum("@alice:hearth.test")
		for i := range 200 {
			if err := tx.PutDevice(user, store.Device{ID: matrix.DeviceID(fmt.Sprint("D", i)), Created: s.now()}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	send := func(size, want int) {
		t.Helper()
		body := `{"messages":{"@alice:hearth.test":{"*":{"x":"` + strings.Repeat("x", size) + `"}}}}`
		if w := s.do("PUT", fmt.Sprint("/_matrix/client/v3/sendToDevice/m.test/", size), alice, body); w.Code != want {
			t.Errorf("%d bytes for each of 201 devices: %d %s, want %d", size, w.Code, w.Body, want)
		}
	}
	send(60_000, http.StatusRequestEntityTooLarge)
	if answer := syncDevice(t, s, alice, ""); len(answer.ToDevice.Events) != 0 {
		t.Errorf("%d messages of a request that was refused", len(answer.ToDevice.Events))
	}
	send(1000, http.StatusOK)
	if answer := syncDevice(t, s, alice, ""); len(answer.ToDevice.Events) != 1 {
		t.Errorf("%d messages, want 1", len(answer.ToDevice.Events))
	}
}
