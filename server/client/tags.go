package client

import (
	"errors"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// tagType is the account data that holds a room's tags.
const tagType = "m.tag"

// Bounds of the tags of one room.
const (
	maxTags     = 100
	maxTagBytes = 255
)

// tags is the content of m.tag: what each tag says of the room.
//
// Spec: CS Room Tagging.
type tags struct {
	Tags map[string]jsontext.Value `json:"tags"`
}

// getRoomTags answers GET /user/{userID}/rooms/{roomID}/tags.
func (s *Server) getRoomTags(w http.ResponseWriter, r *http.Request, who session) error {
	id, err := s.tagRoom(r, who)
	if err != nil {
		return err
	}
	var t tags
	err = s.store.View(func(tx *store.Tx) (err error) {
		t, err = readTags(tx, who, tx.RoomNum(id))
		return err
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, t)
}

// setRoomTag answers PUT /user/{userID}/rooms/{roomID}/tags/{tag}.
func (s *Server) setRoomTag(w http.ResponseWriter, r *http.Request, who session) error {
	content, err := api.ReadObject(r, maxSmallBody)
	if err != nil {
		return err
	}
	var body struct {
		Order *float64 `json:"order"`
	}
	if err := json.Unmarshal(content, &body); err != nil {
		return api.ErrBadJSON.Because("order must be a number")
	}
	if body.Order != nil && (*body.Order < 0 || *body.Order > 1) {
		return api.ErrBadJSON.Because("order must lie between 0 and 1")
	}
	return s.changeTags(w, r, who, func(t tags) error {
		if _, known := t.Tags[r.PathValue("tag")]; !known && len(t.Tags) >= maxTags {
			return api.ErrUserLimit.Because("A room may have %d tags", maxTags)
		}
		t.Tags[r.PathValue("tag")] = content
		return nil
	})
}

// deleteRoomTag answers DELETE /user/{userID}/rooms/{roomID}/tags/{tag}.
func (s *Server) deleteRoomTag(w http.ResponseWriter, r *http.Request, who session) error {
	return s.changeTags(w, r, who, func(t tags) error {
		delete(t.Tags, r.PathValue("tag"))
		return nil
	})
}

func (s *Server) changeTags(w http.ResponseWriter, r *http.Request, who session, change func(tags) error) error {
	id, err := s.tagRoom(r, who)
	if err != nil {
		return err
	}
	if tag := r.PathValue("tag"); tag == "" || len(tag) > maxTagBytes {
		return api.ErrInvalidParam.Because("A tag must have 1 to %d bytes", maxTagBytes)
	}
	if err := s.limitData(who, 0); err != nil {
		return err
	}
	err = s.store.Update(r.Context(), func(tx *store.Tx) error {
		room, err := dataRoom(tx, who, id)
		if err != nil {
			return err
		}
		t, err := readTags(tx, who, room)
		if err != nil {
			return err
		}
		if err := change(t); err != nil {
			return err
		}
		content, err := encodeJSON(t)
		if err != nil {
			return err
		}
		if len(content) > maxAccountData {
			return api.ErrTooLarge.Because("The tags of a room may have %d bytes", maxAccountData)
		}
		return tx.PutAccountData(who.num, store.AccountData{Room: room, Type: tagType, Content: content})
	})
	if err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// tagRoom reads the room of a request about the user's own tags.
func (s *Server) tagRoom(r *http.Request, who session) (matrix.RoomID, error) {
	if err := who.isSelf(r.PathValue("userID")); err != nil {
		return "", err
	}
	return pathRoom(r)
}

// readTags returns the tags of a room. What a client has put there by the API of
// account data and is no list of tags counts as none.
func readTags(tx *store.Tx, who session, room store.RoomNum) (tags, error) {
	none := tags{Tags: map[string]jsontext.Value{}}
	d, err := tx.AccountData(who.num, room, tagType)
	if errors.Is(err, store.ErrNotFound) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	var t tags
	if json.Unmarshal(d.Content, &t) != nil || t.Tags == nil {
		return none, nil
	}
	return t, nil
}
