package client

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// A page of large events is bounded in bytes, whatever limit a client asks for, and
// its token leads on: all events come, each once.
func TestPagesAreBoundedInBytes(t *testing.T) {
	s := newTestServer(t, Config{})
	token := s.account(t, "alice", "secret")
	room := answerString(t, s.do("POST", "/_matrix/client/v3/createRoom", token, "{}"), "room_id")
	rooms := "/_matrix/client/v3/rooms/" + room
	text := strings.Repeat("x", 60_000)
	const events = 80
	for i := range events {
		path := fmt.Sprintf("%s/send/m.room.message/%d", rooms, i)
		if w := s.do("PUT", path, token, `{"body":"`+text+`"}`); w.Code != http.StatusOK {
			t.Fatalf("send: %d %s", w.Code, w.Body)
		}
	}
	const most = maxPageBytes + 2<<16
	found, pages := 0, 0
	for from := ""; pages == 0 || from != ""; pages++ {
		w := s.do("GET", rooms+"/messages?dir=b&limit=1000&from="+from, token, "")
		if w.Body.Len() > most {
			t.Fatalf("a page of %d bytes", w.Body.Len())
		}
		var page struct {
			End   string `json:"end"`
			Chunk []struct {
				Type string `json:"type"`
			} `json:"chunk"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, ev := range page.Chunk {
			if ev.Type == "m.room.message" {
				found++
			}
		}
		from = page.End
	}
	if found != events || pages < 3 {
		t.Errorf("%d events on %d pages, want %d on 3", found, pages, events)
	}
	w := s.do("GET", `/_matrix/client/v3/sync?filter={"room":{"timeline":{"limit":1000}}}`, token, "")
	if w.Code != http.StatusOK || w.Body.Len() > most+1<<16 || !strings.Contains(w.Body.String(), `"limited":true`) {
		t.Errorf("a sync of %d bytes, status %d", w.Body.Len(), w.Code)
	}
}

// A token of the future, forged or of data that were restored to an earlier day,
// has nothing behind it.
func TestPageBehindTheEnd(t *testing.T) {
	s := newTestServer(t, Config{})
	token := s.account(t, "alice", "secret")
	room := answerString(t, s.do("POST", "/_matrix/client/v3/createRoom", token, "{}"), "room_id")
	w := s.do("GET", "/_matrix/client/v3/rooms/"+room+"/messages?dir=f&from=s9223372036854775807", token, "")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"chunk":[]`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
