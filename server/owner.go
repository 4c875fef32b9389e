package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hearth/server/api"
	"hearth/server/client"
	"hearth/server/remote"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// owner does what the owner of the server asks for with the subcommands: deeds
// over the store and the rooms, without any form of request. The socket of
// admin.go makes them reachable.
type owner struct {
	store     *store.Store
	rooms     *state.Rooms
	client    *client.Server
	passwords *client.Passwords
	now       func() time.Time
	network   *remote.Network // nil while no server runs or federation is off, as is the next
	sender    *remote.Sender
}

// account is a local user, as the owner sees one.
type account struct {
	User        matrix.UserID `json:"user"`
	Owner       bool          `json:"owner,omitzero"`
	Admin       bool          `json:"admin,omitzero"`
	Deactivated bool          `json:"deactivated,omitzero"`
	Locked      bool          `json:"locked,omitzero"`
	Suspended   bool          `json:"suspended,omitzero"`
	Guest       bool          `json:"guest,omitzero"`
	Service     bool          `json:"service,omitzero"` // the server's own account
	Created     time.Time     `json:"created"`
}

// userID returns the ID of a local user who is named by it or by its localpart.
func (o *owner) userID(name string) (matrix.UserID, error) {
	if !strings.HasPrefix(name, "@") {
		return matrix.NewUserID(name, o.store.Server())
	}
	id, err := matrix.ParseUserID(name)
	if err == nil && id.Server() != o.store.Server() {
		return "", fmt.Errorf("%s is not a user of %s: %w", id, o.store.Server(), store.ErrNotFound)
	}
	return id, err
}

// localUser returns the number of a user who has an account.
func localUser(tx *store.Tx, id matrix.UserID) (store.UserNum, error) {
	num := tx.UserNum(id)
	if !tx.IsLocal(num) {
		return 0, fmt.Errorf("%s has no account: %w", id, store.ErrNotFound)
	}
	return num, nil
}

// addUser makes an account with a password. The first account of all is the
// owner's.
func (o *owner) addUser(ctx context.Context, name, password string, admin bool) (account, error) {
	id, err := o.userID(name)
	if err != nil {
		return account{}, err
	}
	if id == o.client.NoticesUser() {
		return account{}, api.ErrExclusive.Because("The server keeps that name for itself")
	}
	hash, err := o.passwords.Hash(ctx, password)
	if err != nil {
		return account{}, err
	}
	made := account{User: id, Created: o.now()}
	err = o.store.Update(ctx, func(tx *store.Tx) error {
		num, err := tx.CreateAccount(id, store.Account{PasswordHash: hash, Created: made.Created, Admin: admin})
		if err != nil {
			return err
		}
		made.Owner = tx.Owner() == num
		made.Admin = admin || made.Owner
		return nil
	})
	if errors.Is(err, store.ErrExists) {
		return account{}, api.ErrUserInUse
	}
	return made, err
}

// resetPassword gives an account a new password and, if asked, logs all of its
// devices out.
func (o *owner) resetPassword(ctx context.Context, name, password string, logOut bool) (matrix.UserID, error) {
	id, err := o.userID(name)
	if err != nil {
		return "", err
	}
	hash, err := o.passwords.Hash(ctx, password)
	if err != nil {
		return "", err
	}
	return id, o.store.Update(ctx, func(tx *store.Tx) error {
		num, err := localUser(tx, id)
		if err != nil {
			return err
		}
		if err := tx.ResetPassword(num, hash); err != nil || !logOut {
			return err
		}
		return tx.LogOut(num, "")
	})
}

// users returns all accounts, the deactivated ones too.
func (o *owner) users() ([]account, error) {
	var all []account
	err := o.store.View(func(tx *store.Tx) error {
		first := tx.Owner()
		return tx.Accounts(func(num store.UserNum, a store.Account) (bool, error) {
			all = append(all, account{
				User: tx.UserID(num), Owner: num == first, Admin: a.Admin, Deactivated: a.Deactivated,
				Locked: a.Locked, Suspended: a.Suspended, Guest: a.Guest, Service: a.Service, Created: a.Created,
			})
			return true, nil
		})
	})
	return all, err
}

// hasOwner reports whether the owner has an account.
func (o *owner) hasOwner() (bool, error) {
	var some bool
	err := o.store.View(func(tx *store.Tx) error {
		some = tx.Owner() != 0
		return nil
	})
	return some, err
}

// deactivate closes an account for good.
func (o *owner) deactivate(ctx context.Context, name string, erase bool) (matrix.UserID, error) {
	id, err := o.userID(name)
	if err != nil {
		return "", err
	}
	var num store.UserNum
	err = o.store.View(func(tx *store.Tx) (err error) {
		num, err = localUser(tx, id)
		return err
	})
	if err != nil {
		return "", err
	}
	return id, o.client.Deactivate(ctx, num, erase)
}

// token is a registration token, as the owner sees one.
type token struct {
	Token     string    `json:"token"`
	Allowed   uint64    `json:"uses_allowed,omitzero"` // 0: without bound
	Completed uint64    `json:"completed"`
	Expires   time.Time `json:"expires,omitzero"` // zero: never
	Valid     bool      `json:"valid"`
}

// addToken stores a registration token for a number of accounts (0: without
// bound) and for a time (0: for ever). An empty name gets a random one.
func (o *owner) addToken(ctx context.Context, name string, uses uint64, life time.Duration) (token, error) {
	if name == "" {
		name = rand.Text()[:16]
	}
	if err := store.CheckRegistrationToken(name); err != nil {
		return token{}, api.InvalidParam("token", err)
	}
	t := store.RegistrationToken{Token: name, Allowed: uses, Created: o.now()}
	if life > 0 {
		t.Expires = t.Created.Add(life)
	}
	err := o.store.Update(ctx, func(tx *store.Tx) error { return tx.AddRegistrationToken(t) })
	return o.shown(t), err
}

