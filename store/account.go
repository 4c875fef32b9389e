package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"hearth/state/matrix"
)

// An Account is a local user. Its record stays for ever, so that a name is
// never given to a second person.
type Account struct {
	// PasswordHash is what the password is checked against, in a form that
	// its maker knows; empty: no password opens this account.
	PasswordHash string
	Created      time.Time // with milliseconds
	Admin        bool
	Deactivated  bool
	Erased       bool     // deactivated with the wish that its events be forgotten
	ErasedAt     Position // the newest position when that was wished
	Locked       bool     // CS Account locking
	Suspended    bool     // CS Account suspension
	Guest        bool     // CS Guest Access; has no password
	Service      bool     // speaks for the server itself: nobody logs in to it
}

// The bits of an account record's first number.
const (
	accountAdmin = 1 << iota
	accountDeactivated
	accountErased
	accountLocked
	accountSuspended
	accountGuest
	accountService
)

// Account returns a local user's account, or ErrNotFound for everybody else.
func (tx *Tx) Account(user UserNum) (Account, error) {
	v := tx.get(bucketUser, keyOf(uint32(user), userAccount))
	if v == nil || user == 0 {
		return Account{}, fmt.Errorf("account of user %d: %w", user, ErrNotFound)
	}
	a, err := readAccount(v)
	if err != nil {
		return Account{}, fmt.Errorf("account of user %d: %w", user, err)
	}
	return a, nil
}

// IsLocal says whether a user has, or has had, an account here.
func (tx *Tx) IsLocal(user UserNum) bool {
	return user != 0 && tx.get(bucketUser, keyOf(uint32(user), userAccount)) != nil
}

// CreateAccount makes the account of a new local user and returns the user's
// number. The first one that is made so becomes the owner's and an administrator's.
// The error wraps ErrExists where the name is, or ever was, taken.
func (tx *Tx) CreateAccount(id matrix.UserID, a Account) (UserNum, error) {
	first := tx.Owner() == 0
	a.Admin = a.Admin || first
	user, err := tx.CreateOpenAccount(id, a)
	if err != nil || !first {
		return user, err
	}
	owner := binary.AppendUvarint(nil, uint64(user))
	if err := tx.put(bucketMeta, []byte(metaOwner), owner); err != nil {
		return 0, fmt.Errorf("create %s: %w", id, err)
	}
	return user, nil
}

// CreateOpenAccount is CreateAccount for somebody who needed nobody's leave to
// register: the account never becomes the owner's.
func (tx *Tx) CreateOpenAccount(id matrix.UserID, a Account) (UserNum, error) {
	user, err := tx.PutUserNum(id)
	if err != nil {
		return 0, fmt.Errorf("create %s: %w", id, err)
	}
	if tx.IsLocal(user) {
		return 0, fmt.Errorf("create %s: %w", id, ErrExists)
	}
	if err := tx.putAccount(user, a); err != nil {
		return 0, fmt.Errorf("create %s: %w", id, err)
	}
	return user, nil
}

// Owner returns the owner of the server, 0 before there is an account.
func (tx *Tx) Owner() UserNum {
	n, size := binary.Uvarint(tx.get(bucketMeta, []byte(metaOwner)))
	if size <= 0 {
		return 0
	}
	return UserNum(n)
}

// UpdateAccount changes an existing account: change gets what is stored and
// may alter it. The error wraps ErrNotFound where there is none.
func (tx *Tx) UpdateAccount(user UserNum, change func(*Account)) error {
	a, err := tx.Account(user)
	if err != nil {
		return err
	}
	change(&a)
	return tx.putAccount(user, a)
}

// ResetPassword gives an account a new password hash and leaves its devices
// alone; see LogOut. The error wraps ErrNotFound where there is no account to log
// in to: none at all, a deactivated one, a guest's or the server's own.
func (tx *Tx) ResetPassword(user UserNum, hash string) error {
	a, err := tx.Account(user)
	if err != nil {
		return err
	}
	if a.Deactivated {
		return fmt.Errorf("reset the password of user %d: deactivated account: %w", user, ErrNotFound)
	}
	if a.Guest || a.Service {
		return fmt.Errorf("reset the password of user %d: nobody can log in to this account: %w", user, ErrNotFound)
	}
	a.PasswordHash = hash
	return tx.putAccount(user, a)
}

