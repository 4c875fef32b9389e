package client

import (
	"maps"
	"sync"

	"hearth/state/matrix"
	"hearth/store"
)

// erasures remembers which users of this server have wished, as they deactivated
// their accounts, that what they wrote be forgotten.
//
// Spec: account_deactivation.yaml, erase: "any users (or servers) which join the
// room after the erasure request are served redacted copies of the events sent by
// this account. Users which had visibility on those events prior to the erasure are
// still able to see unredacted copies."
type erasures struct {
	mu    sync.Mutex                       // guards the fields below
	known bool                             // the store has been read
	all   map[matrix.UserID]store.Position // the newest position when each wished so; never changed, but replaced
}

// read returns when each of them wished so: a map that nobody changes.
func (e *erasures) read(tx *store.Tx) (map[matrix.UserID]store.Position, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known {
		return e.all, nil
	}
	all := e.copied() // tx may be older than what was added
	err := tx.Accounts(func(num store.UserNum, a store.Account) (bool, error) {
		if a.Erased {
			all[tx.UserID(num)] = a.ErasedAt
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	e.all, e.known = all, true
	return all, nil
}

// add notes one more, after its commit.
func (e *erasures) add(user matrix.UserID, at store.Position) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = e.copied()
	e.all[user] = at
}

func (e *erasures) copied() map[matrix.UserID]store.Position {
	if e.all == nil {
		return make(map[matrix.UserID]store.Position)
	}
	return maps.Clone(e.all)
}

// shown returns an event as the session is to see it: a redacted copy where its
// sender is erased and the session's user came into the room after that. What the
// sender made of the room itself, such as its name, stays, as it is not about them
// and others live with it.
func (f *formatter) shown(ev *store.StoredEvent) (*store.StoredEvent, error) {
	at, erased := f.erased[ev.Sender]
	if !erased || ev.IsState() && !ev.Is("m.room.member", string(ev.Sender)) {
		return ev, nil
	}
	member, _, err := f.tx.LocalMembership(f.who.num, f.room)
	if err != nil || member.Joined != 0 && member.Joined <= at {
		return ev, err
	}
	if was, err := f.viewer.MembershipAt(ev); was == matrix.Join || err != nil {
		return ev, err // they were there then, left, and came back
	}
	copied := *ev
	copied.Event, err = ev.RedactedCopy()
	return &copied, err
}
