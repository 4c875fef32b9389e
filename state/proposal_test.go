package state

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// signaturesOf are the signatures of the other server on an event, with a key.
func signaturesOf(t *testing.T, ev *matrix.Event, keyID string) map[string]string {
	t.Helper()
	key := awayKey
	key.ID = keyID
	signed, err := ev.Signed(away, key)
	if err != nil {
		t.Fatal(err)
	}
	return signed.SignaturesOf(away)
}

// invites answers for the other server.
type invites struct {
	*house
	asked   []*matrix.Event
	known   int
	refusal error
	during  func() // happens meanwhile
}

func (i *invites) invite(_ context.Context, ev *matrix.Event, known []*matrix.Event) (map[string]string, error) {
	i.asked, i.known = append(i.asked, ev), len(known)
	if i.during != nil {
		i.during()
	}
	if i.refusal != nil {
		return nil, i.refusal
	}
	return signaturesOf(i.T, ev, awayKey.ID), nil
}

func newInvites(h *house) *invites {
	i := &invites{house: h}
	h.rooms.SetOutside(Outside{Invite: i.invite})
	return i
}

// A user of another server is invited once that server has signed, by each of the
// ways to invite.
func TestInviteElsewhere(t *testing.T) {
	for _, v := range matrix.Versions() {
		t.Run(v.ID, func(t *testing.T) {
			h := newHouse(t)
			i := newInvites(h)
			room := h.create(Creation{Creator: alice, Version: v.ID, Invite: []matrix.UserID{zoe, bob, zoe}})
			h.wantOutside(room, zoe, matrix.Invite)
			h.wantMember(room, bob, matrix.Invite)
			h.must(h.change(room, alice, zoe, matrix.Leave))
			i.during = func() { h.send(room, alice, "m.room.message", `{"body":"meanwhile"}`) }
			h.must(h.change(room, alice, zoe, matrix.Invite))
			h.must(h.change(room, alice, zoe, matrix.Leave))
			id, err := h.set(room, alice, "m.room.member", string(zoe), `{"membership":"invite"}`)
			h.must(err)
			ev := h.event(id)
			if len(i.asked) != 3 || i.known < 3 || i.asked[2].ID != id {
				t.Fatalf("%d invites were signed, with %d events", len(i.asked), i.known)
			}
			if len(ev.SignaturesOf(away)) != 1 || len(ev.SignaturesOf("home.example")) != 1 || ev.Relay {
				t.Errorf("the invite is %s", ev.JSON())
			}
			h.wantOutside(room, zoe, matrix.Invite)
		})
	}
}

// An invite that the other server refuses is not made, and a new room stands without.
func TestInviteElsewhereRefused(t *testing.T) {
	h := newHouse(t)
	i := newInvites(h)
	i.refusal = errors.New("not today")
	room := h.create(Creation{Creator: alice, Invite: []matrix.UserID{zoe}})
	before := h.store.Position()
	if err := h.change(room, alice, zoe, matrix.Invite); !errors.Is(err, i.refusal) {
		t.Errorf("a refused invite: %v", err)
	}
	h.wantOutside(room, zoe, "")
	if h.store.Position() != before {
		t.Error("a refused invite left something behind")
	}
	i.refusal, i.during = nil, func() { h.must(h.change(room, alice, zoe, matrix.Ban)) }
	h.wantReason("an invite of who is banned meanwhile", h.change(room, alice, zoe, matrix.Invite), ErrForbidden)
	h.wantOutside(room, zoe, matrix.Ban)

	i.asked, i.during = nil, nil
	h.wantReason("an invite by who is not in the room", h.change(room, carol, "@eve:away.example", matrix.Invite), ErrForbidden)
	closed := h.create(Creation{Creator: alice, Content: []byte(`{"m.federate":false}`)})
	h.wantReason("an invite to a room of this server alone", h.change(closed, alice, zoe, matrix.Invite), ErrForbidden)
	if len(i.asked) > 0 {
		t.Error("the other server was asked for nothing")
	}
}

// policyServer answers for the other server, too.
type policyServer struct {
	*house
	asked   int
	refusal error
	against string // a type of events that it refuses
	bad     bool   // signs with another key
	during  func() // happens meanwhile
}

func (p *policyServer) sign(_ context.Context, server matrix.ServerName, ev *matrix.Event) (map[string]string, error) {
	p.asked++
	if server != away {
		p.Errorf("%s is asked", server)
	}
	if during := p.during; during != nil {
		p.during = nil
		during()
		p.during = during
	}
	if p.refusal != nil {
		return nil, p.refusal
	}
	if ev.Type == p.against {
		return nil, errors.New("not such events")
	}
	signatures := signaturesOf(p.T, ev, policyKeyID)
	if p.bad {
		signatures[policyKeyID] = "AAAA" + signatures[policyKeyID][4:]
	}
	return signatures, nil
}

