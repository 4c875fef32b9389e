package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// BackupVersion names one backup of a user's room keys among all that the user
// ever had: the first is 1, and none is given twice.
type BackupVersion uint64

// A Backup is one version of a user's key backup. Spec: CS Server-side key
// backups.
type Backup struct {
	Version   BackupVersion
	Algorithm string
	AuthData  jsontext.Value
	ETag      uint64 // rises with each change of the keys
	Count     uint64 // of the keys
}

// maxBackups bounds the versions that a user keeps at a time. Clients delete
// the old one before they make a new one.
const maxBackups = 100

// CreateBackup begins a new version, which is the current one from now on. The
// error wraps ErrFull where the user has too many.
func (tx *Tx) CreateBackup(user UserNum, algorithm string, auth jsontext.Value) (BackupVersion, error) {
	newest, kept := BackupVersion(0), 0
	err := tx.backups(user, func(b Backup, deleted bool) (bool, error) {
		newest = max(newest, b.Version)
		if !deleted {
			kept++
		}
		return true, nil
	})
	if err != nil {
		return 0, err
	}
	if kept >= maxBackups {
		return 0, fmt.Errorf("%d key backups of user %d: %w", kept, user, ErrFull)
	}
	b := Backup{Version: newest + 1, Algorithm: algorithm, AuthData: auth, ETag: 1}
	if err := tx.putBackup(user, b); err != nil {
		return 0, err
	}
	return b.Version, tx.buryBackup(user, newest)
}

// Backup returns a version of a user's key backup, or ErrNotFound.
func (tx *Tx) Backup(user UserNum, version BackupVersion) (Backup, error) {
	v := tx.get(bucketUser, backupKey(user, version))
	b, deleted, err := readBackup(version, v)
	if v == nil || err == nil && deleted {
		return Backup{}, fmt.Errorf("key backup %d of user %d: %w", version, user, ErrNotFound)
	}
	return b, err
}

// CurrentBackup returns the newest version of a user's key backup, or
// ErrNotFound. Keys are added to it alone.
func (tx *Tx) CurrentBackup(user UserNum) (current Backup, err error) {
	err = tx.backups(user, func(b Backup, deleted bool) (bool, error) {
		if !deleted {
			current = b
		}
		return deleted, nil
	})
	if err == nil && current.Version == 0 {
		err = fmt.Errorf("current key backup of user %d: %w", user, ErrNotFound)
	}
	return current, err
}

// HadBackup says whether a user has, or has had, a version.
func (tx *Tx) HadBackup(user UserNum, version BackupVersion) (bool, error) {
	newest := BackupVersion(0)
	err := tx.backups(user, func(b Backup, _ bool) (bool, error) {
		newest = b.Version
		return false, nil
	})
	return version != 0 && version <= newest, err
}

// PutBackupAuth changes the authentication data of a version.
func (tx *Tx) PutBackupAuth(user UserNum, version BackupVersion, auth jsontext.Value) error {
	b, err := tx.Backup(user, version)
	if err != nil || sameJSON(b.AuthData, auth) {
		return err
	}
	b.AuthData = auth
	return tx.putBackup(user, b)
}

// DeleteBackup ends a version. It is no error to do it twice; a version that the
// user never had is ErrNotFound. Its keys cannot be read any more and go by
// [Tx.SweepBackups].
func (tx *Tx) DeleteBackup(user UserNum, version BackupVersion) error {
	had, err := tx.HadBackup(user, version)
	if err != nil {
		return err
	}
	if !had {
		return fmt.Errorf("delete key backup %d of user %d: %w", version, user, ErrNotFound)
	}
	if _, err := tx.Backup(user, version); err != nil {
		return ignoreNotFound(err)
	}
	grave := []byte{backupDeleted}
	if err := tx.put(bucketUser, backupKey(user, version), grave); err != nil {
		return fmt.Errorf("delete key backup %d of user %d: %w", version, user, err)
	}
	later, err := tx.HadBackup(user, version+1)
	if err != nil || !later {
		return err
	}
	return tx.buryBackup(user, version)
}

// buryBackup removes the record of a deleted version. That of the newest one
// stays, so that its version is not given again.
func (tx *Tx) buryBackup(user UserNum, version BackupVersion) error {
	key := backupKey(user, version)
	if v := tx.get(bucketUser, key); len(v) == 0 || v[0]&backupDeleted == 0 {
		return nil
	}
	return tx.delete(bucketUser, key)
}

// SweepBackups removes at most limit keys of versions that are deleted and says
// whether some may be left, so that a large backup does not make a large
// transaction. Call it until it returns false.
func (tx *Tx) SweepBackups(user UserNum, limit int) (more bool, err error) {
	version, found, err := tx.staleBackup(user)
	if err != nil || !found {
		return false, err
	}
	_, err = tx.deleteAll(bucketUser, backupKeysPrefix(user, version), limit)
	return true, err
}

