package client

import (
	"errors"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/push"
	"hearth/state/matrix"
	"hearth/store"
)

// upgradeRoom answers POST /rooms/{roomID}/upgrade.
//
// Spec: CS Room Upgrades.
func (s *Server) upgradeRoom(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	var body struct {
		Version  string         `json:"new_version"`
		Creators jsontext.Value `json:"additional_creators"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &body); err != nil {
		return err
	}
	if body.Version == "" {
		return api.MissingParam("new_version")
	}
	creators, err := additionalCreators(body.Version, body.Creators)
	if err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitCreateRoom, string(who.user)); err != nil {
		return err
	}
	replacement, err := s.rooms.Upgrade(r.Context(), room, who.user, body.Version, creators)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, struct {
		Room matrix.RoomID `json:"replacement_room"`
	}{replacement})
}

// additionalCreators reads additional_creators. "When upgrading to a room version
// which doesn't support additional creators, this field is ignored."
func additionalCreators(version string, list jsontext.Value) ([]matrix.UserID, error) {
	v, known := matrix.VersionByID(version)
	if !known || !v.PrivilegedCreators || len(list) == 0 || list.Kind() == 'n' {
		return nil, nil
	}
	var texts []string
	if err := json.Unmarshal(list, &texts); err != nil {
		return nil, api.ErrBadJSON.Because("additional_creators must be a list of user IDs")
	}
	creators := make([]matrix.UserID, len(texts))
	for i, text := range texts {
		var err error
		if creators[i], err = matrix.ParseUserID(text); err != nil {
			return nil, api.InvalidParam("additional_creators", err)
		}
	}
	return creators, nil
}

// directType is the account data in which clients keep which rooms are direct chats.
const directType = "m.direct"

// CarryRoom copies what a user keeps for himself about a room to the one that
// replaces it: tags, whether it is a direct chat, and push rules. What he has set
// for the new room stays, and what has no room is left out. It is for [state.Config].
//
// Spec: CS Room Upgrades, Server behaviour.
func CarryRoom(tx *store.Tx, user store.UserNum, from, to store.RoomNum) error {
	return errors.Join(
		carryTags(tx, user, from, to),
		carryDirect(tx, user, tx.RoomID(from), tx.RoomID(to)),
		carryRules(tx, user, tx.RoomID(from), tx.RoomID(to)),
	)
}

func carryTags(tx *store.Tx, user store.UserNum, from, to store.RoomNum) error {
	if tx.AccountDataPosition(user, to, tagType) != 0 {
		return nil
	}
	d, err := tx.AccountData(user, from, tagType)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	d.Room = to
	return tx.PutAccountData(user, d)
}

// carryDirect puts the new room beside the old one wherever m.direct names that.
func carryDirect(tx *store.Tx, user store.UserNum, from, to matrix.RoomID) error {
	d, err := tx.AccountData(user, 0, directType)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var chats map[string]jsontext.Value
	if json.Unmarshal(d.Content, &chats) != nil {
		return nil // it is the client's, and no list of chats
	}
	changed := false
	for with, list := range chats {
		var rooms []matrix.RoomID
		if json.Unmarshal(list, &rooms) != nil || !slices.Contains(rooms, from) || slices.Contains(rooms, to) {
			continue
		}
		if chats[with], err = encodeJSON(append(rooms, to)); err != nil {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	if d.Content, err = encodeJSON(chats); err != nil || len(d.Content) > maxAccountData {
		return err
	}
	return tx.PutAccountData(user, d)
}

func carryRules(tx *store.Tx, user store.UserNum, from, to matrix.RoomID) error {
	saved, err := savedRules(tx, user)
	if err != nil || !saved.CopyRoom(from, to) {
		return err
	}
	content, err := saved.Encode()
	if errors.Is(err, push.ErrTooMany) {
		return nil
	}
	if err != nil {
		return err
	}
	return tx.PutAccountData(user, store.AccountData{Type: pushRulesType, Content: content})
}
