package state

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// profile is the part of a user's profile that member events carry.
type profile struct {
	DisplayName *string
	AvatarURL   *string
}

// profile reads a local user's profile.
func (rm *room) profile(user matrix.UserID) (p profile, err error) {
	num := rm.tx.UserNum(user)
	if p.DisplayName, err = profileText(rm.tx, num, "displayname"); err != nil {
		return p, err
	}
	p.AvatarURL, err = profileText(rm.tx, num, "avatar_url")
	return p, err
}

// profileText returns a field of a profile that is text, nil when it is not
// there or nothing.
func profileText(tx *store.Tx, user store.UserNum, field string) (*string, error) {
	value, err := tx.ProfileField(user, field)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	var text string
	if json.Unmarshal(value, &text) != nil || text == "" {
		return nil, nil
	}
	return &text, nil
}

// SpreadProfile writes a local user's display name and avatar as they are now
// into his member events in all rooms that he is in. A room that does not let
// him is left as it is. Spec: CS Profiles, Events on Change of Profile
// Information.
func (r *Rooms) SpreadProfile(ctx context.Context, user matrix.UserID) error {
	var rooms []matrix.RoomID
	err := r.store.View(func(tx *store.Tx) (err error) {
		rooms, err = Joined(tx, tx.UserNum(user))
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range rooms {
		_, err := r.produce(ctx, id, func(rm *room) (matrix.EventID, error) { return "", rm.spreadProfile(user) })
		var refused *auth.Error
		if err != nil && !errors.As(err, &refused) {
			return fmt.Errorf("profile of %s in %s: %w", user, id, err)
		}
	}
	return nil
}

func (rm *room) spreadProfile(user matrix.UserID) error {
	ev, err := rm.current("m.room.member", string(user))
	if ev == nil || err != nil {
		return err
	}
	member, err := ev.Member()
	if err != nil || member.Membership != matrix.Join {
		return nil // he left meanwhile
	}
	p, err := rm.profile(user)
	if err != nil {
		return err
	}
	if sameText(p.DisplayName, member.DisplayName) && sameText(p.AvatarURL, member.AvatarURL) {
		return nil
	}
	content, err := withProfile(ev.Content, p)
	if err != nil {
		return err
	}
	draft := matrix.Draft{Sender: user, Type: "m.room.member", StateKey: ev.StateKey, Content: content}
	_, err = rm.add(draft, store.TxnID{})
	return err
}

// withProfile is a member event's content with another name and avatar. Who
// let the user in and why he came belong to the join and are not repeated.
func withProfile(content jsontext.Value, p profile) (jsontext.Value, error) {
	members := make(map[string]jsontext.Value)
	if err := json.Unmarshal(content, &members); err != nil {
		return nil, fmt.Errorf("content of a member event: %w", err)
	}
	for _, name := range []string{"displayname", "avatar_url", "join_authorised_via_users_server", "third_party_invite", "reason"} {
		delete(members, name)
	}
	if p.DisplayName != nil {
		members["displayname"] = quote(*p.DisplayName)
	}
	if p.AvatarURL != nil {
		members["avatar_url"] = quote(*p.AvatarURL)
	}
	return encode(members), nil
}

func sameText(a, b *string) bool {
	return a == b || a != nil && b != nil && *a == *b
}