// HasStaleKeys says whether SweepBackups has something to remove.
func (tx *Tx) HasStaleKeys(user UserNum) (bool, error) {
	_, found, err := tx.staleBackup(user)
	return found, err
}

// staleBackup returns the first deleted version that has keys left.
func (tx *Tx) staleBackup(user UserNum) (version BackupVersion, found bool, err error) {
	prefix := keyOf(uint32(user), userBackupKey)
	for {
		found = false
		start := backupKeysPrefix(user, version)
		err := tx.scan(bucketUser, prefix, start, func(rest, _ []byte) (bool, error) {
			if len(rest) < 8 {
				return false, fmt.Errorf("key backups of user %d: %w", user, ErrDamaged)
			}
			version, found = BackupVersion(u64(rest)), true
			return false, nil
		})
		if err != nil || !found {
			return 0, false, err
		}
		if _, err := tx.Backup(user, version); err != nil {
			return version, true, ignoreNotFound(err)
		}
		version++
	}
}

// backups calls fn for each version that has a record, the newest first.
func (tx *Tx) backups(user UserNum, fn func(b Backup, deleted bool) (bool, error)) error {
	return tx.scanBack(bucketUser, keyOf(uint32(user), userBackup), nil, func(rest, v []byte) (bool, error) {
		if len(rest) != 8 {
			return false, fmt.Errorf("key backups of user %d: %w", user, ErrDamaged)
		}
		b, deleted, err := readBackup(BackupVersion(u64(rest)), v)
		if err != nil {
			return false, fmt.Errorf("key backup of user %d: %w", user, err)
		}
		return fn(b, deleted)
	})
}

// backupDeleted is the flag of a version's record when it is deleted; then
// nothing follows.
const backupDeleted = 1

func (tx *Tx) putBackup(user UserNum, b Backup) error {
	v := binary.AppendUvarint([]byte{0}, b.ETag)
	v = binary.AppendUvarint(v, b.Count)
	v = append(appendString(v, b.Algorithm), b.AuthData...)
	if err := tx.put(bucketUser, backupKey(user, b.Version), v); err != nil {
		return fmt.Errorf("key backup %d of user %d: %w", b.Version, user, err)
	}
	return nil
}

func readBackup(version BackupVersion, v []byte) (b Backup, deleted bool, err error) {
	b.Version = version
	r := reader{b: v}
	if r.byte()&backupDeleted != 0 {
		return b, true, nil
	}
	b.ETag, b.Count, b.Algorithm = r.uvarint(), r.uvarint(), r.string()
	b.AuthData = bytes.Clone(r.b)
	if r.err != nil {
		return Backup{}, false, fmt.Errorf("key backup %d: %w", version, r.err)
	}
	return b, false, nil
}

func backupKey(user UserNum, version BackupVersion) []byte {
	return appendU64(keyOf(uint32(user), userBackup), uint64(version))
}

func backupKeysPrefix(user UserNum, version BackupVersion) []byte {
	return appendU64(keyOf(uint32(user), userBackupKey), uint64(version))
}

// checkBackups counts the keys of each backup. Keys of deleted versions may
// still wait for the sweep, those of versions that never were may not.
func checkBackups(c *checker) error {
	type version struct {
		user    uint32
		version uint64
	}
	counts := make(map[version]uint64)
	newest := make(map[uint32]uint64)
	err := errors.Join(
		c.eachOf(bucketUser, userBackupKey, func(user uint32, rest, v []byte) {
			if len(rest) < 13 || c.RoomID(RoomNum(u32(rest[8:]))) == "" {
				c.faultf("user %d: key %x of a backup is of no room", user, rest)
				return
			}
			if k, err := readRoomKey(v); err != nil || !k.Data.IsValid() {
				c.faultf("user %d: key %x of a backup cannot be read", user, rest)
			}
			counts[version{user, u64(rest)}]++
		}),
		c.eachOf(bucketUser, userBackup, func(user uint32, rest, v []byte) {
			if len(rest) != 8 {
				c.faultf("user %d: key backup %x", user, rest)
				return
			}
			newest[user] = max(newest[user], u64(rest))
			b, deleted, err := readBackup(BackupVersion(u64(rest)), v)
			if n := counts[version{user, u64(rest)}]; err != nil || !deleted && n != b.Count {
				c.faultf("user %d: key backup %d has %d keys, not %d: %v", user, b.Version, n, b.Count, err)
			}
		}),
	)
	for v, n := range counts {
		if v.version > newest[v.user] {
			c.faultf("user %d: %d keys of backup %d, which never was", v.user, n, v.version)
		}
	}
	return err
}
