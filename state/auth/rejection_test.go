package auth_test

import (
	"errors"
	"slices"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// checkAuth checks ev on the events of the room that it cites and on more. bad are
// those that were rejected.
func (r *room) checkAuth(ev *matrix.Event, more []*matrix.Event, bad ...*matrix.Event) error {
	given := more
	for _, known := range r.events {
		if slices.Contains(ev.AuthEvents, known.ID) || r.v.RoomIDIsHash && known.Type == "m.room.create" {
			given = append(given, known)
		}
	}
	return auth.CheckAuthEvents(ev, given, func(id matrix.EventID) bool {
		return slices.ContainsFunc(bad, func(b *matrix.Event) bool { return b.ID == id })
	})
}

// citing is ev with further auth events.
func citing(ev *matrix.Event, more ...*matrix.Event) *matrix.Event {
	return with(ev, func(ev *matrix.Event) {
		ev.AuthEvents = slices.Clone(ev.AuthEvents)
		for _, m := range more {
			ev.AuthEvents = append(ev.AuthEvents, m.ID)
		}
	})
}

func (r *room) get(typ, stateKey string) *matrix.Event {
	return r.events[auth.Key{Type: typ, StateKey: stateKey}]
}

// asSelected checks carol's message on what it should cite.
func asSelected(r *room) error {
	r.crowd()
	return r.checkAuth(r.message(carol), nil)
}

var authEventCases = []ruleCase{
	{rule: auth.AuthDuplicate, name: "same event twice", run: func(r *room) error {
		levels := r.crowd().get("m.room.power_levels", "")
		return r.checkAuth(citing(r.message(carol), levels), nil)
	}},
	{rule: auth.AuthDuplicate, name: "older event of the same key", run: func(r *room) error {
		old := r.crowd().get("m.room.power_levels", "")
		r.levels(`{}`)
		return r.checkAuth(citing(r.message(carol), old), []*matrix.Event{old})
	}},
	{rule: auth.AuthDuplicate, name: "as selected", ok: true, run: asSelected},

	{rule: auth.AuthExcess, name: "another's membership", run: func(r *room) error {
		return r.checkAuth(citing(r.crowd().message(carol), r.get("m.room.member", string(bob))), nil)
	}},
	{rule: auth.AuthExcess, name: "join rule of a leave", run: func(r *room) error {
		r.crowd().joinRule("public")
		return r.checkAuth(citing(r.change(carol, carol, "leave"), r.get("m.room.join_rules", "")), nil)
	}},
	{rule: auth.AuthExcess, name: "message", run: func(r *room) error {
		m := r.crowd().message(bob)
		return r.checkAuth(citing(r.message(carol), m), []*matrix.Event{m})
	}},
	{rule: auth.AuthExcess, name: "as selected", ok: true, run: asSelected},
	{rule: auth.AuthExcess, name: "less than selected", ok: true, run: func(r *room) error {
		m := r.crowd().message(carol)
		levels := r.get("m.room.power_levels", "").ID
		return r.checkAuth(with(m, func(ev *matrix.Event) {
			ev.AuthEvents = slices.DeleteFunc(slices.Clone(ev.AuthEvents), func(id matrix.EventID) bool { return id == levels })
		}), nil)
	}},

	{rule: auth.AuthRejected, name: "levels", run: func(r *room) error {
		return r.checkAuth(r.crowd().message(carol), nil, r.get("m.room.power_levels", ""))
	}},
	{rule: auth.AuthRejected, name: "one that is not cited", ok: true, run: func(r *room) error {
		return r.checkAuth(r.crowd().message(carol), nil, r.get("m.room.member", string(bob)))
	}},

	{rule: auth.NoCreate, name: "not cited", on: func(v *matrix.Version) bool { return !v.RoomIDIsHash },
		run: func(r *room) error {
			return r.checkAuth(with(r.crowd().message(carol), func(ev *matrix.Event) { ev.AuthEvents = nil }), nil)
		}},

	{rule: auth.NotJoined, name: "membership is not cited", run: func(r *room) error {
		m := r.crowd().message(carol)
		membership := r.get("m.room.member", string(carol)).ID
		return r.checkAuth(with(m, func(ev *matrix.Event) {
			ev.AuthEvents = slices.DeleteFunc(slices.Clone(ev.AuthEvents), func(id matrix.EventID) bool { return id == membership })
		}), nil)
	}},
	{rule: auth.CreateHasPrev, name: "create event cites others", ok: true, run: func(r *room) error {
		return r.checkAuth(citing(r.create, r.get("m.room.member", string(alice))), nil)
	}},
	{rule: auth.JoinUnauthorised, name: "on cited events", ok: true, run: func(r *room) error {
		r.joinRule("restricted")
		r.member(carol, "join")
		return r.checkAuth(r.change(bob, bob, "join", `,"join_authorised_via_users_server":"@carol:c.example"`), nil)
	}},
	{rule: auth.ThirdPartyBadSignature, name: "on cited events", ok: true, run: func(r *room) error {
		r.joinRule("invite")
		if err := good(r); err != nil {
			return err
		}
		return r.checkAuth(r.change(bob, eve, "invite", `,"third_party_invite":{"signed":`+r.signed(identityKey)+`}`), nil)
	}},
}

// What is not known is no refusal.
func TestAuthEventMissing(t *testing.T) {
	for _, v := range matrix.Versions() {
		r := newRoom(t, v).crowd()
		m := r.message(carol)
		delete(r.events, auth.Key{Type: "m.room.power_levels"})
		err := r.checkAuth(m, nil)
		var refusal *auth.Error
		if !errors.Is(err, auth.ErrMissing) || errors.As(err, &refusal) {
			t.Errorf("version %s: %v", v.ID, err)
		}
	}
}
