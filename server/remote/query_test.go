package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hearth/state/matrix"
)

func TestReadAlias(t *testing.T) {
	for _, tt := range []struct {
		body, room, servers string
	}{
		{`{"room_id":"!r:x","servers":["a","b:8448"]}`, "!r:x", "a b:8448"},
		{`{"room_id":"!r:x","servers":["a",7,"not a name","a",null]}`, "!r:x", "a"},
		{`{"room_id":"!r:x"}`, "!r:x", "from.example"},
		{`{"room_id":"!r:x","servers":[]}`, "!r:x", "from.example"},
		{`{"room_id":"!r:x","servers":["` + strings.Repeat(`s","`, 99) + `t"]}`, "!r:x", "s t"},
		{`{"room_id":"r","servers":["a"]}`, "", ""},
		{`{"room_id":7,"servers":["a"]}`, "", ""},
		{`{"servers":["a"]}`, "", ""},
		{`[]`, "", ""},
		{``, "", ""},
	} {
		target, err := readAlias([]byte(tt.body), "from.example")
		var servers []string
		for _, s := range target.servers {
			servers = append(servers, string(s))
		}
		if string(target.room) != tt.room || strings.Join(servers, " ") != tt.servers || (err != nil) != (tt.room == "") {
			t.Errorf("%.60s: %s %v, %v", tt.body, target.room, servers, err)
		}
		if err != nil && !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", tt.body, err)
		}
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, `"s%d",`, i)
	}
	target, err := readAlias([]byte(`{"room_id":"!r:x","servers":[`+many.String()+`"a"]}`), "from.example")
	if err != nil || len(target.servers) != maxAliasServers {
		t.Errorf("%d servers, %v", len(target.servers), err)
	}
}

func TestReadProfile(t *testing.T) {
	body := `{"displayname":"Bob","avatar_url":7,"m.tz":null,"org.example.x":{"y":[1]},"org.example.none":null}`
	profile, ok := readProfile([]byte(body))
	if !ok || len(profile) != 2 || string(profile["displayname"]) != `"Bob"` || string(profile["org.example.x"]) != `{"y":[1]}` {
		t.Errorf("profile %v", profile)
	}
	for _, body := range []string{`[]`, `7`, `null`, ``, `{"a":`} {
		if _, ok := readProfile([]byte(body)); ok {
			t.Errorf("%q is a profile", body)
		}
	}
}

func TestReadPublicRooms(t *testing.T) {
	room := func(id string) string { return `{"room_id":"` + id + `","num_joined_members":3,"name":"N"}` }
	body := `{"chunk":[` + room("!a:x") + `,7,` + room("b") + `,{"room_id":"!c:x","name":7},` + room("!d:x") +
		`],"next_batch":"n","prev_batch":7,"total_room_count_estimate":-1}`
	page, ok := readPublicRooms([]byte(body))
	if !ok || len(page.Chunk) != 2 || page.Chunk[0].Room != "!a:x" || page.Chunk[1].Room != "!d:x" {
		t.Fatalf("%v %+v", ok, page)
	}
	if page.Next != "n" || page.Prev != "" || page.Total != 2 || page.Chunk[0].JoinRule != "public" || page.Chunk[0].Joined != 3 {
		t.Errorf("%+v", page)
	}
	page, ok = readPublicRooms([]byte(`{"chunk":[` + strings.Repeat(room("!a:x")+",", 2000) + room("!a:x") + `],"next_batch":"` + strings.Repeat("n", maxSince+1) + `"}`))
	if !ok || len(page.Chunk) != maxDirectoryPage || page.Next != "" {
		t.Errorf("%d rooms, token of %d bytes", len(page.Chunk), len(page.Next))
	}
	if _, ok := readPublicRooms([]byte(`{"chunk":{}}`)); ok {
		t.Error("an object is a list")
	}
}

