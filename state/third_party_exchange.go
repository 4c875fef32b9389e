package state

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// maxKeysAsked bounds how many keys of one proof an identity server is asked about.
const maxKeysAsked = 3

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
	return r.redeem(ctx, p, func(rm *room, was matrix.Membership) (bool, error) {
		if was == matrix.Join || was == matrix.Invite {
			return false, nil
		}
		return true, rm.checkInvitee(p.User)
	})
}

// redeem makes an invite of the proof if wanted says so to what its user was before.
func (r *Rooms) redeem(ctx context.Context, p ThirdPartyProof, wanted func(rm *room, was matrix.Membership) (bool, error)) error {
	keys, err := r.proofKeys(p, wanted)
	if err != nil {
		return err
	}
	if err := r.checkKeys(ctx, keys); err != nil {
		return err
	}
	_, err = r.produce(ctx, p.Room, func(rm *room) (matrix.EventID, error) {
		was, err := rm.membership(p.User)
		if err != nil {
			return "", err
		}
		if is, err := wanted(rm, was); !is || err != nil {
			return "", err
		}
		return rm.redeem(p)
	})
	return err
}

// proofKeys returns the keys that a proof is signed with. It is none where no invite is
// wanted, or where the room has no such invite by address or other keys: then there is
// nothing to ask, and the rules refuse it.
func (r *Rooms) proofKeys(p ThirdPartyProof, wanted func(rm *room, was matrix.Membership) (bool, error)) (keys []auth.InviteKey, err error) {
	err = r.store.View(func(tx *store.Tx) error {
		rm, err := r.open(tx, p.Room)
		if err != nil {
			return err
		}
		was, err := rm.membership(p.User)
		if err != nil {
			return err
		}
		if is, err := wanted(rm, was); !is || err != nil {
			return err
		}
		offer, err := rm.offer(p)
		if err != nil {
			return err
		}
		for key := range auth.InviteSigners(offer.Event, p.Signed) {
			keys = append(keys, key)
		}
		return nil
	})
	return keys, err
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
	var fault error
	for _, key := range keys[:min(len(keys), maxKeysAsked)] {
		if r.outside.KeyHolds == nil {
			return refuse(ErrForbidden, "This server asks no identity server, as federation is off")
		}
		holds, err := r.outside.KeyHolds(ctx, key.Validity, key.Text)
		switch {
		case holds && err == nil:
			return nil
		case err != nil:
			fault = fmt.Errorf("identity server of an invite by address: %w", err)
		case fault == nil:
			fault = refuse(ErrForbidden, "The identity server says that the key of the invite by address is good no more")
		}
	}
	return fault
}

// ThirdPartyInvite returns the content of the member event by which a user is invited
// who shows a proof, for a room that this server is not in.
func ThirdPartyInvite(p ThirdPartyProof, displayName string) jsontext.Value {
	return encode(memberContent{
		Membership:       matrix.Invite,
		ThirdPartyInvite: encode(thirdPartyInvite{DisplayName: displayName, Signed: p.Signed}),
	})
}