// policed is a room with a policy server.
func policed(t *testing.T) (*policyServer, matrix.RoomID) {
	t.Helper()
	h := newHouse(t)
	p := &policyServer{house: h}
	h.rooms.SetOutside(Outside{Sign: p.sign})
	room := h.create(Creation{Creator: alice, Preset: PresetPublic})
	_, err := h.set(room, alice, "m.room.policy", "", policyContent())
	h.must(err)
	h.send(room, alice, "m.room.message", `{"body":"its policy server has nobody there"}`)
	h.admit(room, zoe, matrix.Join)
	if p.asked > 0 {
		t.Fatal("a server was asked before it was the room's policy server")
	}
	return p, room
}

// In a room with a policy server nothing of ours goes out without its signature but
// what says who that is.
func TestPolicySend(t *testing.T) {
	p, room := policed(t)
	h := p.house
	var device store.TxnID
	h.must(h.store.View(func(tx *store.Tx) error {
		device = store.TxnID{User: tx.UserNum(alice), Device: "D", ID: "1"}
		return nil
	}))
	send := func(txn store.TxnID) (matrix.EventID, error) {
		return h.rooms.Send(context.Background(), txn, matrix.Draft{Room: room, Sender: alice, Type: "m.room.message", Content: []byte(`{"body":"x"}`)})
	}
	id, err := send(device)
	h.must(err)
	if ev := h.event(id); ev.SignaturesOf(away)[policyKeyID] == "" || ev.Txn.ID != "1" || ev.Num.Aside() {
		t.Errorf("sent %s, txn %+v", ev.JSON(), ev.Txn)
	}
	if again, err := send(device); again != id || err != nil || p.asked != 1 {
		t.Errorf("the same request again: %s, %v, asked %d times", again, err, p.asked)
	}
	h.must(h.join(room, bob))
	_, err = h.rooms.Redact(context.Background(), room, alice, id, []byte(`{}`), store.TxnID{})
	h.must(err)
	if p.asked != 3 {
		t.Errorf("asked %d times, want for a join and a redaction", p.asked)
	}

	kitchen := matrix.RoomAlias("#kitchen:home.example")
	h.must(h.rooms.AddAlias(context.Background(), kitchen, room, Keeper{User: alice}))
	_, err = h.set(room, alice, "m.room.canonical_alias", "", `{"alias":"#kitchen:home.example"}`)
	h.must(err)
	h.must(h.rooms.DeleteAlias(context.Background(), kitchen, Keeper{User: alice}))
	if ev := h.newest(room); ev.Type != "m.room.canonical_alias" || ev.SignaturesOf(away)[policyKeyID] == "" || p.asked != 5 {
		t.Errorf("an alias is deleted by %s, asked %d times", ev.JSON(), p.asked)
	}
	if _, err := h.rooms.AliasRoom(kitchen); !errors.Is(err, ErrUnknownAlias) {
		t.Errorf("the alias that was deleted: %v", err)
	}

	before := h.store.Position()
	p.refusal = errors.New("spam")
	if _, err := send(store.TxnID{}); !errors.Is(err, p.refusal) {
		t.Errorf("a refused event: %v", err)
	}
	p.refusal, p.bad = nil, true
	_, err = send(store.TxnID{})
	h.wantReason("a bad signature", err, ErrPolicy)
	if h.store.Position() != before {
		t.Error("a refused event left something behind")
	}
	p.asked = 0
	_, err = h.set(room, alice, "m.room.policy", "", `{"via":"`+string(away)+`"}`)
	h.must(err)
	_, err = send(store.TxnID{})
	h.must(err)
	if p.asked > 0 {
		t.Error("a server was asked that is not the room's policy server any more")
	}
}

// at returns the event of a room's current state for a type, nil for none.
func (h *house) at(room matrix.RoomID, typ string) *store.StoredEvent {
	h.Helper()
	id, has := h.current(room)[auth.Key{Type: typ}]
	if !has {
		return nil
	}
	return h.event(id)
}

