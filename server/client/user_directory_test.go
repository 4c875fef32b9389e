package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

func TestUserTerm(t *testing.T) {
	const none = -1
	for _, row := range []struct {
		term, id, name string
		want           int
	}{
		{"@alice:x", "@alice:x", "", rankID},
		{"@ALICE:X", "@alice:x", "", rankID},
		{"alice", "@alice:x", "Wonder", rankName},
		{"@alice", "@alice:x", "Wonder", rankName},
		{"alice cooper", "@ac:x", "Alice  Cooper", rankName},
		{"coop", "@ac:x", "Alice Cooper", rankBegin},
		{"cooper ali", "@ac:x", "Alice Cooper", rankBegin},
		{"@al", "@alice:x", "", rankBegin},
		{"al", "@alice:x", "", rankBegin},
		{"lice", "@alice:x", "", rankPart},
		{"oope ali", "@ac:x", "Alice Cooper", rankPart},
		{"alice", "@ac:x", "", none},
		{"x", "@ac:x", "", none},
		{"alice bob", "@ac:x", "Alice Cooper", none},
		{"ÄRGER", "@a:x", "ärger", rankName},
		{"σίσυφοσ", "@a:x", "ΣΊΣΥΦΟΣ", rankName}, // final and other sigmas are one letter
		{"σίσυφος", "@a:x", "ΣΊΣΥΦΟΣ", rankName},
		{"\u212aelvin", "@a:x", "kelvin", rankName},
		{"山田", "@a:x", "小山田", rankPart},
	} {
		rank, ok := newUserTerm(row.term).match(matrix.UserID(row.id), row.name)
		if !ok {
			rank = none
		}
		if rank != row.want {
			t.Errorf("%q finds %s %q with rank %d, want %d", row.term, row.id, row.name, rank, row.want)
		}
	}
}

