package state

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
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
// other room is ErrUnknownRoom. A user of another server is asked by that server
// first, as for every invite. Who is in the room or invited stays so.
func (r *Rooms) Redeem(ctx context.Context, p ThirdPartyProof) error {
	err := r.store.View(func(tx *store.Tx) error {
		_, err := r.openResident(tx, p.Room)
		return err
	})
	if err != nil {
		return err
	}
	_, err = r.produce(ctx, p.Room, func(rm *room) (matrix.EventID, error) {
		was, err := rm.membership(p.User)
		if err != nil || was == matrix.Join || was == matrix.Invite {
			return "", err
		}
		if err := rm.checkInvitee(p.User); err != nil {
			return "", err
		}
		return rm.redeem(p.User, encode(map[string]jsontext.Value{"signed": p.Signed}))
	})
	return err
}

// ThirdPartyInvite returns the content of the member event by which a user is invited
// who shows a proof, for a room that this server is not in.
func ThirdPartyInvite(p ThirdPartyProof, displayName string) jsontext.Value {
	return encode(memberContent{
		Membership:       matrix.Invite,
		ThirdPartyInvite: encode(thirdPartyInvite{DisplayName: displayName, Signed: p.Signed}),
	})
}