// A room with a policy server is upgraded once that has signed the tombstone, and the
// new power levels if it likes.
func TestPolicyUpgrade(t *testing.T) {
	upgrade := func(h *house, room matrix.RoomID, version string) (matrix.RoomID, error) {
		return h.rooms.Upgrade(context.Background(), room, alice, version, nil)
	}
	for _, version := range []string{"2", "11", "12"} {
		p, room := policed(t)
		h := p.house
		others := 2
		p.during = func() {
			if others--; others == 0 {
				h.admit(room, "@eve:away.example", matrix.Join)
			}
		}
		fresh, err := upgrade(h, room, version)
		h.must(err)
		tombstone, levels := h.at(room, "m.room.tombstone"), h.at(room, "m.room.power_levels")
		for _, ev := range []*store.StoredEvent{tombstone, levels} {
			if ev == nil || ev.SignaturesOf(away)[policyKeyID] == "" || ev.Num.Aside() {
				t.Errorf("version %s: the old room ends with %v", version, ev)
			}
		}
		if got := replacement(tombstone); got != fresh || p.asked != 5 {
			t.Errorf("version %s: %s replaces the room, not %s; asked %d times", version, got, fresh, p.asked)
		}
		create := h.at(fresh, "m.room.create")
		if wants := version != "12"; wants != strings.Contains(string(create.Content), string(tombstone.ID)) {
			t.Errorf("version %s: the new room follows %s", version, create.Content)
		}
	}

	p, room := policed(t)
	before := p.store.Position()
	p.against = "m.room.tombstone"
	if _, err := upgrade(p.house, room, "11"); err == nil || p.store.Position() != before {
		t.Errorf("an upgrade without a tombstone: %v", err)
	}
	p.against = "m.room.power_levels"
	levels := p.at(room, "m.room.power_levels").ID
	_, err := upgrade(p.house, room, "11")
	p.must(err)
	if tombstone := p.at(room, "m.room.tombstone"); tombstone == nil || p.at(room, "m.room.power_levels").ID != levels {
		t.Errorf("an upgrade without new power levels: %v", tombstone)
	}

	p, room = policed(t)
	kitchen := matrix.RoomAlias("#kitchen:home.example")
	p.must(p.rooms.AddAlias(context.Background(), kitchen, room, Keeper{User: alice}))
	_, err = p.set(room, alice, "m.room.canonical_alias", "", `{"alias":"#kitchen:home.example"}`)
	p.must(err)
	p.against = "m.room.canonical_alias"
	fresh, err := upgrade(p.house, room, "12")
	p.must(err)
	if id, err := p.rooms.AliasRoom(kitchen); id != fresh || err != nil || p.at(room, "m.room.tombstone") == nil {
		t.Errorf("an upgrade whose old room keeps its aliases in its state: %s leads to %s, %v", kitchen, id, err)
	}

	p, room = policed(t)
	p.during = func() { p.admit(room, matrix.UserID(fmt.Sprintf("@u%d:away.example", p.asked)), matrix.Join) }
	_, err = upgrade(p.house, room, "11")
	p.wantReason("an upgrade of a room that is never quiet", err, ErrPolicy)
}

// What comes without the policy server's signature is asked about, and fails softly
// where that is refused.
func TestPolicyReceive(t *testing.T) {
	p, room := policed(t)
	h := p.house
	from := func(sign bool) *matrix.Event {
		t.Helper()
		ev := h.build(room, []*matrix.Event{h.newest(room)}, 100, matrix.Draft{Sender: zoe, Type: "m.room.message", Content: []byte(`{"body":"hello"}`)})
		if !sign {
			return ev
		}
		ev, err := ev.WithSignatures(away, signaturesOf(t, ev, policyKeyID))
		h.must(err)
		return ev
	}
	if verdict := h.accept(from(true)); verdict != Accepted || p.asked != 0 {
		t.Errorf("a signed event: %v, asked %d times", verdict, p.asked)
	}
	ev := from(false)
	if verdict := h.accept(ev); verdict != Accepted || p.asked != 1 || h.event(ev.ID).SignaturesOf(away)[policyKeyID] == "" {
		t.Errorf("an unsigned event: %v, asked %d times, stored as %s", verdict, p.asked, h.event(ev.ID).JSON())
	}
	p.refusal = errors.New("spam")
	first, second := from(false), from(true)
	verdicts, err := h.rooms.AcceptAll(context.Background(), []*matrix.Event{second, first})
	if err != nil || len(verdicts) != 2 || verdicts[0] != Accepted || verdicts[1] != SoftFailed {
		t.Errorf("a signed event and a refused one: %v, %v", verdicts, err)
	}
	asked := p.asked
	if verdicts, err := h.rooms.AcceptUndoubted(context.Background(), []*matrix.Event{from(true), from(false)}); len(verdicts) != 1 || !errors.Is(err, ErrUnsigned) || p.asked != asked {
		t.Errorf("who asks nobody: %v, %v, asked %d times", verdicts, err, p.asked-asked)
	}
	h.rooms.SetOutside(Outside{})
	if verdict := h.accept(from(false)); verdict != SoftFailed {
		t.Errorf("nobody to ask: %v", verdict)
	}
	ended, cancel := context.WithCancel(context.Background())
	h.rooms.SetOutside(Outside{Sign: func(context.Context, matrix.ServerName, *matrix.Event) (map[string]string, error) {
		cancel()
		return nil, errors.New("cut off")
	}})
	late := from(false)
	if _, err := h.rooms.Accept(ended, late); err == nil || h.has(late.ID) {
		t.Errorf("an event whose asking was cut off: %v", err)
	}
}
