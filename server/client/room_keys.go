package client

import (
	"errors"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of the keys of a backup.
const (
	maxRoomKeysBytes = 2 << 20  // one upload; clients send some 100 keys at a time
	maxRoomKeyBytes  = 32 << 10 // the encrypted data of one key
	maxRoomKeys      = 100      // in one write or View
)

// roomKeyData is one key of a backup.
//
// Spec: definitions/key_backup_data.yaml.
type roomKeyData struct {
	FirstIndex *uint64        `json:"first_message_index"`
	Forwarded  *uint64        `json:"forwarded_count"`
	Verified   *bool          `json:"is_verified"`
	Data       jsontext.Value `json:"session_data"`
}

// roomKeySessions are the keys of a room by session ID.
type roomKeySessions struct {
	Sessions map[string]roomKeyData `json:"sessions"`
}

type putRoomKeysRequest struct {
	Rooms map[matrix.RoomID]roomKeySessions `json:"rooms"`
}

type roomKeysResponse struct {
	Count uint64 `json:"count"`
	ETag  string `json:"etag"`
}

// pathRoomKeys reads which keys a request is about: its version, and what of room
// and session stands in its path.
func pathRoomKeys(r *http.Request) (version store.BackupVersion, in store.RoomKeyRange, err error) {
	name := r.URL.Query().Get("version")
	if name == "" {
		return 0, in, api.MissingParam("version")
	}
	if version, err = parseBackup(name); err != nil {
		return 0, in, err
	}
	if r.PathValue("roomID") != "" {
		if in.Room, err = pathRoom(r); err != nil {
			return 0, in, err
		}
	}
	in.Session = r.PathValue("sessionID")
	return version, in, nil
}

// putRoomKeys answers PUT /room_keys/keys.
//
// Spec: CS Server-side key backups.
func (s *Server) putRoomKeys(w http.ResponseWriter, r *http.Request, who session) error {
	var req putRoomKeysRequest
	if err := api.ReadJSON(r, maxRoomKeysBytes, &req); err != nil {
		return err
	}
	if req.Rooms == nil {
		return api.MissingParam("rooms")
	}
	return s.storeRoomKeys(w, r, who, req)
}

// putRoomKeysByRoomId answers PUT /room_keys/keys/{roomID}.
func (s *Server) putRoomKeysByRoomId(w http.ResponseWriter, r *http.Request, who session) error {
	var req roomKeySessions
	if err := api.ReadJSON(r, maxRoomKeysBytes, &req); err != nil {
		return err
	}
	if req.Sessions == nil {
		return api.MissingParam("sessions")
	}
	room := matrix.RoomID(r.PathValue("roomID"))
	return s.storeRoomKeys(w, r, who, putRoomKeysRequest{map[matrix.RoomID]roomKeySessions{room: req}})
}

// putRoomKeyBySessionId answers PUT /room_keys/keys/{roomID}/{sessionID}.
func (s *Server) putRoomKeyBySessionId(w http.ResponseWriter, r *http.Request, who session) error {
	var key roomKeyData
	if err := api.ReadJSON(r, maxRoomKeyBytes+1024, &key); err != nil {
		return err
	}
	room := matrix.RoomID(r.PathValue("roomID"))
	sessions := roomKeySessions{map[string]roomKeyData{r.PathValue("sessionID"): key}}
	return s.storeRoomKeys(w, r, who, putRoomKeysRequest{map[matrix.RoomID]roomKeySessions{room: sessions}})
}

// storeRoomKeys adds keys to the current version of the backup, which must be
// the one that the request names. Large uploads take several writes: each key is
// good by itself.
func (s *Server) storeRoomKeys(w http.ResponseWriter, r *http.Request, who session, req putRoomKeysRequest) error {
	if err := s.limits.Take(api.LimitKeys, string(who.user)); err != nil {
		return err
	}
	version, _, err := pathRoomKeys(r)
	if err != nil {
		return err
	}
	keys, err := req.check()
	if err != nil {
		return err
	}
	var b store.Backup
	for first := true; first || len(keys) > 0; first = false {
		part := keys[:min(len(keys), maxRoomKeys)]
		keys = keys[len(part):]
		err := s.store.Update(r.Context(), func(tx *store.Tx) (err error) {
			if err := isCurrent(tx, who, version); err != nil {
				return err
			}
			b, err = tx.PutRoomKeys(who.num, version, part)
			return err
		})
		if err != nil {
			return backupError(err)
		}
	}
	return api.WriteJSON(w, roomKeysResponse{b.Count, backupETag(b)})
}

// isCurrent returns M_WRONG_ROOM_KEYS_VERSION where a version, which the user has
// or has had, is not the newest.
func isCurrent(tx *store.Tx, who session, version store.BackupVersion) error {
	had, err := tx.HadBackup(who.num, version)
	if err != nil {
		return err
	}
	current, err := tx.CurrentBackup(who.num)
	switch {
	case !had:
		return errNoBackup
	case err != nil:
		return err
	case current.Version != version:
		return api.ErrWrongRoomKeysVersion.With("current_version", backupName(current.Version))
	}
	return nil
}

// check holds the keys of an upload to their form.
func (req putRoomKeysRequest) check() ([]store.RoomKey, error) {
	var keys []store.RoomKey
	for room, of := range req.Rooms {
		if _, err := matrix.ParseRoomID(string(room)); err != nil {
			return nil, api.InvalidParam("roomId", err)
		}
		for id, data := range of.Sessions {
			key, err := data.check()
			if err != nil {
				return nil, err
			}
			if id == "" || len(id) > matrix.MaxIDBytes || !utf8.ValidString(id) {
				return nil, api.ErrInvalidParam.Because("A session ID must be text of 1 to %d bytes", matrix.MaxIDBytes)
			}
			key.Room, key.Session = room, id
			keys = append(keys, key)
		}
	}
	return keys, nil
}

func (d roomKeyData) check() (store.RoomKey, error) {
	if d.FirstIndex == nil || d.Forwarded == nil || d.Verified == nil || d.Data.Kind() != '{' {
		return store.RoomKey{}, api.ErrBadJSON.Because(
			"A key needs first_message_index, forwarded_count, is_verified and session_data")
	}
	if len(d.Data) > maxRoomKeyBytes {
		return store.RoomKey{}, api.ErrTooLarge.Because("The session_data of a key may have %d bytes at most", maxRoomKeyBytes)
	}
	return store.RoomKey{Verified: *d.Verified, FirstIndex: *d.FirstIndex, Forwarded: *d.Forwarded, Data: d.Data}, nil
}

// getRoomKeys answers GET /room_keys/keys.
func (s *Server) getRoomKeys(w http.ResponseWriter, r *http.Request, who session) error {
	return s.writeRoomKeys(w, r, who, `{"rooms":{`, "}}")
}

// getRoomKeysByRoomId answers GET /room_keys/keys/{roomID}.
func (s *Server) getRoomKeysByRoomId(w http.ResponseWriter, r *http.Request, who session) error {
	return s.writeRoomKeys(w, r, who, `{"sessions":{`, "}}")
}

// getRoomKeyBySessionId answers GET /room_keys/keys/{roomID}/{sessionID}.
func (s *Server) getRoomKeyBySessionId(w http.ResponseWriter, r *http.Request, who session) error {
	version, in, err := pathRoomKeys(r)
	if err != nil {
		return err
	}
	keys, err := s.readRoomKeys(who, version, in, store.RoomKeyRange{})
	if err != nil {
		return backupError(err)
	}
	if len(keys) == 0 {
		return api.ErrNotFound.Because("The backup has no such key")
	}
	return api.WriteJSON(w, describeRoomKey(keys[0]))
}

// writeRoomKeys writes the keys of a range between what opens and closes the
// answer, a View for some keys, none held while the client takes them.
func (s *Server) writeRoomKeys(w http.ResponseWriter, r *http.Request, who session, opening, closing string) error {
	version, in, err := pathRoomKeys(r)
	if err != nil {
		return err
	}
	out := []byte(opening)
	var last store.RoomKeyRange
	for {
		keys, err := s.readRoomKeys(who, version, in, last)
		if err != nil {
			return backupError(err)
		}
		for _, k := range keys {
			if out, err = appendRoomKey(out, k, last, in.Room == ""); err != nil {
				return fmt.Errorf("write keys of %s: %w", who.user, err)
			}
			last = store.RoomKeyRange{Room: k.Room, Session: k.Session}
		}
		if len(keys) < maxRoomKeys {
			break
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write(out); err != nil {
			return err
		}
		out = out[:0]
	}
	if in.Room == "" && last.Session != "" {
		out = append(out, "}}"...)
	}
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(append(out, closing...))
	return err
}

// readRoomKeys returns some keys of a range behind the key after.
func (s *Server) readRoomKeys(who session, version store.BackupVersion, in, after store.RoomKeyRange) (keys []store.RoomKey, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		return tx.RoomKeys(who.num, version, in, after, func(k store.RoomKey) (bool, error) {
			keys = append(keys, k)
			return len(keys) < maxRoomKeys, nil
		})
	})
	return keys, err
}

