package client

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
	"hearth/store"
)

// searchWords are words that messages of tests are made of, common ones first.
var searchWords = strings.Fields("the a tea garden shed potatoes rain tomorrow seldom zebra")

// chatter makes a text of some words.
func chatter(random *rand.Rand) string {
	var words []string
	for range 1 + random.IntN(6) {
		words = append(words, searchWords[min(random.IntN(len(searchWords)), random.IntN(len(searchWords)))])
	}
	return strings.Join(words, " ")
}

// found is the IDs of all results of a search, over all pages.
func (s *testServer) found(t testing.TB, token, term, order string) (ids []string, pages int) {
	t.Helper()
	next := ""
	for pages = 1; ; pages++ {
		body := fmt.Sprintf(`{"search_categories":{"room_events":{"search_term":%q,"order_by":%q,"filter":{"limit":7}}}}`, term, order)
		w := s.do("POST", "/_matrix/client/v3/search"+next, token, body)
		var answer struct {
			Categories struct {
				Events struct {
					Results []struct {
						Result struct {
							ID string `json:"event_id"`
						} `json:"result"`
					} `json:"results"`
					Next string `json:"next_batch"`
				} `json:"room_events"`
			} `json:"search_categories"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
			t.Fatalf("search: %d %s: %v", w.Code, w.Body, err)
		}
		for _, result := range answer.Categories.Events.Results {
			ids = append(ids, result.Result.ID)
		}
		if answer.Categories.Events.Next == "" {
			return ids, pages
		}
		next = "?next_batch=" + answer.Categories.Events.Next
	}
}

// A search finds what one finds who reads everything, whatever blocks of words there
// are: none at first, then more after each search, fewer after redactions.
func TestSearchFindsEverything(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := s.account(t, "alice", "wonderland")
	random := rand.New(rand.NewPCG(3, 4))
	type message struct{ id, text, room string }
	var messages []message
	var rooms []string
	for range 2 {
		var room struct {
			ID string `json:"room_id"`
		}
		if err := json.Unmarshal(s.do("POST", "/_matrix/client/v3/createRoom", alice, `{}`).Body.Bytes(), &room); err != nil {
			t.Fatal(err)
		}
		rooms = append(rooms, room.ID)
	}
	send := func(step int) {
		m := message{text: fmt.Sprint(chatter(random), " only", step), room: rooms[random.IntN(2)]}
		path := fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/%d", m.room, step)
		var sent struct {
			ID string `json:"event_id"`
		}
		if err := json.Unmarshal(s.do("PUT", path, alice, `{"body":"`+m.text+`"}`).Body.Bytes(), &sent); err != nil {
			t.Fatal(err)
		}
		m.id = sent.ID
		messages = append(messages, m)
	}
	for step := range 1000 {
		send(step)
		if step%20 == 0 {
			i := random.IntN(len(messages))
			path := fmt.Sprintf("/_matrix/client/v3/rooms/%s/redact/%s/r%d", messages[i].room, messages[i].id, step)
			if w := s.do("PUT", path, alice, `{}`); w.Code != 200 {
				t.Fatalf("redact: %d %s", w.Code, w.Body)
			}
			messages = slices.Delete(messages, i, i+1)
		}
		if step%50 != 49 {
			continue
		}
		words := []string{searchWords[random.IntN(len(searchWords))], searchWords[random.IntN(len(searchWords))]}
		order := []string{"recent", "rank"}[random.IntN(2)]
		got, _ := s.found(t, alice, strings.Join(words, " "), order)
		var want []string
		for _, m := range slices.Backward(messages) {
			have := strings.Fields(m.text)
			if slices.Contains(have, words[0]) && slices.Contains(have, words[1]) {
				want = append(want, m.id)
			}
		}
		if order == "rank" {
			slices.Sort(got)
			slices.Sort(want)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("step %d: %q by %s found %d, want %d", step, words, order, len(got), len(want))
		}
	}
	for _, m := range messages { // at the edges of blocks too
		only := m.text[strings.LastIndexByte(m.text, ' ')+1:]
		if got, _ := s.found(t, alice, only, "recent"); !slices.Equal(got, []string{m.id}) {
			t.Fatalf("%q found %q, want %q", only, got, m.id)
		}
	}
	if blocks := s.wordBlocks(t, rooms[0]); blocks < 4 {
		t.Errorf("%d blocks of words after 20 searches of a room of 500 events", blocks)
	}
}

// wordBlocks counts the blocks of words of a room.
func (s *testServer) wordBlocks(t testing.TB, room string) (n int) {
	t.Helper()
	err := s.store.View(func(tx *store.Tx) error {
		num := tx.RoomNum(matrix.RoomID(room))
		for before := ^store.EventNum(0); ; n++ {
			block, ok, err := tx.WordBlockBefore(num, before)
			if !ok || err != nil {
				return err
			}
			before = block.First
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEachWord(t *testing.T) {
	for text, want := range map[string]string{
		"Hello, World!":          "hello world",
		"don't  stop2me":         "don t stop2me",
		"ÄRGER über straße":      "ärger über straße",
		"東京tower":                "東 京 tower",
		"emoji 👍 end":            "emoji end",
		"":                       "",
		strings.Repeat("x", 500): strings.Repeat("x", maxWordBytes),
	} {
		var got []string
		eachWord(text, func(word []byte) { got = append(got, string(word)) })
		if is := strings.Join(got, " "); is != want {
			t.Errorf("%q has the words %q, want %q", text, is, want)
		}
	}
}
