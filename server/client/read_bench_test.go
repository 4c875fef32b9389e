package client

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"testing"

	"github.com/go-json-experiment/json"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// The household whose reading BenchmarkRead measures.
const (
	benchHistory = 1000 // messages of the long room, by eight senders
	benchMembers = 500  // of the big room
	benchRooms   = 200  // of the owner
)

// BenchmarkRead measures what the answers of the endpoints that read rooms cost,
// from the request to the last byte, without a network: a first sync of 200 rooms,
// a page of 100 events, and who and what is in a room of 500 members.
func BenchmarkRead(b *testing.B) {
	h := newReadHouse(b)
	lazy := url.QueryEscape(`{"room":{"timeline":{"limit":20},"state":{"lazy_load_members":true}}}`)
	big := "/_matrix/client/v3/rooms/" + url.PathEscape(string(h.big))
	long := "/_matrix/client/v3/rooms/" + url.PathEscape(string(h.long))
	for _, row := range []struct{ name, path string }{
		{"sync", "/_matrix/client/v3/sync"},
		{"sync lazy", "/_matrix/client/v3/sync?filter=" + lazy},
		{"sync nothing", "/_matrix/client/v3/sync?since=" + h.token(b)},
		{"messages", long + "/messages?dir=b&limit=100"},
		{"members", big + "/members"},
		{"joined_members", big + "/joined_members"},
		{"state", big + "/state"},
	} {
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.get(b, row.path)
			}
		})
	}
}

// readHouse is a household whose owner is in many rooms.
type readHouse struct {
	*testServer
	owner     string // his access token
	long, big matrix.RoomID
}

func newReadHouse(b *testing.B) *readHouse {
	h := &readHouse{testServer: newTestServer(b, Config{})}
	h.owner = h.account(b, "owner", "a good password")
	owner := h.userID(b, "owner")
	for i := range benchRooms {
		room := h.room(b, state.Creation{Creator: owner, Preset: state.PresetPrivate, Name: "Room " + strconv.Itoa(i), Topic: "a topic"})
		for j := range 5 {
			h.say(b, room, owner, j)
		}
	}
	h.long = h.room(b, state.Creation{Creator: owner, Preset: state.PresetPublic, Name: "Household"})
	h.big = h.room(b, state.Creation{Creator: owner, Preset: state.PresetPublic, Name: "Village"})
	members := []matrix.UserID{owner}
	for i := 1; i < benchMembers; i++ {
		member := h.userID(b, "member"+strconv.Itoa(i))
		members = append(members, member)
		h.join(b, h.big, member)
		if i < 8 {
			h.join(b, h.long, member)
		}
	}
	for i := range benchHistory {
		h.say(b, h.long, members[i%8], i)
	}
	return h
}

func (h *readHouse) userID(b *testing.B, name string) matrix.UserID {
	b.Helper()
	user, err := matrix.NewUserID(name, testServerName)
	if err != nil {
		b.Fatal(err)
	}
	return user
}

func (h *readHouse) room(b *testing.B, c state.Creation) matrix.RoomID {
	b.Helper()
	room, err := h.rooms.Create(context.Background(), c)
	if err != nil {
		b.Fatal(err)
	}
	return room
}

func (h *readHouse) join(b *testing.B, room matrix.RoomID, user matrix.UserID) {
	b.Helper()
	if err := h.rooms.Join(context.Background(), state.Join{Room: room, User: user}); err != nil {
		b.Fatal(err)
	}
}

// say sends one message of some 200 bytes.
func (h *readHouse) say(b *testing.B, room matrix.RoomID, user matrix.UserID, i int) {
	b.Helper()
	body := fmt.Sprintf(`{"msgtype":"m.text","body":"message %d: %0150d"}`, i, i)
	_, err := h.rooms.Send(context.Background(), store.TxnID{}, matrix.Draft{Room: room, Sender: user, Type: "m.room.message", Content: []byte(body)})
	if err != nil {
		b.Fatal(err)
	}
}

// get asks for a path as the owner and returns the answer.
func (h *readHouse) get(b *testing.B, path string) *httptest.ResponseRecorder {
	w := h.do(http.MethodGet, path, h.owner, "")
	if w.Code != http.StatusOK {
		b.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return w
}

// token returns a token at the newest position.
func (h *readHouse) token(b *testing.B) string {
	var answer struct {
		NextBatch string `json:"next_batch"`
	}
	if err := json.Unmarshal(h.get(b, "/_matrix/client/v3/sync").Body.Bytes(), &answer); err != nil {
		b.Fatal(err)
	}
	return answer.NextBatch
}
