package client

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/store"
)

// deviceAnswer is what a test reads of a sync.
type deviceAnswer struct {
	Next     string `json:"next_batch"`
	ToDevice struct {
		Events []struct {
			Content struct {
				N int `json:"n"`
			} `json:"content"`
		} `json:"events"`
	} `json:"to_device"`
}

func syncDevice(t *testing.T, s *testServer, token, since string) (answer deviceAnswer) {
	t.Helper()
	w := s.do("GET", "/_matrix/client/v3/sync?since="+since, token, "")
	if w.Code != 200 {
		t.Fatalf("sync: %d %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func sendN(t *testing.T, s *testServer, token string, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		path := fmt.Sprintf("/_matrix/client/v3/sendToDevice/m.test/%d", n)
		if w := s.do("PUT", path, token, fmt.Sprintf(`{"messages":{"@bob:hearth.test":{"BOB":{"n":%d}}}}`, n)); w.Code != 200 {
			t.Fatalf("send: %d %s", w.Code, w.Body)
		}
	}
}

// A long queue comes in parts of 100. An answer that is lost is asked for again
// by the same token and must bring the same messages, whatever came meanwhile.
func TestLongToDeviceQueue(t *testing.T) {
	s := newTestServer(t, Config{})
	alice, bob := s.account(t, "alice", "secret"), s.account(t, "bob", "secret")
	since := syncDevice(t, s, bob, "").Next
	sendN(t, s, alice, 0, 250)
	next := 0
	for part := 0; next < 260; part++ {
		first := syncDevice(t, s, bob, since)
		if part == 1 {
			sendN(t, s, alice, 250, 260)
		}
		again := syncDevice(t, s, bob, since)
		if len(again.ToDevice.Events) < len(first.ToDevice.Events) {
			t.Fatalf("part %d: %d messages, then %d", part, len(first.ToDevice.Events), len(again.ToDevice.Events))
		}
		if len(again.ToDevice.Events) != min(100, 260-next) && part != 0 {
			t.Fatalf("part %d has %d messages", part, len(again.ToDevice.Events))
		}
		for i, ev := range again.ToDevice.Events {
			if ev.Content.N != next+i {
				t.Fatalf("part %d: message %d at place %d", part, ev.Content.N, next+i)
			}
		}
		next += len(again.ToDevice.Events)
		since = again.Next
	}
	last := syncDevice(t, s, bob, since)
	if len(last.ToDevice.Events) != 0 {
		t.Errorf("%d messages came twice", len(last.ToDevice.Events))
	}
	if strings.Count(last.Next, "_") == 2 {
		t.Errorf("token %s still tells of a queue", last.Next)
	}
}

func TestStreamToken(t *testing.T) {
	for _, token := range []streamToken{
		{}, {pos: 12}, {pos: 12, memory: 3}, {pos: 12, toDevice: 7}, {pos: 12, memory: 3, toDevice: 7},
	} {
		if got, err := parseToken("since", token.String()); got != token || err != nil {
			t.Errorf("%s is read as %+v: %v", token, got, err)
		}
	}
	for _, text := range []string{"", "12", "s", "s12_", "s12_x", "s_1", "s1_2_3_4", "s1_2_", "s-1", "s99999999999999999999"} {
		if _, err := parseToken("since", text); err == nil {
			t.Errorf("%q is read as a token", text)
		}
	}
}

// A sync that brings no messages and acknowledges none writes nothing.
func TestIdleSyncDoesNotWrite(t *testing.T) {
	s := newTestServer(t, Config{})
	bob := s.account(t, "bob", "secret")
	since := syncDevice(t, s, bob, "").Next
	before := s.store.Position()
	for range 5 {
		since = syncDevice(t, s, bob, since).Next
	}
	if s.store.Position() != before {
		t.Error("an idle sync moves the stream")
	}
}

// What happens to devices wakes a sync that waits.
func TestDevicesWakeSync(t *testing.T) {
	s := newTestServer(t, Config{})
	alice, bob := s.account(t, "alice", "secret"), s.account(t, "bob", "secret")
	w := s.do("POST", "/_matrix/client/v3/createRoom", alice, `{"preset":"public_chat"}`)
	_, rest, _ := strings.Cut(w.Body.String(), `"room_id":"`)
	room, _, _ := strings.Cut(rest, `"`)
	if w := s.do("POST", "/_matrix/client/v3/rooms/"+room+"/join", bob, "{}"); w.Code != 200 {
		t.Fatalf("join: %d %s", w.Code, w.Body)
	}
	keys := `{"device_keys":{"user_id":"@alice:hearth.test","device_id":"ALICE","algorithms":[],"keys":{}}}`
	for _, deed := range []struct{ method, path, body, told string }{
		{"PUT", "sendToDevice/m.test/1", `{"messages":{"@bob:hearth.test":{"*":{"n":1}}}}`, `"type":"m.test"`},
		{"POST", "keys/upload", keys, `"changed":["@alice:hearth.test"]`},
	} {
		since := syncDevice(t, s, bob, "").Next
		answer := make(chan string, 1)
		go func() {
			answer <- s.do("GET", "/_matrix/client/v3/sync?timeout=60000&since="+since, bob, "").Body.String()
		}()
		time.Sleep(20 * time.Millisecond)
		select {
		case text := <-answer:
			t.Fatalf("%s: the sync did not wait: %s", deed.path, text)
		default:
		}
		s.do(deed.method, "/_matrix/client/v3/"+deed.path, alice, deed.body)
		select {
		case text := <-answer:
			if !strings.Contains(text, deed.told) {
				t.Errorf("%s: the sync says %s", deed.path, text)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: the sync was not woken", deed.path)
		}
	}
}

// Each one-time key is given to one of those who claim at the same time.
func TestClaimsAreExclusive(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := s.account(t, "alice", "secret")
	var keys []string
	for i := range 60 {
		keys = append(keys, fmt.Sprintf(`"signed_curve25519:K%d":{"key":"k%[1]d"}`, i))
	}
	if w := s.do("POST", "/_matrix/client/v3/keys/upload", alice, `{"one_time_keys":{`+strings.Join(keys, ",")+`}}`); w.Code != 200 {
		t.Fatalf("upload: %d %s", w.Code, w.Body)
	}
	var mu sync.Mutex
	given := map[string]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				w := s.do("POST", "/_matrix/client/v3/keys/claim", alice, `{"one_time_keys":{"@alice:hearth.test":{"ALICE":"signed_curve25519"}}}`)
				var answer claimKeysResponse
				if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
					t.Error(err)
				}
				for name := range answer.OneTimeKeys["@alice:hearth.test"]["ALICE"] {
					mu.Lock()
					if given[name] {
						t.Errorf("%s was given twice", name)
					}
					given[name] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if len(given) != 60 {
		t.Errorf("%d of 60 keys were given", len(given))
	}
}

// A backup of several Views comes whole, its rooms and sessions well apart.
func TestLargeBackup(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := s.account(t, "alice", "secret")
	w := s.do("POST", "/_matrix/client/v3/room_keys/version", alice, `{"algorithm":"m.test","auth_data":{}}`)
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, perRoom := range []int{1, maxRoomKeys - 1, maxRoomKeys, 3*maxRoomKeys + 1} {
		var rooms []string
		for room := range 3 {
			var sessions []string
			for i := range perRoom {
				sessions = append(sessions, fmt.Sprintf(`"s%d":{"first_message_index":%[1]d,"forwarded_count":0,"is_verified":true,"session_data":{"x":%[1]d}}`, i))
			}
			rooms = append(rooms, fmt.Sprintf(`"!r%d:x":{"sessions":{%s}}`, room, strings.Join(sessions, ",")))
		}
		if w := s.do("PUT", "/_matrix/client/v3/room_keys/keys?version=1", alice, `{"rooms":{`+strings.Join(rooms, ",")+`}}`); w.Code != 200 {
			t.Fatalf("put %d keys: %d %s", 3*perRoom, w.Code, w.Body)
		}
		var got putRoomKeysRequest
		w := s.do("GET", "/_matrix/client/v3/room_keys/keys?version=1", alice, "")
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%d keys: %v\n%s", 3*perRoom, err, w.Body)
		}
		for room, of := range got.Rooms {
			if len(of.Sessions) != perRoom {
				t.Errorf("%s has %d keys, want %d", room, len(of.Sessions), perRoom)
			}
			for id, key := range of.Sessions {
				if id != fmt.Sprintf("s%d", *key.FirstIndex) {
					t.Errorf("%s %s is key %d", room, id, *key.FirstIndex)
				}
			}
		}
		var one roomKeySessions
		w = s.do("GET", "/_matrix/client/v3/room_keys/keys/!r1:x?version=1", alice, "")
		if err := json.Unmarshal(w.Body.Bytes(), &one); err != nil || len(one.Sessions) != perRoom || len(got.Rooms) != 3 {
			t.Errorf("one room of %d has %d keys, want %d: %v", len(got.Rooms), len(one.Sessions), perRoom, err)
		}
	}
	if w := s.do("DELETE", "/_matrix/client/v3/room_keys/version/1", alice, ""); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	err := s.store.View(func(tx *store.Tx) error {
		stale, err := tx.HasStaleKeys(tx.UserNum("@alice:hearth.test"))
		if stale {
			t.Error("keys of the deleted backup are left")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
