package client

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
)

// Replies that were back-filled stand before those that came earlier and are newer: in
// the pages of a thread, in what is bundled with its root, and in the list of threads.
func TestBackfilledThreads(t *testing.T) {
	var busy, quiet matrix.EventID // two roots
	var replies []matrix.EventID   // to the busy one
	e := newFarHouseWith(t, func(e *farHouse) {
		busy, quiet = e.say("busy"), e.say("quiet")
		for range 3 {
			replies = append(replies, e.reply(busy))
		}
		e.reply(quiet)
		for range belowJoin {
			e.say("more")
		}
	})
	room := "/rooms/" + url.PathEscape(string(e.room))
	var sent struct {
		ID matrix.EventID `json:"event_id"`
	}
	e.ours.call(t, "PUT", room+"/send/m.room.message/1", e.token,
		fmt.Sprintf(`{"msgtype":"m.text","body":"mine","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, busy), &sent)
	replies = append(replies, sent.ID)
	e.all("b", "", 100)

	thread := room + "/relations/" + url.PathEscape(string(busy))
	for _, limit := range []int{1, 2, 3, 10} {
		for _, recurse := range []string{"", "&recurse=true"} {
			forth := e.pages(thread + fmt.Sprintf("?dir=f&limit=%d%s", limit, recurse))
			back := e.pages(thread + fmt.Sprintf("?dir=b&limit=%d%s", limit, recurse))
			slices.Reverse(back)
			if !slices.Equal(forth, replies) || !slices.Equal(back, replies) {
				t.Errorf("limit %d %s: the thread is %q and back %q, want %q", limit, recurse, forth, back, replies)
			}
		}
		if list := e.pages(fmt.Sprintf("%s/threads?limit=%d", room, limit)); !slices.Equal(list, []matrix.EventID{busy, quiet}) {
			t.Errorf("limit %d: the threads are %q", limit, list)
		}
	}
	var root struct {
		Unsigned struct {
			Relations struct {
				Thread struct {
					Count  int `json:"count"`
					Latest struct {
						ID matrix.EventID `json:"event_id"`
					} `json:"latest_event"`
				} `json:"m.thread"`
			} `json:"m.relations"`
		} `json:"unsigned"`
	}
	e.ours.call(t, "GET", room+"/event/"+url.PathEscape(string(busy)), e.token, "", &root)
	if thread := root.Unsigned.Relations.Thread; thread.Count != 4 || thread.Latest.ID != sent.ID {
		t.Errorf("with the root comes %+v, want 4 replies, of which %s is the latest", thread, sent.ID)
	}
}

// pages reads all pages of a list of events.
func (e *farHouse) pages(path string) (ids []matrix.EventID) {
	e.Helper()
	from := ""
	for range 20 {
		var page struct {
			Chunk []struct {
				ID matrix.EventID `json:"event_id"`
			} `json:"chunk"`
			Next string `json:"next_batch"`
		}
		res := e.ours.do("GET", "/_matrix/client/v1"+path+from, e.token, "")
		if res.Code != http.StatusOK {
			e.Fatalf("%s: %d %s", path, res.Code, res.Body)
		}
		e.must(json.Unmarshal(res.Body.Bytes(), &page))
		for _, ev := range page.Chunk {
			ids = append(ids, ev.ID)
		}
		if page.Next == "" {
			return ids
		}
		from = "&from=" + url.QueryEscape(page.Next)
	}
	e.Fatal("pages without end")
	return nil
}
