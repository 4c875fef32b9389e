package client

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
)

// A sync waits until all that its own device sends is answered, but not for
// others, and not for long.
func TestSyncWaitsForOwnAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sending
		phone, laptop := deviceName{1, "PHONE"}, deviceName{1, "LAPTOP"}
		waits := func(device deviceName) time.Duration {
			began := time.Now()
			s.settle(t.Context(), device)
			return time.Since(began)
		}
		for _, after := range []time.Duration{10 * time.Millisecond, 30 * time.Millisecond} {
			end := s.begin(phone)
			time.AfterFunc(after, end)
		}
		if took := waits(laptop); took != 0 {
			t.Errorf("another device waited %v", took)
		}
		if took := waits(phone); took != 30*time.Millisecond {
			t.Errorf("the device waited %v", took)
		}
		if took := waits(phone); took != 0 || len(s.devices) != 0 {
			t.Errorf("with nothing under way it waited %v; left is %v", took, s.devices)
		}
		end := s.begin(phone)
		if took := waits(phone); took != maxSendingWait {
			t.Errorf("for a request that hangs it waited %v", took)
		}
		end()
	})
}

// flushes runs when an answer is sent off.
type flushes struct {
	*httptest.ResponseRecorder
	run func()
}

func (w flushes) Flush() { w.run() }

// A device has the answer to what it sends before its syncs may show that: the answer is
// sent off while the request is under way still.
func TestAnswerGoesBeforeSyncs(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := s.account(t, "alice", "secret")
	who := s.who(t, alice)
	var room struct {
		ID string `json:"room_id"`
	}
	if err := json.Unmarshal(s.do("POST", "/_matrix/client/v3/createRoom", alice, "{}").Body.Bytes(), &room); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("PUT", "/_matrix/client/v3/rooms/"+room.ID+"/send/m.room.message/t", strings.NewReader(`{"body":"x"}`))
	r.Header.Set("Authorization", "Bearer "+alice)
	sent := ""
	w := flushes{ResponseRecorder: httptest.NewRecorder()}
	w.run = func() {
		s.sending.mu.Lock()
		defer s.sending.mu.Unlock()
		if s.sending.devices[deviceName{who.num, who.device}] != nil {
			sent = w.Body.String()
		}
	}
	s.router.ServeHTTP(w, r)
	if w.Code != http.StatusOK || !strings.Contains(sent, `"event_id"`) || sent != w.Body.String() {
		t.Errorf("%d %s, of which was sent off in time: %q", w.Code, w.Body, sent)
	}
}

// A sync waits for the device's requests once it stands at its position: those that made
// what it shows have all begun by then.
func TestSyncWaitsBehindItsPosition(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := s.account(t, "alice", "secret")
	who := s.who(t, alice)
	s.do("POST", "/_matrix/client/v3/createRoom", alice, "{}")
	s.lazy.mu.Lock() // a first sync takes this right behind its position
	done := make(chan int)
	go func() { done <- s.do("GET", "/_matrix/client/v3/sync", alice, "").Code }()
	time.Sleep(50 * time.Millisecond)
	end := s.sending.begin(deviceName{who.num, who.device})
	defer end()
	began := time.Now()
	s.lazy.mu.Unlock()
	if code, took := <-done, time.Since(began); code != http.StatusOK || took < maxSendingWait {
		t.Errorf("%d after %v", code, took)
	}
}
