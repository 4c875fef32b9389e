package client

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/store"
)

// maxBackupAuthBytes bounds what describes a key backup.
const maxBackupAuthBytes = 64 << 10

// maxBackupAlgorithm bounds the name of an algorithm, in bytes.
const maxBackupAlgorithm = 255

// backupInfo describes a version of a key backup.
type backupInfo struct {
	Algorithm string         `json:"algorithm"`
	AuthData  jsontext.Value `json:"auth_data"`
	Count     uint64         `json:"count"`
	ETag      string         `json:"etag"`
	Version   string         `json:"version"`
}

type backupRequest struct {
	Algorithm string         `json:"algorithm"`
	AuthData  jsontext.Value `json:"auth_data"`
	Version   string         `json:"version"`
}

type backupVersionResponse struct {
	Version string `json:"version"`
}

// errNoBackup says that a version of a key backup is not there.
var errNoBackup = api.ErrNotFound.Because("You have no such key backup")

// postRoomKeysVersion answers POST /room_keys/version. What is left of deleted
// versions goes on the way.
//
// Spec: CS Server-side key backups.
func (s *Server) postRoomKeysVersion(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitKeys, string(who.user)); err != nil {
		return err
	}
	req, err := readBackup(r)
	if err != nil {
		return err
	}
	if err := s.sweepBackups(r, who); err != nil {
		return err
	}
	var version store.BackupVersion
	err = s.store.Update(r.Context(), func(tx *store.Tx) (err error) {
		version, err = tx.CreateBackup(who.num, req.Algorithm, req.AuthData)
		return err
	})
	if errors.Is(err, store.ErrFull) {
		return api.ErrUserLimit.Because("You have too many key backups: delete one first")
	}
	if err != nil {
		return fmt.Errorf("new key backup of %s: %w", who.user, err)
	}
	return api.WriteJSON(w, backupVersionResponse{backupName(version)})
}

// getRoomKeysVersionCurrent answers GET /room_keys/version.
func (s *Server) getRoomKeysVersionCurrent(w http.ResponseWriter, _ *http.Request, who session) error {
	return s.writeBackup(w, func(tx *store.Tx) (store.Backup, error) { return tx.CurrentBackup(who.num) })
}

// getRoomKeysVersion answers GET /room_keys/version/{version}.
func (s *Server) getRoomKeysVersion(w http.ResponseWriter, r *http.Request, who session) error {
	version, err := parseBackup(r.PathValue("version"))
	if err != nil {
		return err
	}
	return s.writeBackup(w, func(tx *store.Tx) (store.Backup, error) { return tx.Backup(who.num, version) })
}

// writeBackup answers with what describes a version of a key backup.
func (s *Server) writeBackup(w http.ResponseWriter, find func(*store.Tx) (store.Backup, error)) error {
	var b store.Backup
	err := s.store.View(func(tx *store.Tx) (err error) {
		b, err = find(tx)
		return err
	})
	if err != nil {
		return backupError(err)
	}
	return api.WriteJSON(w, backupInfo{
		Algorithm: b.Algorithm, AuthData: b.AuthData, Count: b.Count,
		ETag: backupETag(b), Version: backupName(b.Version),
	})
}

// putRoomKeysVersion answers PUT /room_keys/version/{version}: new auth_data.
func (s *Server) putRoomKeysVersion(w http.ResponseWriter, r *http.Request, who session) error {
	version, err := parseBackup(r.PathValue("version"))
	if err != nil {
		return err
	}
	req, err := readBackup(r)
	if err != nil {
		return err
	}
	// "The backup version. If present, must be the same as the version in the
	// path parameter."
	if req.Version != "" && req.Version != r.PathValue("version") {
		return api.ErrInvalidParam.Because("version is not that of the path")
	}
	err = s.store.Update(r.Context(), func(tx *store.Tx) error {
		b, err := tx.Backup(who.num, version)
		if err != nil {
			return err
		}
		if b.Algorithm != req.Algorithm {
			return api.ErrInvalidParam.Because("algorithm is not that of the backup")
		}
		return tx.PutBackupAuth(who.num, version, req.AuthData)
	})
	if err != nil {
		return backupError(err)
	}
	return api.WriteEmpty(w)
}

// deleteRoomKeysVersion answers DELETE /room_keys/version/{version}. The version
// is gone at once, its keys soon after.
func (s *Server) deleteRoomKeysVersion(w http.ResponseWriter, r *http.Request, who session) error {
	version, err := parseBackup(r.PathValue("version"))
	if err != nil {
		return err
	}
	err = s.store.Update(r.Context(), func(tx *store.Tx) error { return tx.DeleteBackup(who.num, version) })
	if err != nil {
		return backupError(err)
	}
	if err := s.sweepBackups(r, who); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// sweepBackups removes the keys of deleted versions, some in each write.
func (s *Server) sweepBackups(r *http.Request, who session) error {
	more := false
	err := s.store.View(func(tx *store.Tx) (err error) {
		more, err = tx.HasStaleKeys(who.num)
		return err
	})
	for more && err == nil {
		err = s.store.Update(r.Context(), func(tx *store.Tx) (err error) {
			more, err = tx.SweepBackups(who.num, maxRoomKeys)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("remove deleted key backups of %s: %w", who.user, err)
	}
	return nil
}

// readBackup reads what describes a version of a key backup.
func readBackup(r *http.Request) (backupRequest, error) {
	var req backupRequest
	if err := api.ReadJSON(r, maxBackupAuthBytes, &req); err != nil {
		return req, err
	}
	switch {
	case req.Algorithm == "":
		return req, api.MissingParam("algorithm")
	case len(req.Algorithm) > maxBackupAlgorithm:
		return req, api.ErrInvalidParam.Because("algorithm may have %d bytes at most", maxBackupAlgorithm)
	case !given(req.AuthData):
		return req, api.MissingParam("auth_data")
	case req.AuthData.Kind() != '{':
		return req, api.ErrBadJSON.Because("auth_data must be an object")
	}
	return req, nil
}

// parseBackup reads the name of a version; what is no name names nothing.
func parseBackup(name string) (store.BackupVersion, error) {
	n, err := strconv.ParseUint(name, 10, 63)
	if err != nil || name != backupName(store.BackupVersion(n)) {
		return 0, errNoBackup
	}
	return store.BackupVersion(n), nil
}

func backupName(version store.BackupVersion) string { return strconv.FormatUint(uint64(version), 10) }

// backupETag names the state of a version's keys.
func backupETag(b store.Backup) string { return strconv.FormatUint(b.ETag, 10) }

// backupError says that a version is not there.
func backupError(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return errNoBackup
	}
	return err
}
