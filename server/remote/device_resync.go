package remote

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"hearth/state/matrix"
	"hearth/store"
)

const (
	// resyncAtOnce is how many lists are fetched at a time, and resyncBatch how many
	// before the to-do list is looked at again, of them resyncOfServer of one server.
	resyncAtOnce   = 4
	resyncBatch    = 32
	resyncOfServer = 4
	// resyncTimeout is how long fetching one list may take.
	resyncTimeout = 15 * time.Second
	// resyncWait is how long the first wait after a failure is; it doubles with each up
	// to resyncWaitMax. What failed resyncTries times is forgotten: who asks for it
	// has it asked for again.
	resyncWait    = 30 * time.Second
	resyncWaitMax = 12 * time.Hour
	resyncTries   = 24
	// resyncLook is how often the to-do list is looked at anyhow.
	resyncLook = time.Minute
)

// stale is a list that is to be fetched again.
type stale struct {
	wantedKeys
	tries int
}

// runResync fetches what is due on the to-do list.
func (l *DeviceLists) runResync(ctx context.Context) error {
	for {
		due, next, err := l.due()
		if err != nil && ctx.Err() == nil {
			l.config.Log.Error("look for device lists to fetch", "err", err)
		}
		if len(due) > 0 {
			kept := l.resyncAll(ctx, due)
			if ctx.Err() != nil {
				return nil
			}
			if kept {
				continue
			}
			next = resyncLook // the store takes nothing: they are all due still
		}
		timer := time.NewTimer(min(max(next, time.Second), resyncLook))
		select {
		case <-ctx.Done():
		case <-l.wake:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// resyncAll fetches some lists, a few at a time. It reports false where one of them
// could not be stored.
func (l *DeviceLists) resyncAll(ctx context.Context, due []stale) bool {
	var group errgroup.Group
	group.SetLimit(resyncAtOnce)
	for _, d := range due {
		group.Go(func() error {
			err := l.resync(ctx, d)
			if err != nil && ctx.Err() == nil {
				l.config.Log.Error("fetch a device list", "user", d.user, "err", err)
			}
			return err
		})
	}
	return group.Wait() == nil
}

// due returns what is to be fetched now, or else how long that is off. After a start
// everything is due, and what a server did not give is once it has spoken.
func (l *DeviceLists) due() (due []stale, next time.Duration, err error) {
	l.mu.Lock()
	first := !l.started
	heard := make(map[matrix.ServerName]bool)
	for server, spoke := range l.failed {
		if spoke {
			heard[server] = true
			delete(l.failed, server)
		}
	}
	l.mu.Unlock()
	now, next := l.config.Now(), resyncLook
	ofServer := make(map[matrix.ServerName]int)
	more := false
	err = l.store.View(func(tx *store.Tx) error {
		return tx.StaleDevices(func(s store.StaleDevices) (bool, error) {
			user := tx.UserID(s.User)
			server := user.Server()
			wait := s.Due.Sub(now)
			if wait > 0 && !first && !heard[server] {
				next = min(next, wait)
				return true, nil
			}
			if l.isTaken(user) { // whoever has it wakes us
				return true, nil
			}
			if len(due) == resyncBatch || ofServer[server] == resyncOfServer {
				more = true
				return len(due) < resyncBatch, nil
			}
			together, err := shareOf(tx, user)
			if err != nil {
				return false, err
			}
			ofServer[server]++
			due = append(due, stale{wantedKeys{user: user, num: s.User, share: together}, s.Tries})
			return true, nil
		})
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if first && !more && err == nil {
		l.started = true
	}
	if more {
		for server := range heard { // the rest is for the next round
			l.failed[server] = true
		}
	}
	return due, next, err
}

// resync fetches a list and stores it. Of a user who shares no room with ours any
// more it is forgotten. Its error is the store's.
func (l *DeviceLists) resync(ctx context.Context, s stale) error {
	if !s.share.ok() {
		return l.store.Update(ctx, func(tx *store.Tx) error { return tx.ForgetRemoteDevices(s.num) })
	}
	mine, _ := l.take([]wantedKeys{s.wantedKeys})
	if len(mine) == 0 {
		return nil
	}
	defer l.release(mine)
	wait, cancel := context.WithTimeout(ctx, resyncTimeout)
	defer cancel()
	began := l.store.Position()
	f, fault := l.askDevices(wait, s.wantedKeys)
	if fault != nil {
		if ctx.Err() != nil {
			return nil
		}
		return l.postpone(ctx, s)
	}
	return l.keep(ctx, []fetched{f}, began)
}

// postpone puts a list that could not be fetched off.
func (l *DeviceLists) postpone(ctx context.Context, s stale) error {
	l.mu.Lock()
	l.failed[s.user.Server()] = false
	l.mu.Unlock()
	wait := jittered(min(resyncWait<<min(s.tries, 20), resyncWaitMax), l.store.Server(), s.user.Server(), s.tries)
	return l.store.Update(ctx, func(tx *store.Tx) error {
		list, known, err := tx.RemoteDeviceList(s.num)
		if err != nil || !known || !list.Stale {
			return err
		}
		if s.tries+1 >= resyncTries {
			return tx.ForgetRemoteDevices(s.num)
		}
		return tx.PutStaleDevices(store.StaleDevices{User: s.num, Due: l.config.Now().Add(wait), Tries: s.tries + 1})
	})
}
