package client

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of account data.
const (
	maxAccountData = 1 << 20 // bytes of one piece; secrets and lists of rooms are large
	pushRulesType  = "m.push_rules"
)

// accountDataEvent is a piece of account data as clients get it.
type accountDataEvent struct {
	Type    string         `json:"type"`
	Content jsontext.Value `json:"content"`
}

// dataPlace reads from a path what piece of account data a request is about.
func (s *Server) dataPlace(r *http.Request, who session) (room matrix.RoomID, typ string, err error) {
	if err := who.isSelf(r.PathValue("userID")); err != nil {
		return "", "", err
	}
	if r.PathValue("roomID") != "" {
		if room, err = pathRoom(r); err != nil {
			return "", "", err
		}
	}
	typ = r.PathValue("type")
	if typ == "" || len(typ) > matrix.MaxIDBytes {
		return "", "", api.ErrInvalidParam.Because("The type must have 1 to %d bytes", matrix.MaxIDBytes)
	}
	return room, typ, nil
}

// setAccountData answers PUT /user/{userID}/account_data/{type}.
//
// Spec: CS Client Config. "The server MUST return a 405 error response" for
// what has an API of its own.
func (s *Server) setAccountData(w http.ResponseWriter, r *http.Request, who session) error {
	room, typ, err := s.dataPlace(r, who)
	if err != nil {
		return err
	}
	if typ == fullyRead || typ == pushRulesType {
		return api.ErrBadJSON.WithStatus(http.StatusMethodNotAllowed).Because("%s is set by an API of its own", typ)
	}
	content, err := api.ReadObject(r, maxAccountData)
	if err != nil {
		return err
	}
	if err := s.limitData(who, len(content)); err != nil {
		return err
	}
	err = s.store.Update(r.Context(), func(tx *store.Tx) error {
		return putAccountData(tx, who, room, typ, content)
	})
	if err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// setAccountDataPerRoom answers PUT /user/{userID}/rooms/{roomID}/account_data/{type}.
func (s *Server) setAccountDataPerRoom(w http.ResponseWriter, r *http.Request, who session) error {
	return s.setAccountData(w, r, who)
}

// dataUnit is how many bytes of account data count as one write: large pieces wear
// the disk as many small ones do.
const dataUnit = 16 << 10

// limitData counts a write of account data.
func (s *Server) limitData(who session, size int) error {
	return s.limits.TakeN(api.LimitData, string(who.user), 1+size/dataUnit)
}

// putAccountData stores a piece about a room, or ("") a global one.
func putAccountData(tx *store.Tx, who session, room matrix.RoomID, typ string, content jsontext.Value) error {
	d := store.AccountData{Type: typ, Content: content}
	if room != "" {
		num, err := dataRoom(tx, who, room)
		if err != nil {
			return err
		}
		d.Room = num
	}
	return tx.PutAccountData(who.num, d)
}

// dataRoom returns the number of a room that the user may keep data about: one
// that is or was something to him. Others would let anybody fill the store with
// room IDs.
func dataRoom(tx *store.Tx, who session, id matrix.RoomID) (store.RoomNum, error) {
	num := tx.RoomNum(id)
	if _, known, err := tx.LocalMembership(who.num, num); err != nil || !known {
		return 0, errors.Join(err, errNotMember)
	}
	return num, nil
}

// getAccountData answers GET /user/{userID}/account_data/{type}.
func (s *Server) getAccountData(w http.ResponseWriter, r *http.Request, who session) error {
	room, typ, err := s.dataPlace(r, who)
	if err != nil {
		return err
	}
	var content jsontext.Value
	err = s.store.View(func(tx *store.Tx) error {
		num := tx.RoomNum(room) // 0 for the global data, and for rooms nobody knows
		if room != "" && num == 0 {
			return store.ErrNotFound
		}
		if room == "" && typ == pushRulesType {
			content, err = s.pushRulesContent(tx, who)
			return err
		}
		d, err := tx.AccountData(who.num, num, typ)
		content = d.Content
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return api.ErrNotFound.Because("You have no account data of type %s", typ)
	}
	if err != nil {
		return err
	}
	return api.WriteJSON(w, content)
}

// getAccountDataPerRoom answers GET /user/{userID}/rooms/{roomID}/account_data/{type}.
func (s *Server) getAccountDataPerRoom(w http.ResponseWriter, r *http.Request, who session) error {
	return s.getAccountData(w, r, who)
}

// syncAccountData returns the user's global account data that changed behind a
// position; 0 is all of it.
func (s *Server) syncAccountData(tx *store.Tx, who session, since store.Position) ([]accountDataEvent, error) {
	var events []accountDataEvent
	rules := since == 0
	add := func(d store.AccountData) (bool, error) {
		switch {
		case d.Room != 0:
		case d.Type == pushRulesType:
			rules = true
		default:
			events = append(events, accountDataEvent{d.Type, d.Content})
		}
		return true, nil
	}
	err := tx.AccountDataSince(who.num, since, add)
	if err != nil || !rules {
		return events, err
	}
	content, err := s.pushRulesContent(tx, who)
	return append(events, accountDataEvent{pushRulesType, content}), err
}

// syncRoomData returns the user's account data about a room that changed behind
// a position; 0 is all of it.
func (s *Server) syncRoomData(tx *store.Tx, who session, room store.RoomNum, since store.Position) ([]accountDataEvent, error) {
	var events []accountDataEvent
	err := tx.AllAccountData(who.num, room, func(d store.AccountData) (bool, error) {
		if d.Position > since {
			events = append(events, accountDataEvent{d.Type, d.Content})
		}
		return true, nil
	})
	return events, err
}

// encodeJSON is v as JSON.
func encodeJSON(v any) (jsontext.Value, error) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b, nil
}
