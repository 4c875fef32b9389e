package state

import (
	"context"
	"errors"
	"fmt"

	"hearth/state/matrix"
	"hearth/store"
)

// Outside is how other servers are asked for what an event of ours needs of them
// before it can be part of its room. Its functions may take long, and are called
// while nothing is held.
type Outside struct {
	// Invite asks the server of the invited user to sign an invite, and tells it
	// what else it may know of the room: PDUs of its state. It returns that server's
	// signatures by the IDs of the keys, checked. Spec: SS Inviting to a room.
	Invite func(ctx context.Context, invite *matrix.Event, known []*matrix.Event) (map[string]string, error)
	// Sign asks a policy server to sign an event. It returns the signatures by the
	// IDs of the keys. Spec: SS Policy Servers.
	Sign func(ctx context.Context, server matrix.ServerName, ev *matrix.Event) (map[string]string, error)
	// Alias asks another server where an alias of it leads, and which servers are in
	// that room. Spec: SS query/directory.
	Alias func(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error)
	// KeyHolds asks at a URL of an identity server whether a key of it, in the base64 that
	// the room has, is still good. Spec: Identity Service, pubkey/isvalid.
	KeyHolds func(ctx context.Context, url, key string) (bool, error)
}

// SetOutside says how other servers are asked. Until then, as where federation is
// off, nobody can be invited from elsewhere, and policy servers count as silent.
// Call it before the first event.
func (r *Rooms) SetOutside(o Outside) { r.outside = o }

// A proposal is an event of ours that is drafted and held to the rules, and not in
// its room before other servers have signed it. It is an error of the write that
// drafted it, which stores nothing.
type proposal struct {
	event  *matrix.Event
	txn    store.TxnID
	policy *policy         // the policy server whose signature it needs; nil: none
	known  []*matrix.Event // of an invite to a user of another server: what that may know
	invite bool            // it is such an invite
}

// Error says what happened, for a caller that cannot ask.
func (p *proposal) Error() string {
	return fmt.Sprintf("%s needs a signature of another server", p.event.ID)
}

// propose returns an event that other servers must sign as a proposal, nil for one
// that is ready.
func (rm *room) propose(ev *matrix.Event, txn store.TxnID) error {
	p := &proposal{event: ev, txn: txn}
	var err error
	if p.policy, err = policyFor(rm.tx, rm.num, rm.head.Current, ev, rm.rooms.server); err != nil {
		return err
	}
	if user, is := rm.rooms.invitedElsewhere(ev); is {
		p.invite = true
		if p.known, err = StrippedEvents(rm.tx, rm.num, rm.head.Current, ev.Sender, user); err != nil {
			return err
		}
	}
	if p.policy == nil && !p.invite {
		return nil
	}
	return p
}

// invitedElsewhere returns the user of another server whom an event invites.
func (r *Rooms) invitedElsewhere(ev *matrix.Event) (matrix.UserID, bool) {
	if ev.Type != "m.room.member" || ev.StateKey == nil {
		return "", false
	}
	user, err := matrix.ParseUserID(*ev.StateKey)
	if err != nil || r.isLocal(user) {
		return "", false
	}
	member, err := ev.Member()
	return user, err == nil && member.Membership == matrix.Invite
}

// produce runs fn, which adds one event or finds one that is there, on a room that is
// known here, and returns its ID. An event that other servers must sign is drafted in
// one write, signed while nothing is held, and taken by another: by then others may
// stand beside it.
func (r *Rooms) produce(ctx context.Context, id matrix.RoomID, fn func(*room) (matrix.EventID, error)) (made matrix.EventID, err error) {
	err = r.change(ctx, id, func(rm *room) (err error) {
		rm.asks = true
		made, err = fn(rm)
		return err
	})
	if p, proposed := errors.AsType[*proposal](err); proposed {
		return r.conclude(ctx, p)
	}
	if err != nil {
		return "", err
	}
	return made, nil
}

// produceAsMember is produce as changeAsMember is change.
func (r *Rooms) produceAsMember(ctx context.Context, id matrix.RoomID, fn func(*room) (matrix.EventID, error)) (matrix.EventID, error) {
	made, err := r.produce(ctx, id, fn)
	if errors.Is(err, ErrUnknownRoom) {
		return "", refuse(ErrForbidden, "You are not in the room %s", id)
	}
	return made, err
}

// conclude gets the signatures that a proposal needs and takes it into its room.
func (r *Rooms) conclude(ctx context.Context, p *proposal) (matrix.EventID, error) {
	ev, err := p.event, error(nil)
	if p.policy != nil {
		if ev, err = r.askPolicy(ctx, p.policy, ev); err != nil {
			return "", err
		}
	}
	if p.invite {
		if ev, err = r.askInvited(ctx, ev, p.known); err != nil {
			return "", err
		}
	}
	if _, err := r.acceptAll(ctx, []*matrix.Event{ev}, reception{relay: ev.ID, txn: p.txn}); err != nil {
		return "", err
	}
	if known, ok, err := r.repeated(ev.Room, p.txn); ok || err != nil {
		return known, err
	}
	stored, err := r.taken(ev)
	if err != nil {
		return "", err
	}
	return stored.ID, nil
}

// repeated finds the event that a transaction has made, maybe while another one was
// on its way.
func (r *Rooms) repeated(room matrix.RoomID, txn store.TxnID) (id matrix.EventID, ok bool, err error) {
	err = r.store.View(func(tx *store.Tx) error {
		rm, err := r.open(tx, room)
		if err != nil {
			return err
		}
		id, ok, err = rm.repeated(txn)
		return err
	})
	return id, ok, err
}

// askInvited gets the signature of the invited user's server.
func (r *Rooms) askInvited(ctx context.Context, ev *matrix.Event, known []*matrix.Event) (*matrix.Event, error) {
	user := matrix.UserID(*ev.StateKey)
	if r.outside.Invite == nil {
		return nil, refuse(ErrForbidden, "%s is on another server, and this server does not federate", user)
	}
	signatures, err := r.outside.Invite(ctx, ev, known)
	if err != nil {
		return nil, fmt.Errorf("invite %s: %w", user, err)
	}
	return ev.WithSignatures(user.Server(), signatures)
}
