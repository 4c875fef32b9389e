package state

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// thirdPartyInvite is the third_party_invite of a member event: who was invited, as
// the inviter sees it, and what an identity server says about whose the address is.
type thirdPartyInvite struct {
	DisplayName string         `json:"display_name"`
	Signed      jsontext.Value `json:"signed"`
}

// redeem makes an invite of the proof, {"signed": …}, that an invite by address was
// for a user, who wants it. The invite is in the name of who sent the one by
// address: it needs no signature of his server, "the sender must already match the
// 3rd party invite, and the server which actually sends the event may be a different
// server". That the proof is good is the auth rules' to say. Spec: SS Third-party
// invites, Validating hashes and signatures on received events.
func (rm *room) redeem(user matrix.UserID, proof jsontext.Value) (matrix.EventID, error) {
	var given struct {
		Signed jsontext.Value `json:"signed"`
	}
	var signed struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(proof, &given) != nil || json.Unmarshal(given.Signed, &signed) != nil {
		return "", refuse(ErrBadEvent, "The proof of the invite by address cannot be read")
	}
	pending, err := rm.current("m.room.third_party_invite", signed.Token)
	if err != nil {
		return "", err
	}
	if pending == nil {
		return "", refuse(ErrForbidden, "The invite by address is not in this room")
	}
	var offer struct {
		DisplayName jsontext.Value `json:"display_name"`
	}
	invite := thirdPartyInvite{Signed: given.Signed}
	if json.Unmarshal(pending.Content, &offer) == nil {
		_ = json.Unmarshal(offer.DisplayName, &invite.DisplayName) // no text is no name
	}
	content := memberContent{Membership: matrix.Invite, ThirdPartyInvite: encode(invite)}
	return rm.writeMember(pending.Sender, user, content)
}
