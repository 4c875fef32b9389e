package state

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of what an identity server is asked for one proof: about so many keys, and so
// long for all of them.
const (
	maxKeysAsked = 3
	keysPatience = 10 * time.Second
)

// A ThirdPartyProof is what an identity server says of an invite by address whose
// address has become a user's. Spec: SS Third-party invites.
type ThirdPartyProof struct {
	Room   matrix.RoomID
	Sender matrix.UserID // who invited by address
	User   matrix.UserID // whose the address is
	Signed jsontext.Value
}

// Redeem makes an invite of the proof in a room that this server takes part in; any
// other room is ErrUnknownRoom. The identity server must say that its key still holds,
// and a user of another server is asked by that server first, as for every invite. Who
// is in the room or invited stays so.
func (r *Rooms) Redeem(ctx context.Context, p ThirdPartyProof) error {
	err := r.store.View(func(tx *store.Tx) error {
		_, err := r.openResident(tx, p.Room)
		return err
	})
	if err != nil {
		return err
	}
	return r.redeem(ctx, p, func(rm *room) error { return rm.checkInvitee(p.User) })
}

// redeem makes an invite of the proof, unless its user is in the room or invited, if may
// does not refuse it.
func (r *Rooms) redeem(ctx context.Context, p ThirdPartyProof, may func(*room) error) error {
	needed := func(rm *room) (bool, error) {
		was, err := rm.membership(p.User)
		if err != nil || was == matrix.Join || was == matrix.Invite {
			return false, err
		}
		return true, may(rm)
	}
	var keys []auth.InviteKey
	err := r.store.View(func(tx *store.Tx) error {
		rm, err := r.open(tx, p.Room)
		if err != nil {
			return err
		}
		if is, err := needed(rm); !is || err != nil {
			return err
		}
		keys, err = rm.proofKeys(p)
		return err
	})
	if err != nil {
		return err
	}
	if err := r.checkKeys(ctx, keys); err != nil {
		return err
	}
	_, err = r.produce(ctx, p.Room, func(rm *room) (matrix.EventID, error) {
		if is, err := needed(rm); !is || err != nil {
			return "", err
		}
		return rm.redeem(p)
	})
	return err
}

// proofKeys returns the keys that a proof is signed with, each once. Where it is none
// that the room knows there is nothing to ask, and the rules refuse the invite.
func (rm *room) proofKeys(p ThirdPartyProof) (keys []auth.InviteKey, err error) {
	offer, err := rm.offer(p)
	if err != nil {
		return nil, err
	}
	for key := range auth.InviteSigners(offer.Event, p.Signed) {
		same := func(k auth.InviteKey) bool { return k.Text == key.Text && k.Validity == key.Validity }
		if !slices.ContainsFunc(keys, same) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// checkKeys asks the identity server whether one of the keys holds that a proof is signed
// with: whoever makes the invite "MUST validate that the public key used for signing is
// still valid", and "if this URL is absent, the key must be considered valid indefinitely".
// No key is none to ask about.
//
// Spec: CS Third-party invites, m.room.third_party_invite.
func (r *Rooms) checkKeys(ctx context.Context, keys []auth.InviteKey) error {
	for _, key := range keys {
		if key.Validity == "" {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, keysPatience)
	defer cancel()
	var refusal error
	for _, key := range keys[:min(len(keys), maxKeysAsked)] {
		if r.outside.KeyHolds == nil {
			return refuse(ErrForbidden, "This server asks no identity server, as federation is off")
		}
		holds, err := r.outside.KeyHolds(ctx, key.Validity, key.Text)
		switch {
		case holds && err == nil:
			return nil
		case errors.Is(err, context.Canceled):
			return err // nobody waits for the answer
		case err != nil:
			r.log.Info("an identity server does not say whether its key holds", "err", err)
			refusal = refuse(ErrForbidden, "The identity server cannot be asked whether the key of the invite by address is still good: try again later")
		case refusal == nil:
			refusal = refuse(ErrForbidden, "The identity server says that the key of the invite by address is good no more")
		}
	}
	return refusal
}

// ThirdPartyInvite returns the content of the member event by which a user is invited
// who shows a proof, for a room that this server is not in.
func ThirdPartyInvite(p ThirdPartyProof, displayName string) jsontext.Value {
	return encode(memberContent{
		Membership:       matrix.Invite,
		ThirdPartyInvite: encode(thirdPartyInvite{DisplayName: displayName, Signed: p.Signed}),
	})
}
