package remote

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

const (
	// maxKnockAnswer bounds the answer to a knock: the room's stripped state.
	maxKnockAnswer = 1 << 20
	// knockTimeout is how long other servers are asked, all together, while a user waits.
	knockTimeout = 50 * time.Second
)

// Knock knocks on a room for a local user: in the room itself if this server is in
// it, else by way of the servers named, in their order. What the room looks like is
// remembered for the user. A refusal of another server is an [Error].
//
// Spec: CS Knocking on rooms; SS Knocking upon a room.
func (j *Joiner) Knock(ctx context.Context, knock state.Join, servers []matrix.ServerName) error {
	is, err := j.residence(knock.Room)
	if err != nil {
		return err
	}
	if is != residenceNone {
		_, err := j.rooms.ChangeMembership(ctx, state.MembershipChange{
			Room: knock.Room, Sender: knock.User, Target: knock.User, Membership: matrix.Knock, Reason: knock.Reason,
		})
		return err
	}
	if servers, err = j.orLast(servers, knock.Room); err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	err = j.byOneOf(within, servers, knock, func(server matrix.ServerName, _ []matrix.ServerName) error {
		return j.knockAt(within, knock, server)
	})
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("knock on %s: %w: %w", knock.Room, ErrUnreachable, within.Err())
	}
	return err
}

// knockAt knocks by way of one server.
func (j *Joiner) knockAt(ctx context.Context, knock state.Join, server matrix.ServerName) error {
	proposal, err := j.propose(ctx, server, "make_knock", knock.Room, knock.User, matrix.Knock)
	if err != nil {
		return err
	}
	ev, err := j.rooms.Draft(proposal, knock)
	if err != nil {
		return err
	}
	var was store.LocalMembership
	err = j.store.View(func(tx *store.Tx) (err error) {
		was, _, err = tx.LocalMembership(tx.UserNum(knock.User), tx.RoomNum(knock.Room))
		return err
	})
	if err != nil {
		return err
	}
	var answer struct {
		State few[jsontext.Value] `json:"knock_room_state"`
	}
	q := Request{
		Method: http.MethodPut, Path: memberPath("v1", "send_knock", ev), Body: jsontext.Value(ev.JSON()),
		MaxBytes: maxKnockAnswer, Timeout: makeTimeout, Insist: true,
	}
	if err := j.ask(ctx, server, q, &answer); err != nil {
		return err
	}
	verify := func(ev *matrix.Event) error { return j.verify(ctx, []*matrix.Event{ev})[0] }
	is := store.LocalMembership{
		Membership: matrix.Knock, PDU: ev.JSON(), Version: ev.Version.ID, Stripped: state.KnockState(ev, answer.State, verify),
	}
	err = j.store.Update(ctx, func(tx *store.Tx) (err error) {
		is.Room, err = tx.PutRoomNum(knock.Room)
		return err
	})
	if err != nil {
		return err
	}
	return j.settle(ctx, knock.User, was, is)
}
