package auth_test

import (
	"errors"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// redaction is sender's redaction of that event.
func (r *room) redaction(sender matrix.UserID, target matrix.EventID) *matrix.Event {
	return r.build(matrix.Draft{Room: r.id, Sender: sender, Type: "m.room.redaction", Redacts: target,
		Content: jsontext.Value(`{"reason":"test"}`)})
}

var redactionCases = []ruleCase{
	{rule: auth.RedactionLevel, name: "other server", text: "You need power level 50 to redact events from other servers, yours is 20",
		run: func(r *room) error { r.crowd(); return r.check(r.redaction(dave, r.message(carol).ID)) }},
	{rule: auth.RedactionLevel, name: "nothing", run: func(r *room) error {
		r.crowd()
		return r.check(r.redaction(dave, ""))
	}},
	{rule: auth.RedactionLevel, name: "no ID", run: func(r *room) error {
		r.crowd()
		return r.check(with(r.redaction(dave, "$x"), func(ev *matrix.Event) { ev.Redacts = "$x" }))
	}},
	{rule: auth.RedactionLevel, name: "own server", ok: true, run: func(r *room) error {
		r.crowd()
		return r.check(r.redaction(dave, r.message(dave).ID))
	}},
	{rule: auth.RedactionLevel, name: "at the level", ok: true, run: func(r *room) error {
		r.crowd()
		return r.check(r.redaction(bob, r.message(carol).ID))
	}},
	{rule: auth.RequiredLevel, name: "redaction of anything, as an event like others", ok: true,
		on:  func(v *matrix.Version) bool { return !v.RedactionsAuthorized },
		run: func(r *room) error { r.crowd(); return r.check(r.redaction(dave, r.message(carol).ID)) }},
	{rule: auth.RequiredLevel, name: "redaction", run: func(r *room) error {
		r.crowd().levels(`{"events":{"m.room.redaction":21},"users":{"@dave:d.example":20}}`)
		return r.check(r.redaction(dave, r.message(dave).ID))
	}},
}

func TestMayRedact(t *testing.T) {
	for _, v := range matrix.Versions() {
		r := newRoom(t, v).crowd()
		carols, bobs := r.message(carol), r.message(bob)
		for _, c := range []struct {
			name              string
			redaction, target *matrix.Event
			want              bool
		}{
			{"own server", r.redaction(carol, carols.ID), carols, true},
			{"redact level", r.redaction(bob, carols.ID), carols, true},
			// Versions 1 and 2 refuse this redaction by rule 11; it is never asked about.
			{"other server", r.redaction(carol, bobs.ID), bobs, v.RedactionsAuthorized},
			{"another event", r.redaction(carol, carols.ID), bobs, false},
			{"another room", r.redaction(carol, carols.ID),
				with(carols, func(ev *matrix.Event) { ev.Room = "!other:a.example" }), false},
		} {
			got, err := auth.MayRedact(c.redaction, c.target, r.state)
			if got != c.want || err != nil {
				t.Errorf("version %s, %s: %v, %v, want %v", v.ID, c.name, got, err, c.want)
			}
		}
		if v.RedactionsAuthorized {
			continue
		}
		broken := errors.New("broken")
		_, err := auth.MayRedact(r.redaction(bob, carols.ID), carols, func(string, string) (*matrix.Event, error) { return nil, broken })
		if !errors.Is(err, broken) {
			t.Errorf("version %s, failing state: %v", v.ID, err)
		}
	}
}
