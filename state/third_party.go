package state

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// thirdPartyInvite is the third_party_invite of a member event: who was invited, as
// the inviter sees it, and what an identity server says about whose the address is.
type thirdPartyInvite struct {
	DisplayName string         `json:"display_name"`
	Signed      jsontext.Value `json:"signed"`
}

// offer returns the invite by address that a proof is for, of the room's current state.
func (rm *room) offer(p ThirdPartyProof) (*store.StoredEvent, error) {
	var signed struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(p.Signed, &signed) != nil {
		return nil, refuse(ErrBadEvent, "The proof of the invite by address cannot be read")
	}
	offer, err := rm.current("m.room.third_party_invite", signed.Token)
	if err == nil && offer == nil {
		err = refuse(ErrForbidden, "The invite by address is not in this room")
	}
	return offer, err
}

// redeem makes an invite of the proof that an invite by address was for a user, who
// wants it. The invite is in the name of who sent the one by address: it needs no
// signature of his server, "the sender must already match the 3rd party invite, and the
// server which actually sends the event may be a different server". That the proof is
// good is the auth rules' to say. Spec: SS Third-party invites, Validating hashes and
// signatures on received events.
func (rm *room) redeem(p ThirdPartyProof) (matrix.EventID, error) {
	pending, err := rm.offer(p)
	if err != nil {
		return "", err
	}
	var offer struct {
		DisplayName jsontext.Value `json:"display_name"`
	}
	invite := thirdPartyInvite{Signed: p.Signed}
	if json.Unmarshal(pending.Content, &offer) == nil {
		_ = json.Unmarshal(offer.DisplayName, &invite.DisplayName) // no text is no name
	}
	content := memberContent{Membership: matrix.Invite, ThirdPartyInvite: encode(invite)}
	return rm.writeMember(pending.Sender, p.User, content)
}