// Accounts calls fn for each account in order of creation of the users'
// numbers, until fn returns false or an error.
func (tx *Tx) Accounts(fn func(UserNum, Account) (bool, error)) error {
	c := tx.in(bucketUser).Cursor()
	for k, v := c.Seek(keyOf(1, userAccount)); k != nil; {
		if len(k) < 5 {
			return fmt.Errorf("accounts: key of %d bytes: %w", len(k), ErrDamaged)
		}
		user := u32(k)
		if k[4] < userAccount {
			k, v = c.Seek(keyOf(user, userAccount))
			continue
		}
		if k[4] == userAccount && len(k) == 5 {
			a, err := readAccount(v)
			if err != nil {
				return fmt.Errorf("account of user %d: %w", user, err)
			}
			if more, err := fn(UserNum(user), a); err != nil || !more {
				return err
			}
		}
		if user == 1<<32-1 {
			return nil
		}
		k, v = c.Seek(keyOf(user+1, userAccount))
	}
	return nil
}

// Deactivate closes an account for good: no password, no devices, no tokens,
// and nobody may have the name again. It is no error to do it twice. What else
// the account has stored goes by [Tx.SweepDeactivated]; rooms are left by state.
//
// The server's own account is as good as none: the error wraps ErrNotFound.
//
// Spec: CS Account deactivation.
func (tx *Tx) Deactivate(user UserNum, erase bool) error {
	if a, err := tx.Account(user); err == nil && a.Service {
		return fmt.Errorf("deactivate user %d: the account is the server's own: %w", user, ErrNotFound)
	}
	err := tx.UpdateAccount(user, func(a *Account) {
		a.Deactivated, a.Admin = true, false
		if erase && !a.Erased {
			a.Erased, a.ErasedAt = true, tx.Position()
		}
		a.PasswordHash = ""
	})
	if err != nil {
		return err
	}
	if err := tx.LogOut(user, ""); err != nil {
		return fmt.Errorf("deactivate user %d: %w", user, err)
	}
	return nil
}

// deactivatedKinds are the kinds of a user's records that do not outlive the
// account, beside what its devices take with them.
var deactivatedKinds = []byte{
	userProfile, userData, userDataAt, userFilter, userPresence, userPusher,
	userCrossSigning, userSignature, userSignedAt, userBackup, userBackupKey,
}

// SweepDeactivated removes at most limit records of a deactivated account and
// says whether some may be left, so that a large key backup does not make a
// large transaction. Call it until it returns false.
func (tx *Tx) SweepDeactivated(user UserNum, limit int) (more bool, err error) {
	a, err := tx.Account(user)
	if err != nil {
		return false, err
	}
	if !a.Deactivated {
		return false, fmt.Errorf("sweep user %d: the account is in use: %w", user, ErrExists)
	}
	for _, kind := range deactivatedKinds {
		n, err := tx.deleteAll(bucketUser, keyOf(uint32(user), kind), limit)
		if err != nil {
			return false, fmt.Errorf("sweep user %d: %w", user, err)
		}
		if limit -= n; limit <= 0 {
			return true, nil
		}
	}
	return false, nil
}

func (tx *Tx) putAccount(user UserNum, a Account) error {
	flags := bit(accountAdmin, a.Admin) | bit(accountDeactivated, a.Deactivated) |
		bit(accountErased, a.Erased) | bit(accountLocked, a.Locked) | bit(accountSuspended, a.Suspended) |
		bit(accountGuest, a.Guest) | bit(accountService, a.Service)
	v := binary.AppendUvarint(nil, flags)
	v = binary.AppendVarint(v, a.Created.UnixMilli())
	v = appendString(v, a.PasswordHash)
	if a.Erased {
		v = binary.AppendUvarint(v, uint64(a.ErasedAt))
	}
	return tx.put(bucketUser, keyOf(uint32(user), userAccount), v)
}

// bit returns mask where set, else 0.
func bit(mask uint64, set bool) uint64 {
	if set {
		return mask
	}
	return 0
}

func readAccount(v []byte) (Account, error) {
	r := reader{b: v}
	flags := r.uvarint()
	a := Account{
		Admin:       flags&accountAdmin != 0,
		Deactivated: flags&accountDeactivated != 0,
		Erased:      flags&accountErased != 0,
		Locked:      flags&accountLocked != 0,
		Suspended:   flags&accountSuspended != 0,
		Guest:       flags&accountGuest != 0,
		Service:     flags&accountService != 0,
		Created:     time.UnixMilli(r.varint()),
	}
	a.PasswordHash = r.string()
	if a.Erased && len(r.b) > 0 { // the first records had no position
		a.ErasedAt = Position(r.uvarint())
	}
	return a, r.err
}
