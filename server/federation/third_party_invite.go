package federation

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of what an identity server may ask for, who signs its requests with nothing.
const (
	maxBoundInvites = 32
	maxOnBindTime   = time.Minute      // for all of them
	maxBoundTime    = 10 * time.Second // for one
	boundTogether   = 4
)

// exchangeThirdPartyInvite answers PUT /exchange_third_party_invite/{roomID}: an
// invite by address becomes one of the user whose the address is. That the proof is
// good is the auth rules' to say.
//
// Spec: SS Third-party invites.
func (s *Server) exchangeThirdPartyInvite(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	room, err := matrix.ParseRoomID(r.PathValue("roomID"))
	if err != nil {
		return api.InvalidParam("roomId", err)
	}
	var req struct {
		Type     string        `json:"type"`
		Room     matrix.RoomID `json:"room_id"`
		Sender   matrix.UserID `json:"sender"`
		StateKey string        `json:"state_key"`
		Content  struct {
			Membership matrix.Membership `json:"membership"`
			Invite     struct {
				Signed jsontext.Value `json:"signed"`
			} `json:"third_party_invite"`
		} `json:"content"`
	}
	if err := readLenient(r, maxMemberBytes, &req); err != nil {
		return err
	}
	user, err := matrix.ParseUserID(req.StateKey)
	switch {
	case err != nil:
		return api.InvalidParam("state_key", err)
	case req.Type != "m.room.member" || req.Content.Membership != matrix.Invite:
		return api.ErrInvalidParam.Because("The event is no invite")
	case req.Room != room:
		return api.ErrInvalidParam.Because("The event is of the room %s", req.Room)
	case req.Content.Invite.Signed.Kind() != '{':
		return api.MissingParam("signed")
	}
	if err := s.limits.Take(api.LimitInvite, string(from)); err != nil {
		return err
	}
	if _, err := s.enter(room, from); err != nil {
		return err
	}
	err = s.rooms.Redeem(r.Context(), state.ThirdPartyProof{Room: room, Sender: req.Sender, User: user, Signed: req.Content.Invite.Signed})
	if err != nil {
		return asked(err)
	}
	return api.WriteEmpty(w)
}

// onBindThirdPartyIdentifier answers PUT /3pid/onbind: an identity server tells that
// an address has become a user's, and of the invites that waited for that. Each stands
// by its own proof; what becomes of it the identity server does not learn.
func (s *Server) onBindThirdPartyIdentifier(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	var req struct {
		User    string `json:"mxid"`
		Invites []struct {
			Room   string         `json:"room_id"`
			Sender string         `json:"sender"`
			Signed jsontext.Value `json:"signed"`
		} `json:"invites"`
	}
	if err := readLenient(r, maxBody, &req); err != nil {
		return err
	}
	if err := s.limits.TakeIP(api.LimitInvite, api.ClientIP(r)); err != nil {
		return err
	}
	user, err := matrix.ParseUserID(req.User)
	if err != nil {
		return api.InvalidParam("mxid", err)
	}
	if len(req.Invites) > maxBoundInvites {
		return api.ErrInvalidParam.Because("At most %d invites can be told at once", maxBoundInvites)
	}
	if err := s.store.View(func(tx *store.Tx) error { return state.CheckInvitable(tx, user) }); err != nil {
		return err
	}
	var proofs []state.ThirdPartyProof
	for _, invite := range req.Invites {
		room, err := matrix.ParseRoomID(invite.Room)
		if err != nil {
			return api.InvalidParam("room_id", err)
		}
		sender, err := matrix.ParseUserID(invite.Sender)
		if err != nil {
			return api.InvalidParam("sender", err)
		}
		proofs = append(proofs, state.ThirdPartyProof{Room: room, Sender: sender, User: user, Signed: invite.Signed})
	}
	s.redeemAll(r.Context(), proofs)
	return api.WriteEmpty(w)
}

// redeemAll makes invites of proofs, some side by side: who is slow about one holds up few
// others.
func (s *Server) redeemAll(ctx context.Context, proofs []state.ThirdPartyProof) {
	ctx, cancel := context.WithTimeout(ctx, maxOnBindTime)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(boundTogether)
	for _, p := range proofs {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, maxBoundTime)
			defer cancel()
			if err := s.redeem(ctx, p); err != nil {
				s.log.Info("an invite by address cannot be redeemed", "room", p.Room, "user", p.User, "err", err)
			}
			return nil
		})
	}
	_ = group.Wait() // none fails
}

// redeem makes an invite of a proof: here, "if the invited homeserver is in the room
// the invite came from", or else at the server of who invited.
func (s *Server) redeem(ctx context.Context, p state.ThirdPartyProof) error {
	var resident bool
	err := s.store.View(func(tx *store.Tx) (err error) {
		resident, err = state.Resident(tx, tx.RoomNum(p.Room))
		return err
	})
	if err != nil {
		return err
	}
	if resident {
		return s.rooms.Redeem(ctx, p)
	}
	return s.network.Exchange(ctx, p.Sender.Server(), p)
}
