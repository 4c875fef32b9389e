package media

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"hearth/server/api"
	"hearth/store"
)

// fill uploads a file to a reserved ID.
func fill(t *testing.T, m *Repository, user store.UserNum, id store.MediaID, content string) error {
	t.Helper()
	return m.Fill(t.Context(), testServer, id, Upload{
		User: user, Type: "text/plain", Body: strings.NewReader(content), Length: int64(len(content)),
	})
}

func reserve(t *testing.T, m *Repository, user store.UserNum) store.MediaID {
	t.Helper()
	r, err := m.Reserve(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

func TestReservedMedia(t *testing.T) {
	m, alice := open(t, Config{MaxUpload: 100})
	var bob store.UserNum
	err := m.store.Update(t.Context(), func(tx *store.Tx) (err error) {
		bob, err = tx.CreateAccount("@bob:hearth.test", store.Account{Created: time.Now()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	id := reserve(t, m, alice)
	if _, err := get(m, id, ""); !errors.Is(err, api.ErrNotYetUploaded) {
		t.Errorf("before the upload: %v", err)
	}
	for _, tt := range []struct {
		user store.UserNum
		id   store.MediaID
		body string
		want error
	}{
		{bob, id, "x", api.ErrForbidden},
		{alice, "unknown", "x", api.ErrNotFound},
		{alice, id, strings.Repeat("x", 101), api.ErrTooLarge},
		{alice, id, "x", nil},
		{alice, id, "y", api.ErrCannotOverwriteMedia},
		{bob, id, "y", api.ErrForbidden},
	} {
		if err := fill(t, m, tt.user, tt.id, tt.body); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("user %d fills %s with %.5s: %v, want %v", tt.user, tt.id, tt.body, err, tt.want)
		}
	}
	if err := m.Fill(t.Context(), "elsewhere.example", id, Upload{User: alice}); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("an ID of another server: %v", err)
	}
	if w, err := get(m, id, ""); err != nil || w.Body.String() != "x" {
		t.Errorf("after the upload: %q, %v", w.Body, err)
	}
	other := upload(t, m, alice, "text/plain", "", []byte("z"))
	if err := fill(t, m, alice, other, "y"); !errors.Is(err, api.ErrCannotOverwriteMedia) {
		t.Errorf("a file that never was reserved: %v", err)
	}
}

// An ID is good for a day; then it is as if it had never been.
func TestReservationExpires(t *testing.T) {
	m, user := open(t, Config{})
	now := time.Now()
	m.now = func() time.Time { return now }
	id := reserve(t, m, user)
	now = now.Add(reservedFor + time.Second)
	if err := fill(t, m, user, id, "x"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("upload to an expired ID: %v", err)
	}
	if _, err := get(m, id, ""); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("download of an expired ID: %v", err)
	}
	if err := m.sweepReservations(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := m.store.View(func(tx *store.Tx) error {
		_, err := tx.Reservation(id)
		return err
	})
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after the sweep: %v", err)
	}
}

func TestReservationsAreBounded(t *testing.T) {
	m, user := open(t, Config{})
	now := time.Now()
	m.now = func() time.Time { return now }
	first := reserve(t, m, user)
	for range maxReserved - 1 {
		reserve(t, m, user)
	}
	if _, err := m.Reserve(t.Context(), user); !errors.Is(err, api.ErrLimitExceeded) {
		t.Errorf("one more: %v", err)
	}
	if err := fill(t, m, user, first, "x"); err != nil {
		t.Fatal(err)
	}
	reserve(t, m, user) // in its place
	now = now.Add(reservedFor + time.Second)
	reserve(t, m, user) // all others have expired
}

// A download waits for the file to come, and everybody who waits gets it.
func TestDownloadWaits(t *testing.T) {
	m, user := open(t, Config{})
	id := reserve(t, m, user)
	var wait sync.WaitGroup
	for range 5 {
		wait.Go(func() {
			w := httptest.NewRecorder()
			err := m.Download(w, httptest.NewRequest(http.MethodGet, "/", nil), Want{Origin: testServer, ID: id, Wait: time.Minute}, "")
			if err != nil || !bytes.Equal(w.Body.Bytes(), []byte("here")) {
				t.Errorf("%q, %v", w.Body, err)
			}
		})
	}
	for waiting := 0; waiting < 5; {
		m.awaited.mu.Lock()
		waiting = m.awaited.waiting
		m.awaited.mu.Unlock()
	}
	if err := fill(t, m, user, id, "here"); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	if m.awaited.waiting != 0 || len(m.awaited.files) != 0 {
		t.Errorf("%d still wait for %d files", m.awaited.waiting, len(m.awaited.files))
	}
}

// A client that leaves waits no longer, and too many do not wait at all.
func TestDownloadStopsWaiting(t *testing.T) {
	m, user := open(t, Config{})
	id := reserve(t, m, user)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	err := m.Download(httptest.NewRecorder(), r.WithContext(ctx), Want{Origin: testServer, ID: id, Wait: time.Hour}, "")
	if !errors.Is(err, api.ErrNotYetUploaded) {
		t.Errorf("a client that left: %v", err)
	}
	m.awaited.waiting = maxAwaiting
	if err := m.Download(httptest.NewRecorder(), r, Want{Origin: testServer, ID: id, Wait: time.Hour}, ""); !errors.Is(err, api.ErrNotYetUploaded) {
		t.Errorf("one too many: %v", err)
	}
	m.awaited.waiting = 0
}
