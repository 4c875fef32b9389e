package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
)

// Whatever a server answers to a join is read to its end or refused, a spool holds
// what was read, and each event comes behind what it cites.
func FuzzJoinAnswer(f *testing.F) {
	h := newHomestead(f, there)
	room := h.create("10", 2)
	v, _ := matrix.VersionByID("10")
	key := string(erin)
	join, err := matrix.Draft{
		Room: room, Sender: erin, Type: "m.room.member", StateKey: &key, Content: jsontext.Value(`{"membership":"join"}`),
	}.Build(v, matrix.Placing{Depth: 1}, here, keyOfServer(here))
	h.must(err)
	for _, change := range []func(*residentAnswer){
		func(*residentAnswer) {},
		func(a *residentAnswer) { a.More = []byte(`{"members_omitted":false,"x":[{"y":[1,"z"]}]}`) },
		func(a *residentAnswer) { a.State, a.Event = append(a.State, a.Auth...), nil },
	} {
		h.change = change
		r, err := h.template(room, "@x:here.test", matrix.Join)
		h.must(err)
		text, _ := io.ReadAll(r)
		p, err := state.ReadProposal(text, room, "@x:here.test", matrix.Join)
		h.must(err)
		who := "@x:here.test"
		ev, err := matrix.Draft{
			Room: room, Sender: p.User, Type: "m.room.member", StateKey: &who, Content: jsontext.Value(`{"membership":"join"}`),
		}.Build(v, p.Placing, here, keyOfServer(here))
		h.must(err)
		for _, old := range []bool{false, true} {
			r, err := h.sendJoin(room, ev.JSON(), old, "")
			h.must(err)
			text, _ := io.ReadAll(r)
			f.Add(text, old)
		}
	}
	f.Add([]byte(`{"state":[],"auth_chain":[]}`), false)
	f.Add([]byte(`[200,{"auth_chain":[],"state":[{}]}]`), true)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, answer []byte, old bool) {
		s, err := createSpool(filepath.Join(dir, "x"+spoolSuffix))
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		index := newJoinIndex(v, room)
		err = readJoinAnswer(bytes.NewReader(answer), old, join.ID, s, index)
		if err != nil {
			if !errors.Is(err, state.ErrGivenState) && !errors.Is(err, io.EOF) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again := newJoinIndex(v, room)
		if err := readJoinSpool(s, again); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(again.events) != fmt.Sprint(index.events) || again.came != index.came {
			t.Fatalf("read again: %v, was %v", again.events, index.events)
		}
		behind := make(map[uint32]bool)
		for _, n := range index.order() {
			e := again.events[n]
			for _, cited := range again.cites[e.cites : e.cites+uint32(e.count)] {
				if again.events[cited].came && !behind[cited] {
					t.Fatalf("%d comes before %d, which it cites", n, cited)
				}
			}
			behind[n] = true
			if _, data, err := s.read(e.place); err != nil {
				t.Fatal(err)
			} else if _, err := matrix.Parse(v, bytes.Clone(data)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Whatever a server proposes is what was asked for, or refused.
func FuzzProposal(f *testing.F) {
	for _, version := range []string{"1", "6", "10", "12"} {
		f.Add([]byte(`{"room_version":"` + version + `","event":{"room_id":"!r:x","type":"m.room.member","sender":"@u:x","state_key":"@u:x",` +
			`"content":{"membership":"join","join_authorised_via_users_server":"@v:y"},"prev_events":["$a"],"auth_events":["$b"],"depth":7}}`))
	}
	f.Add([]byte(`{"event":{"room_id":"!r:x","type":"m.room.member","sender":"@u:x","state_key":"@u:x","content":{"membership":"join"},` +
		`"prev_events":[["$a:x",{"sha256":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"}]],"auth_events":[],"depth":9007199254740991}}`))
	h := newHomestead(f, "x")
	f.Fuzz(func(t *testing.T, answer []byte) {
		p, err := state.ReadProposal(answer, "!r:x", "@u:x", matrix.Join)
		if err != nil {
			if !errors.Is(err, state.ErrBadProposal) && !errors.Is(err, state.ErrUnsupportedVersion) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		ev, err := h.rooms.Draft(p, state.Join{Room: "!r:x", User: "@u:x"})
		if err != nil {
			return
		}
		member, err := ev.Member()
		if err != nil || ev.Room != "!r:x" || !ev.Is("m.room.member", "@u:x") || ev.Sender != "@u:x" || member.Membership != matrix.Join {
			t.Fatalf("drafted %s: %v", ev.JSON(), err)
		}
	})
}
