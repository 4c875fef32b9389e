package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// inviteRequest is the body of an invite.
type inviteRequest struct {
	Version string           `json:"room_version"`
	Event   jsontext.Value   `json:"event"`
	Known   []jsontext.Value `json:"invite_room_state"`
}

// inviteAnswer is the signed invite.
type inviteAnswer struct {
	Event jsontext.Value `json:"event"`
}

// Invite asks the server of the user whom an event invites to sign it; known is what
// that user may know of the room. It returns that server's signatures by the IDs of
// their keys, checked. Errors are those of [Network.Do], or wrap ErrUnreachable where
// the answer is not what it should be.
//
// Spec: SS Inviting to a room.
func (n *Network) Invite(ctx context.Context, invite *matrix.Event, known []*matrix.Event) (map[string]string, error) {
	dest := matrix.UserID(*invite.StateKey).Server()
	signed, err := n.inviteV2(ctx, dest, invite, known)
	if refused, is := errors.AsType[*Error](err); is && invite.Version.EventIDs == matrix.EventIDGiven &&
		(refused.Status == http.StatusBadRequest || refused.Status == http.StatusNotFound) {
		// "Senders which receive a 400 or 404 response to this endpoint should retry
		// using the v1 API as the server may be older, if the room version is 1 or 2."
		if old, oldErr := n.inviteV1(ctx, dest, invite, known); oldErr == nil {
			signed, err = old, nil
		}
	}
	if err != nil {
		return nil, err
	}
	signatures, err := n.inviteSignatures(ctx, dest, invite, signed)
	if err != nil {
		return nil, fmt.Errorf("%s answers an invite: %w: %w", dest, ErrUnreachable, err)
	}
	return signatures, nil
}

func (n *Network) inviteV2(ctx context.Context, dest matrix.ServerName, invite *matrix.Event, known []*matrix.Event) (jsontext.Value, error) {
	body := inviteRequest{Version: invite.Version.ID, Event: invite.JSON(), Known: pdus(known)}
	var answer inviteAnswer
	err := n.Do(ctx, dest, inviteTo("v2", invite, body), &answer)
	return answer.Event, err
}

// inviteV1 is for old servers: "invite_room_state" is in the event's unsigned, and the
// answer in an array behind the status.
func (n *Network) inviteV1(ctx context.Context, dest matrix.ServerName, invite *matrix.Event, known []*matrix.Event) (jsontext.Value, error) {
	body := make(map[string]jsontext.Value)
	if err := json.Unmarshal(invite.JSON(), &body, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, err
	}
	var err error
	if body["unsigned"], err = json.Marshal(map[string][]jsontext.Value{"invite_room_state": pdus(known)}, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, err
	}
	var parts few[jsontext.Value]
	if err := n.Do(ctx, dest, inviteTo("v1", invite, body), &parts); err != nil {
		return nil, err
	}
	var answer inviteAnswer
	if len(parts) != 2 || json.Unmarshal(parts[1], &answer, jsontext.AllowDuplicateNames(true)) != nil {
		return nil, fmt.Errorf("%s answers an invite with no event: %w", dest, ErrUnreachable)
	}
	return answer.Event, nil
}

// inviteTo is the request of an invite: a user waits for it.
func inviteTo(version string, invite *matrix.Event, body any) Request {
	return Request{
		Method: http.MethodPut,
		Path:   "/_matrix/federation/" + version + "/invite/" + url.PathEscape(string(invite.Room)) + "/" + url.PathEscape(string(invite.ID)),
		Body:   body,
		Insist: true,
	}
}

// inviteSignatures takes the signatures of the invited user's server off the event
// that it answered with, which must be the one that it was asked to sign.
func (n *Network) inviteSignatures(ctx context.Context, dest matrix.ServerName, invite *matrix.Event, answer jsontext.Value) (map[string]string, error) {
	signed, err := matrix.Parse(invite.Version, answer)
	if err != nil {
		return nil, err
	}
	if signed.ID != invite.ID {
		return nil, fmt.Errorf("it has signed %s and not %s", signed.ID, invite.ID)
	}
	signatures := signed.SignaturesOf(dest)
	proof, err := invite.WithSignatures(dest, signatures)
	if err != nil {
		return nil, err
	}
	if proof, err = proof.RedactedCopy(); err != nil {
		return nil, err
	}
	if err := n.VerifyJSON(ctx, dest, proof.JSON(), n.config.Now()); err != nil {
		return nil, err
	}
	return signatures, nil
}

// pdus are events as they are sent.
func pdus(events []*matrix.Event) []jsontext.Value {
	raw := make([]jsontext.Value, 0, len(events))
	for _, ev := range events {
		raw = append(raw, ev.JSON())
	}
	return raw
}