// putMembers puts remote users with names into a room, from the number first on.
func putMembers(t testing.TB, s *testServer, room string, server matrix.ServerName, first, n int) {
	t.Helper()
	for end := first + n; first < end; first += 500 {
		err := s.store.Update(t.Context(), func(tx *store.Tx) error {
			key, err := tx.SigningKey()
			if err != nil {
				return err
			}
			num, head, err := state.Head(tx, matrix.RoomID(room))
			if err != nil {
				return err
			}
			prev, err := tx.EventID(num, head.Latest)
			if err != nil {
				return err
			}
			for i := first; i < min(end, first+500); i++ {
				user := fmt.Sprintf("@user%d:%s", i, server)
				draft := matrix.Draft{
					Room: matrix.RoomID(room), Sender: matrix.UserID(user), Type: "m.room.member", StateKey: &user,
					Content: fmt.Appendf(nil, `{"membership":"join","displayname":"Person Number%d"}`, i), OriginServerTS: int64(i),
				}
				ev, err := draft.Build(head.Version, matrix.Placing{Prev: []matrix.EventID{prev}, Depth: head.Depth + 1}, server, key)
				if err != nil {
					return err
				}
				slot, err := tx.PutSlot(num, "m.room.member", user)
				if err != nil {
					return err
				}
				at, err := tx.NextEventNum(false)
				if err != nil {
					return err
				}
				stored := store.NewEvent{Event: ev, Before: head.Current, Slot: slot, HasSlot: true}
				if stored.After, err = tx.Derive(num, head.Current, store.StateChange{Slot: slot, Event: at}); err != nil {
					return err
				}
				head.Current, head.Extremities, head.Latest, head.Depth = stored.After, []store.EventNum{at}, at, ev.Depth
				head.Joined++
				if err := errors.Join(tx.PutEvent(num, at, stored), tx.CountRoomServer(num, server, 1)); err != nil {
					return err
				}
				prev = ev.ID
			}
			return tx.PutHead(num, head)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// searchFor returns the localparts that a search finds, "+" behind them where there
// are more.
func searchFor(t testing.TB, s *testServer, token, term string) string {
	t.Helper()
	w := s.do("POST", "/_matrix/client/v3/user_directory/search", token, fmt.Sprintf(`{"search_term":%q}`, term))
	var answer directoryResponse
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("search: %d %s", w.Code, w.Body)
	}
	var names []string
	for _, user := range answer.Results {
		names = append(names, user.User.Localpart())
	}
	if answer.Limited {
		names = append(names, "+")
	}
	return strings.Join(names, " ")
}

// Remote users are found by the names in the rooms that one may see, and by ID.
func TestDirectoryOfRemoteUsers(t *testing.T) {
	s, alice, bob, public := presenceHouse(t, Config{})
	eve := s.account(t, "eve", "secret")
	var answer struct {
		Room string `json:"room_id"`
	}
	w := s.do("POST", "/_matrix/client/v3/createRoom", bob, `{"preset":"private_chat"}`)
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	putMembers(t, s, public, "other.test", 1, 12)
	putMembers(t, s, answer.Room, "other.test", 100, 1)
	putMember(t, s, public, "@user5:other.test", matrix.Leave)
	for _, row := range []struct{ token, term, want string }{
		{eve, "number7", "user7"},
		{eve, "NUMBER7 person", "user7"},
		{eve, "user7", "user7"},
		{eve, "@user7:other.test", "user7"},
		{eve, "number5", ""},
		{eve, "@user5:other.test", ""},
		{eve, "number100", ""},
		{eve, "@user100:other.test", ""},
		{alice, "user100", ""},
		{bob, "number100", "user100"},
		{bob, "@user100:other", "user100"},
		{eve, "user1", "user1 user10 user11 user12"},
		{eve, "person", "user10 user11 user12 user1 user2 user3 user4 user6 user7 user8 +"},
	} {
		if got := searchFor(t, s, row.token, row.term); got != row.want {
			t.Errorf("%q finds %q, want %q", row.term, got, row.want)
		}
	}
}

// The work of one search is bounded, whatever the rooms: members of the small rooms
// are found by name, those of a large one by ID.
func TestDirectoryOfLargeRooms(t *testing.T) {
	s, alice, _, large := presenceHouse(t, Config{})
	putMembers(t, s, large, "other.test", 1, maxMembersRead+500)
	var answer struct {
		Room string `json:"room_id"`
	}
	w := s.do("POST", "/_matrix/client/v3/createRoom", alice, `{"preset":"private_chat"}`)
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	putMembers(t, s, answer.Room, "small.test", 90_000, 3)
	for term, want := range map[string]string{
		"number90001":   "user90001",
		"number5400":    "",
		"@user5400":     "user5400",
		"nobody at all": "",
	} {
		if got := searchFor(t, s, alice, term); got != want {
			t.Errorf("%q finds %q, want %q", term, got, want)
		}
	}
}

// BenchmarkUserDirectory searches where there is most to look at.
func BenchmarkUserDirectory(b *testing.B) {
	s, alice, _, large := presenceHouse(b, Config{})
	putMembers(b, s, large, "other.test", 1, 3*maxMembersRead)
	who := s.who(b, alice)
	for i := range 1000 {
		id := matrix.UserID(fmt.Sprintf("@local%d:%s", i, testServerName))
		if err := s.store.Update(b.Context(), func(tx *store.Tx) error { _, err := tx.CreateAccount(id, store.Account{}); return err }); err != nil {
			b.Fatal(err)
		}
	}
	for name, look := range map[string]func(*directorySearch) error{
		"accounts": (*directorySearch).searchAccounts,
		"ids":      (*directorySearch).searchIDs,
		"members":  (*directorySearch).searchMembers,
	} {
		term := newUserTerm(map[string]string{"ids": "user", "accounts": "nobody", "members": "nobody"}[name])
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				err := s.store.View(func(tx *store.Tx) error {
					d := &directorySearch{
						tx: tx, who: who, term: term, search: &listSearch{tx: tx, who: who},
						public: make(map[store.RoomNum]bool), done: make(map[matrix.UserID]bool),
					}
					return look(d)
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
