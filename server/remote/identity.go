package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of what identity servers have to do with.
const (
	keyHoldsTimeout = 10 * time.Second
	maxKeyHolds     = 4 << 10 // bytes of the answer
	// exchangeTimeout leaves the other server time to ask an identity server, and us about
	// the invite.
	exchangeTimeout = time.Minute
)

// KeyHolds asks at a URL of an identity server, over HTTPS alone, whether a key of it, in
// the base64 that a room has, is still good. The URL is what somebody wrote into a room:
// no address is asked that other servers may not have. Its errors wrap ErrUnreachable.
//
// Spec: Identity Service, pubkey/isvalid; CS m.room.third_party_invite.
func (n *Network) KeyHolds(ctx context.Context, where, key string) (bool, error) {
	u, err := url.Parse(where)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return false, fmt.Errorf("%w: its key is said to be checked at no URL of https", ErrUnreachable)
	}
	query := u.Query()
	query.Set("public_key", key)
	u.RawQuery, u.Fragment = query.Encode(), ""
	ctx, cancel := context.WithTimeout(ctx, keyHoldsTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	release, err := n.takeSlot(ctx, false)
	if err != nil {
		return false, fmt.Errorf("%w: too many requests are under way: %w", ErrUnreachable, err)
	}
	defer release()
	res, err := n.documents.Do(req)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return false, nil // so servers answer that have forgotten the key
	}
	var answer struct {
		Valid *bool `json:"valid"`
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxKeyHolds))
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil || res.StatusCode != http.StatusOK || answer.Valid == nil {
		return false, fmt.Errorf("%w: the answer of %s, of status %d, does not say it", ErrUnreachable, u.Host, res.StatusCode)
	}
	return *answer.Valid, nil
}

// Exchange has a server make an invite of the proof that an invite by address is a
// user's of ours, for a room that we are not in. Errors are those of [Network.Do].
//
// Spec: SS exchange_third_party_invite.
func (n *Network) Exchange(ctx context.Context, server matrix.ServerName, p state.ThirdPartyProof) error {
	return n.Do(ctx, server, exchange(p), nil)
}

// exchange is the request that shows a server a proof.
func exchange(p state.ThirdPartyProof) Request {
	return Request{
		Method: http.MethodPut,
		Path:   "/_matrix/federation/v1/exchange_third_party_invite/" + url.PathEscape(string(p.Room)),
		Body: map[string]any{
			"type": "m.room.member", "room_id": p.Room, "sender": p.Sender, "state_key": p.User,
			"content": state.ThirdPartyInvite(p, string(p.User)),
		},
		Timeout: exchangeTimeout,
	}
}

// redeem has the server of who invited a user by address make an invite of the user's
// proof, unless the user is invited already; one who takes no invites is told so. No other
// server can: of an invite that comes from elsewhere "the event sender is not a user ID on
// the origin server" (SS invite). It returns the servers to join by, of which that one is
// the first to know of the invite.
func (j *Joiner) redeem(ctx context.Context, join state.Join, servers []matrix.ServerName) ([]matrix.ServerName, error) {
	inviter, invited := join.Proof.Sender.Server(), false
	err := j.store.View(func(tx *store.Tx) error {
		is, _, err := tx.LocalMembership(tx.UserNum(join.User), tx.RoomNum(join.Room))
		if invited = is.Membership == matrix.Invite; invited || err != nil {
			return err
		}
		return state.CheckInvitable(tx, join.User)
	})
	if invited || inviter == j.own || err != nil {
		return servers, err
	}
	q := exchange(*join.Proof)
	q.Insist = true
	return append([]matrix.ServerName{inviter}, servers...), j.ask(ctx, inviter, q, nil)
}
