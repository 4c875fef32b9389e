package remote

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"hearth/server/e2ee"
	"hearth/state/matrix"
	"hearth/store"
)

const (
	// maxQueried is how many users a server is asked for at once.
	maxQueried = 25
	// maxKept is how much is stored in one write, in bytes and some.
	maxKept = 128 << 10
	// maxFound bounds the keys that one query finds, in bytes.
	maxFound = 16 << 20
)

// errTooManyKeys is why a server is not asked any more.
var errTooManyKeys = fmt.Errorf("the keys that were found are more than %d bytes", maxFound)

// FoundKeys are the keys of other servers' users, and what went wrong with which
// server. Of a user whose server failed there may be what is kept here.
type FoundKeys struct {
	Users  map[matrix.UserID]e2ee.Keys
	Failed map[matrix.ServerName]error

	mu    sync.Mutex // guards the above while they are found
	bytes int
}

// Query finds the keys of other servers' users: of the named devices, or of all of a
// user. What is kept here and good is taken from here, the rest from their servers,
// until ctx ends. What our users have signed about those keys is not among it.
//
// Spec: SS End-to-End Encryption, POST /user/keys/query.
func (l *DeviceLists) Query(ctx context.Context, users map[matrix.UserID][]matrix.DeviceID) (*FoundKeys, error) {
	found := &FoundKeys{Users: make(map[matrix.UserID]e2ee.Keys), Failed: make(map[matrix.ServerName]error)}
	byServer := make(map[matrix.ServerName][]wantedKeys)
	for user, named := range users {
		byServer[user.Server()] = append(byServer[user.Server()], wantedKeys{user: user, named: named})
	}
	var group errgroup.Group
	group.SetLimit(maxAsking)
	for server, wanted := range byServer {
		group.Go(func() error { return l.queryServer(ctx, server, wanted, found) })
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("query keys of %d users: %w", len(users), err)
	}
	return found, nil
}

// queryServer finds the keys of one server's users. Its error is the store's.
func (l *DeviceLists) queryServer(ctx context.Context, server matrix.ServerName, wanted []wantedKeys, found *FoundKeys) error {
	missing, err := l.kept(wanted, found, false)
	for len(missing) > 0 && err == nil {
		part := missing[:min(len(missing), maxQueried)]
		missing = missing[len(part):]
		var fault error
		if fault, err = l.fetch(ctx, server, part, found); fault != nil {
			found.fail(server, fault)
			if err == nil { // what is stale is better than nothing
				_, err = l.kept(append(part, missing...), found, true)
			}
			return err
		}
	}
	return err
}

// kept takes the keys of users whose lists are good from the store, and returns the
// other users; with stale, those of lists that are not good, too.
func (l *DeviceLists) kept(wanted []wantedKeys, found *FoundKeys, stale bool) (missing []wantedKeys, err error) {
	err = l.store.View(func(tx *store.Tx) error {
		view := e2ee.View{Tx: tx}
		for _, u := range wanted {
			var err error
			if u.share, err = shareOf(tx, u.user); err != nil {
				return err
			}
			u.num = tx.UserNum(u.user)
			list, known, err := tx.RemoteDeviceList(u.num)
			if err != nil {
				return err
			}
			good := !list.Stale && list.Fetched >= u.share.since
			if !known || !u.share.ok() || !good && !stale {
				missing = append(missing, u)
				continue
			}
			keys, err := view.User(u.num, u.named)
			if err != nil {
				return err
			}
			if !found.add(u.user, keys) {
				found.fail(u.user.Server(), errTooManyKeys)
				missing = nil
				return nil
			}
		}
		return nil
	})
	return missing, err
}

// fetch asks a server for the keys of its users, and keeps those of users who share a
// room with ours. Those whom somebody else is asking for are waited for. fault is why
// the server has not answered, err is the store's.
func (l *DeviceLists) fetch(ctx context.Context, server matrix.ServerName, users []wantedKeys, found *FoundKeys) (fault, err error) {
	mine, others := l.take(users)
	if len(mine) > 0 {
		fault, err = l.fetchTaken(ctx, server, mine, found)
		l.release(mine)
	}
	if fault != nil || err != nil || len(others) == 0 {
		return fault, err
	}
	for _, under := range others {
		select {
		case <-under.done:
		case <-ctx.Done():
			return fmt.Errorf("keys of users of %s: %w: %w", server, ErrUnreachable, ctx.Err()), nil
		}
	}
	taken := make(map[matrix.UserID]bool, len(mine))
	for _, u := range mine {
		taken[u.user] = true
	}
	var theirs []wantedKeys
	for _, u := range users {
		if !taken[u.user] {
			theirs = append(theirs, u)
		}
	}
	missing, err := l.kept(theirs, found, false)
	if err == nil && len(missing) > 0 {
		fault = fmt.Errorf("keys of %d users of %s: %w", len(missing), server, ErrUnreachable)
	}
	return fault, err
}

// fetchTaken is fetch for users who were taken.
func (l *DeviceLists) fetchTaken(ctx context.Context, server matrix.ServerName, mine []wantedKeys, found *FoundKeys) (fault, err error) {
	if err := l.asking.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("keys of users of %s: %w: %w", server, ErrUnreachable, err), nil
	}
	defer l.asking.Release(1)
	began := l.store.Position()
	all, fault := l.askKeys(ctx, server, mine)
	if fault != nil {
		return fault, nil
	}
	for _, f := range all {
		keys, err := f.shown()
		if err != nil {
			return nil, err
		}
		if !found.add(f.user, keys) {
			return errTooManyKeys, nil
		}
	}
	return nil, l.keep(ctx, all, began)
}

// keep stores what was fetched of users who share a room with ours, some in each
// write. It outlives the request that asked for it, as others may wait.
func (l *DeviceLists) keep(ctx context.Context, all []fetched, began store.Position) error {
	for len(all) > 0 {
		n, size := 0, 0
		for n < len(all) && (n == 0 || size+all[n].size() <= maxKept) {
			size += all[n].size()
			n++
		}
		part := all[:n]
		all = all[n:]
		err := l.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
			for _, f := range part {
				if !f.share.ok() {
					continue
				}
				if err := l.keepOne(tx, f, began); err != nil {
					return fmt.Errorf("keep the devices of %s: %w", f.user, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// keepOne stores what was fetched of a user. A list that was here and is another now
// is news; of one that was not, sharing a room was the news.
func (l *DeviceLists) keepOne(tx *store.Tx, f fetched, began store.Position) error {
	_, known, err := tx.RemoteDeviceList(f.num)
	if err != nil {
		return err
	}
	changed, err := f.put(tx)
	if err != nil {
		return err
	}
	list := store.RemoteDeviceList{Stream: f.stream, Stale: l.dirty(f.user), Fetched: began}
	if err := tx.PutRemoteDeviceList(f.num, list, l.config.Now()); err != nil || !known || !changed {
		return err
	}
	return tx.RemoteDevicesChanged(f.num, f.share.locals)
}

// add takes the keys of a user, and reports false where they are too many.
func (a *FoundKeys) add(user matrix.UserID, keys e2ee.Keys) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	size := len(keys.Master) + len(keys.SelfSigning)
	for _, object := range keys.Devices {
		size += len(object)
	}
	if a.bytes += size; a.bytes > maxFound {
		return false
	}
	a.Users[user] = keys
	return true
}

func (a *FoundKeys) fail(server matrix.ServerName, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Failed[server] = err
}
