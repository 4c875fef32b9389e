package client

import (
	"context"
	"crypto/ed25519"
	"testing"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// An invite that came to be the state before it came as an event of its own, as part
// of a state that another server gave, is what its user is notified of.
func TestNoticeOfAnInviteThatWasAnOutlier(t *testing.T) {
	const far, bob = "@far:far.example", "@bob:hearth.test"
	ctx := context.Background()
	s := newTestServer(t, Config{})
	s.account(t, "bob", "secret")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	elsewhere, err := store.Open(t.TempDir(), "far.example", store.Options{NoSync: true})
	must(err)
	defer func() { must(elsewhere.Close()) }()
	key := matrix.SigningKey{ID: "ed25519:test", Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	rooms := state.New(state.Config{Store: elsewhere, Server: "far.example", Key: key, Now: s.clock.Now})
	room, err := rooms.Create(ctx, state.Creation{Creator: far, Preset: state.PresetPublic})
	must(err)
	timeline := func() (events []*matrix.Event) {
		must(elsewhere.View(func(tx *store.Tx) error {
			return tx.Timeline(tx.RoomNum(room), 0, func(ev *store.StoredEvent) (bool, error) {
				events = append(events, ev.Event)
				return true, nil
			})
		}))
		return events
	}
	_, err = s.rooms.AcceptAll(ctx, timeline())
	must(err)
	invitee := string(bob)
	draft := matrix.Draft{Room: room, Sender: far, Type: "m.room.member", StateKey: &invitee,
		Content: []byte(`{"membership":"invite"}`), OriginServerTS: s.clock.Now().UnixMilli()}
	events := timeline()
	tip := events[len(events)-1]
	placing := matrix.Placing{Prev: []matrix.EventID{tip.ID}, Depth: tip.Depth + 1}
	for _, ev := range events {
		if ev.Is("m.room.power_levels", "") || ev.Is("m.room.join_rules", "") || ev.Is("m.room.member", far) {
			placing.Auth = append(placing.Auth, ev.ID)
		}
	}
	invite, err := draft.Build(tip.Version, placing, "far.example", key)
	must(err)
	if verdict, err := rooms.Accept(ctx, invite); err != nil || verdict != state.Accepted {
		t.Fatalf("the invite elsewhere: %d, %v", verdict, err)
	}
	var last matrix.EventID
	for range 3 { // of which the first is not told of
		last, err = rooms.Send(ctx, store.TxnID{}, matrix.Draft{Room: room, Sender: far, Type: "m.room.message", Content: []byte(`{}`)})
		must(err)
	}
	source := state.Source{
		Missing: func(_ context.Context, _ state.MissingEvents, take func(*matrix.Event) error) error {
			return take(events[len(events)-2])
		},
		Events: func(_ context.Context, _ matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
			if ids[0] == events[len(events)-3].ID {
				return take(events[len(events)-3])
			}
			return take(invite)
		},
		StateIDs: func(_ context.Context, _ matrix.RoomID, _ matrix.EventID, take func(matrix.EventID) error) error {
			for _, ev := range timeline() {
				if ev.IsState() {
					if err := take(ev.ID); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	if events = timeline(); events[len(events)-1].ID != last {
		t.Fatal("the message is not the last event")
	}
	_, err = s.rooms.AcceptFrom(ctx, events[len(events)-1:], source)
	must(err)
	if verdicts, err := s.rooms.AcceptAll(ctx, []*matrix.Event{invite}); err != nil || verdicts[0] != state.Accepted {
		t.Fatalf("the invite: %d, %v", verdicts, err)
	}
	must(s.store.View(func(tx *store.Tx) error {
		in, num, _ := tx.EventByID(invite.ID)
		ev, err := tx.Event(in, num)
		if err != nil {
			return err
		}
		of, err := s.Notices(tx, tx.UserNum(bob), in)
		if err != nil {
			return err
		}
		notice, err := of(ev)
		if notice.Rule == nil || ev.AsideNum == 0 {
			t.Errorf("event %d, once %d: %+v", ev.Num, ev.AsideNum, notice)
		}
		return err
	}))
}