func FuzzQueryAnswers(f *testing.F) {
	f.Add([]byte(`{"room_id":"!r:x","servers":["a"],"chunk":[{"room_id":"!a:x","num_joined_members":1}],"displayname":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if target, err := readAlias(body, "x"); err == nil && (len(target.servers) == 0 || len(target.servers) > maxAliasServers) {
			t.Errorf("%d servers", len(target.servers))
		}
		if profile, ok := readProfile(body); ok && profile == nil {
			t.Error("no profile")
		}
		if page, ok := readPublicRooms(body); ok && (len(page.Chunk) > maxDirectoryPage || page.Total < 0) {
			t.Errorf("%+v", page)
		}
	})
}

// Those who ask for the same wait for one request, an answer is remembered for a time,
// and what went wrong is not.
func TestAnswersAreRemembered(t *testing.T) {
	var asked atomic.Int32
	var query url.Values
	gate := make(chan struct{})
	n := oneHost(t, func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.Query()
		if asked.Add(1) == 1 {
			<-gate
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errcode":"M_NOT_FOUND","error":"none"}`)
			return
		}
		fmt.Fprint(w, `{"displayname":"Bob"}`)
	})
	var clock atomic.Int64
	n.config.Now = func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	user := matrix.UserID("@bob/é:far.example:1")
	var group sync.WaitGroup
	for range 5 {
		group.Go(func() {
			var answer *Error
			if _, err := n.Profile(t.Context(), user); !errors.As(err, &answer) || answer.Status != http.StatusNotFound {
				t.Errorf("error %v", err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	close(gate)
	group.Wait()
	first := asked.Load()
	if first > 5 || query.Get("user_id") != string(user) {
		t.Errorf("asked %d times, for %q", first, query.Get("user_id"))
	}
	for range 3 {
		profile, err := n.Profile(t.Context(), user)
		if err != nil || string(profile["displayname"]) != `"Bob"` {
			t.Fatalf("%v, %v", profile, err)
		}
	}
	if got := asked.Load() - first; got > 1 {
		t.Errorf("asked %d times more", got)
	}
	clock.Store(int64(profileLife))
	if _, err := n.Profile(t.Context(), user); err != nil || asked.Load() < 2 {
		t.Errorf("later: %v, asked %d times", err, asked.Load())
	}
}

// However much is remembered, it has a bound, and what is left over is right.
func TestAnswerCacheIsBounded(t *testing.T) {
	var cache answerCache[int]
	now := time.Unix(0, 0)
	for i := range 5000 {
		cache.put(fmt.Sprint(i%4000), kept[int]{i, 4000, now.Add(time.Duration(1+i%3) * time.Hour)}, now)
		sum := 0
		for _, k := range cache.kept {
			sum += k.bytes
		}
		if i%500 == 0 && (sum != cache.bytes || sum > answerBytes) {
			t.Fatalf("%d bytes, %d counted", sum, cache.bytes)
		}
	}
	if value, found := cache.get(fmt.Sprint(4999%4000), now); !found || value != 4999 {
		t.Errorf("the newest: %d %v", value, found)
	}
	cache.put("large", kept[int]{1, answerBytes, now.Add(time.Hour)}, now)
	if _, found := cache.get("large", now); found {
		t.Error("an answer is kept that is larger than the bound")
	}
	cache.put("a", kept[int]{1, 1, now.Add(time.Hour)}, now)
	if _, found := cache.get("a", now.Add(time.Hour)); found {
		t.Error("an answer outlives its time")
	}
}

// The directory of another server is asked by GET, as old servers know it, unless
// there is a filter.
func TestPublicRoomsOfAnother(t *testing.T) {
	var got []string
	n := oneHost(t, func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.URL.RequestURI())
		fmt.Fprint(w, `{"chunk":[{"room_id":"!a:x","num_joined_members":1}]}`)
	})
	for _, req := range []PublicRoomsRequest{{}, {Limit: 9999, Since: "a b"}, {Filter: PublicRoomsFilter{Term: "x"}}} {
		if page, err := n.PublicRooms(t.Context(), far, req); err != nil || len(page.Chunk) != 1 {
			t.Errorf("%+v, %v", page, err)
		}
	}
	want := []string{
		"GET /_matrix/federation/v1/publicRooms?limit=100",
		"GET /_matrix/federation/v1/publicRooms?limit=500&since=a+b",
		"POST /_matrix/federation/v1/publicRooms",
	}
	if !slices.Equal(got, want) {
		t.Errorf("asked %q", got)
	}
	if _, err := n.PublicRooms(t.Context(), far, PublicRoomsRequest{Limit: -1}); err == nil || len(got) != 3 {
		t.Errorf("a bad request: %v", err)
	}
}

// Servers are asked about a room until one tells of it, and not again for minutes.
func TestSpace(t *testing.T) {
	asked := 0
	n := oneHost(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		fmt.Fprint(w, `{"room":{"room_id":"!s:x","num_joined_members":1,"name":"S"},"children":[],"inaccessible_children":[]}`)
	})
	via := []matrix.ServerName{ourName, "gone.example:1", far}
	if _, fresh, err := n.Space(t.Context(), "!s:x", nil); err == nil || fresh {
		t.Errorf("with nobody to ask: %v %v", fresh, err)
	}
	for i := range 3 {
		answer, fresh, err := n.Space(t.Context(), "!s:x", via)
		if err != nil || answer.Room.Name != "S" || fresh != (i == 0) {
			t.Fatalf("%+v %v %v", answer, fresh, err)
		}
	}
	if answer, fresh, err := n.Space(t.Context(), "!s:x", nil); err != nil || fresh || answer.Room.Name != "S" {
		t.Errorf("what is remembered: %v %v", fresh, err)
	}
	if _, _, err := n.Space(t.Context(), "!other:x", via); !errors.Is(err, ErrUnreachable) || asked != 2 {
		t.Errorf("an answer about another room: %v, asked %d times", err, asked)
	}
	if _, _, err := n.Space(t.Context(), "!t:x", []matrix.ServerName{ourName}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("ourselves: %v", err)
	}
}

// An alias is asked for at its own server.
func TestAliasOfAnother(t *testing.T) {
	n := oneHost(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("room_alias") != "#é +&:far.example:1" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, `{"room_id":"!r:x","servers":["a"]}`)
	})
	room, servers, err := n.Alias(context.Background(), "#é +&:far.example:1")
	if err != nil || room != "!r:x" || !slices.Equal(servers, []matrix.ServerName{"a"}) {
		t.Errorf("%s %v %v", room, servers, err)
	}
}