// tokens returns all registration tokens, valid or not.
func (o *owner) tokens() ([]token, error) {
	var all []token
	err := o.store.View(func(tx *store.Tx) error {
		return tx.RegistrationTokens(func(t store.RegistrationToken) (bool, error) {
			all = append(all, o.shown(t))
			return true, nil
		})
	})
	return all, err
}

func (o *owner) shown(t store.RegistrationToken) token {
	return token{t.Token, t.Allowed, t.Completed, t.Expires, t.Valid(o.now())}
}

// revokeToken removes a registration token.
func (o *owner) revokeToken(ctx context.Context, name string) error {
	return o.store.Update(ctx, func(tx *store.Tx) error { return tx.RevokeRegistrationToken(name) })
}

// room is a room, as the owner sees one.
type room struct {
	Room        matrix.RoomID   `json:"room"`
	Version     string          `json:"version"`
	Joined      uint64          `json:"joined"`
	Servers     int             `json:"servers"`     // with joined users, ours included
	Extremities int             `json:"extremities"` // events that no other follows
	Bytes       int64           `json:"bytes"`       // of the database
	Aliases     []string        `json:"aliases,omitempty"`
	Local       []matrix.UserID `json:"local,omitempty"` // our users who have joined
}

// allRooms returns every room that the server knows.
func (o *owner) allRooms(ctx context.Context) ([]room, error) {
	var nums []store.RoomNum
	err := o.store.View(func(tx *store.Tx) error {
		return tx.Rooms(func(num store.RoomNum, _ store.Head) (bool, error) {
			nums = append(nums, num)
			return true, nil
		})
	})
	var all []room
	for _, num := range nums {
		if err != nil {
			break
		}
		err = o.store.View(func(tx *store.Tx) error {
			r, err := showRoom(ctx, tx, num)
			if err == nil {
				all = append(all, r)
			} else if errors.Is(err, store.ErrNotFound) {
				err = nil // purged meanwhile
			}
			return err
		})
	}
	return all, err
}

// showRoom reads what the owner sees of a room. It reads all of the room to know
// what that takes.
func showRoom(ctx context.Context, tx *store.Tx, num store.RoomNum) (room, error) {
	head, err := tx.Head(num)
	if err != nil {
		return room{}, err
	}
	r := room{Room: tx.RoomID(num), Version: head.Version.ID, Joined: head.Joined, Extremities: len(head.Extremities)}
	aliases, err := tx.Aliases(num)
	if err != nil {
		return room{}, err
	}
	for _, a := range aliases {
		r.Aliases = append(r.Aliases, string(a))
	}
	err = tx.RoomServers(num, func(store.ServerNum, uint64) (bool, error) {
		r.Servers++
		return true, nil
	})
	if err != nil {
		return room{}, err
	}
	if r.Local, err = localMembers(tx, num, matrix.Join); err != nil {
		return room{}, err
	}
	if len(r.Local) > 0 {
		r.Servers++
	}
	r.Bytes, err = tx.RoomBytes(ctx, num)
	return r, err
}

// localMembers returns our users who have one of the memberships in a room.
func localMembers(tx *store.Tx, num store.RoomNum, memberships ...matrix.Membership) ([]matrix.UserID, error) {
	var users []matrix.UserID
	err := tx.LocalMembers(num, func(user store.UserNum, m matrix.Membership) (bool, error) {
		if slices.Contains(memberships, m) {
			users = append(users, tx.UserID(user))
		}
		return true, nil
	})
	return users, err
}

// leaveRoom makes all of our users leave a room and returns who did.
func (o *owner) leaveRoom(ctx context.Context, id matrix.RoomID) ([]matrix.UserID, error) {
	var users []matrix.UserID
	err := o.store.View(func(tx *store.Tx) (err error) {
		num := tx.RoomNum(id)
		if num == 0 {
			return fmt.Errorf("room %s: %w", id, store.ErrNotFound)
		}
		users, err = localMembers(tx, num, matrix.Join, matrix.Invite, matrix.Knock)
		return err
	})
	var left []matrix.UserID
	for _, user := range users {
		if leaveErr := o.rooms.Leave(ctx, id, user, ""); leaveErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", user, leaveErr))
			continue
		}
		left = append(left, user)
	}
	return left, err
}

// purgeRoom makes all of our users leave a room and removes all that is stored of
// it. It tells report who leaves, and every progressEvery how far it is; it returns
// how many records it removed.
func (o *owner) purgeRoom(ctx context.Context, id matrix.RoomID, report func(state.PurgeProgress) error) (removed int, err error) {
	told := time.Now()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err = o.rooms.Purge(ctx, id, func(p state.PurgeProgress) {
		removed = p.Removed
		if p.Left == "" && time.Since(told) < progressEvery {
			return
		}
		told = time.Now()
		if err := report(p); err != nil {
			stop(err)
		}
	})
	return removed, err
}

// progressEvery is how often long work tells how far it is.
const progressEvery = 5 * time.Second

// maxFaults bounds the faults of a check that are listed.
const maxFaults = 1000

// check reads all that is stored and returns what is wrong with it, at most
// maxFaults things, and how many there are.
func (o *owner) check(ctx context.Context) (faults []string, count int, err error) {
	err = o.store.Check(ctx, func(fault string) {
		if count++; count <= maxFaults {
			faults = append(faults, fault)
		}
	})
	return faults, count, err
}