// appendRoomKey appends a key as a member of its room's sessions, behind the key
// last; byRoom says that the sessions stand in members for their rooms.
func appendRoomKey(b []byte, k store.RoomKey, last store.RoomKeyRange, byRoom bool) ([]byte, error) {
	var err, nameErr error
	switch {
	case byRoom && k.Room != last.Room:
		if last.Room != "" {
			b = append(b, "}},"...)
		}
		b, err = jsontext.AppendQuote(b, string(k.Room))
		b = append(b, `:{"sessions":{`...)
	case last.Session != "":
		b = append(b, ',')
	}
	b, nameErr = jsontext.AppendQuote(b, k.Session)
	data, dataErr := json.Marshal(describeRoomKey(k))
	return append(append(b, ':'), data...), errors.Join(err, nameErr, dataErr)
}

func describeRoomKey(k store.RoomKey) roomKeyData {
	return roomKeyData{FirstIndex: &k.FirstIndex, Forwarded: &k.Forwarded, Verified: &k.Verified, Data: k.Data}
}

// deleteRoomKeys answers DELETE /room_keys/keys.
func (s *Server) deleteRoomKeys(w http.ResponseWriter, r *http.Request, who session) error {
	return s.removeRoomKeys(w, r, who)
}

// deleteRoomKeysByRoomId answers DELETE /room_keys/keys/{roomID}.
func (s *Server) deleteRoomKeysByRoomId(w http.ResponseWriter, r *http.Request, who session) error {
	return s.removeRoomKeys(w, r, who)
}

// deleteRoomKeyBySessionId answers DELETE /room_keys/keys/{roomID}/{sessionID}.
func (s *Server) deleteRoomKeyBySessionId(w http.ResponseWriter, r *http.Request, who session) error {
	return s.removeRoomKeys(w, r, who)
}

// removeRoomKeys removes the keys that the path names, some in each write.
func (s *Server) removeRoomKeys(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitKeys, string(who.user)); err != nil {
		return err
	}
	version, in, err := pathRoomKeys(r)
	if err != nil {
		return err
	}
	var b store.Backup
	for more := true; more; {
		err := s.store.Update(r.Context(), func(tx *store.Tx) (err error) {
			b, more, err = tx.DeleteRoomKeys(who.num, version, in, maxRoomKeys)
			return err
		})
		if err != nil {
			return backupError(err)
		}
	}
	return api.WriteJSON(w, roomKeysResponse{b.Count, backupETag(b)})
}
