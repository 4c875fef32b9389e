package media

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

const (
	// reservedFor is how long a file may take to come. "The recommended default
	// expiration is 24 hours."
	reservedFor = 24 * time.Hour
	// maxReserved is how many files of one user may be to come.
	maxReserved = 64
	// sweptAtOnce is how many reservations one write of a sweep removes.
	sweptAtOnce = 256
	// maxAwaiting is how many requests may wait for files that are to come. Each has
	// its connection, which costs more; this is a bound for its own sake.
	maxAwaiting = 512
)

// Reserve gives a user a media ID for a file that is to come, until the time that
// it returns. The error is M_LIMIT_EXCEEDED if too many of his are to come.
//
// Spec: CS POST /_matrix/media/v1/create.
func (m *Repository) Reserve(ctx context.Context, user store.UserNum) (store.Reservation, error) {
	r := store.Reservation{ID: newMediaID(), User: user, Expires: m.now().Add(reservedFor).Truncate(time.Millisecond)}
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		old, err := tx.Reservations(user)
		if err != nil {
			return err
		}
		pending, soonest := 0, r.Expires
		for _, o := range old {
			if o.Expired(m.now()) {
				if err := tx.DeleteReservation(o); err != nil {
					return err
				}
				continue
			}
			pending++
			if o.Expires.Before(soonest) {
				soonest = o.Expires
			}
		}
		if pending >= maxReserved {
			return api.TryAfter(soonest.Sub(m.now()))
		}
		return tx.Reserve(r)
	})
	if err != nil {
		return store.Reservation{}, fmt.Errorf("reserve media: %w", err)
	}
	return r, nil
}

// Fill stores a file under an ID that was reserved, with the errors of Upload. The
// error is M_FORBIDDEN for somebody else's ID, M_CANNOT_OVERWRITE_MEDIA if there is
// a file already, and M_NOT_FOUND for an ID that was not reserved or has expired.
//
// Spec: CS PUT /_matrix/media/v3/upload/{serverName}/{mediaId}.
func (m *Repository) Fill(ctx context.Context, origin matrix.ServerName, id store.MediaID, up Upload) error {
	err := m.store.View(func(tx *store.Tx) error {
		_, err := m.fillable(tx, origin, id, up.User)
		return err
	})
	if err != nil {
		return err // before the bytes, which may be many
	}
	err = m.keep(ctx, up, id, func(tx *store.Tx) error {
		r, err := m.fillable(tx, origin, id, up.User)
		if err != nil {
			return err
		}
		return tx.DeleteReservation(r)
	})
	if err != nil {
		return err
	}
	m.awaited.arrived(id)
	return nil
}

// fillable returns the reservation of an ID that a user may fill now.
func (m *Repository) fillable(tx *store.Tx, origin matrix.ServerName, id store.MediaID, user store.UserNum) (store.Reservation, error) {
	if origin != m.store.Server() {
		return store.Reservation{}, api.ErrNotFound.Because("Files can be uploaded to this server's own media IDs only")
	}
	switch file, err := tx.Media(origin, id); {
	case err == nil && file.Uploader != user:
		return store.Reservation{}, api.ErrForbidden.Because("Another user has reserved this media ID")
	case err == nil:
		return store.Reservation{}, api.ErrCannotOverwriteMedia
	case !errors.Is(err, store.ErrNotFound):
		return store.Reservation{}, err
	}
	r, err := tx.Reservation(id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return r, api.ErrNotFound.Because("This media ID was not reserved, or it has expired")
	case err != nil:
		return r, err
	case r.User != user:
		return r, api.ErrForbidden.Because("Another user has reserved this media ID")
	case r.Expired(m.now()):
		return r, api.ErrNotFound.Because("This media ID has expired")
	}
	return r, nil
}

// sweepReservations removes the reservations whose time is over.
func (m *Repository) sweepReservations(ctx context.Context) error {
	for more := true; more; {
		err := m.store.Update(ctx, func(tx *store.Tx) error {
			expired, err := tx.ExpiredReservations(m.now(), sweptAtOnce)
			more = len(expired) == sweptAtOnce
			for _, r := range expired {
				err = errors.Join(err, tx.DeleteReservation(r))
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("remove expired media IDs: %w", err)
		}
	}
	return nil
}

// await returns the record of a file, for which it waits if it is to come, and which
// it fetches if it is another server's. The error is M_NOT_FOUND if there is none and
// none will come, and M_NOT_YET_UPLOADED if it did not come in time.
//
// "How long to wait [...] for the content to become available."
func (m *Repository) await(r *http.Request, want Want) (store.Media, error) {
	if want.Origin != m.store.Server() {
		return m.fetchFile(r.Context(), want)
	}
	found, err := m.find(want.Origin, want.ID)
	if !errors.Is(err, api.ErrNotFound) {
		return found, err
	}
	news, leave := m.awaited.join(want.ID) // before the look: nothing falls in between
	defer leave()
	if found, err := m.find(want.Origin, want.ID); err == nil || !m.toCome(want.ID) {
		return found, err
	}
	timer := time.NewTimer(want.Wait)
	defer timer.Stop()
	if news == nil || !api.Await(r, timer.C, news) {
		return store.Media{}, api.ErrNotYetUploaded
	}
	return m.find(want.Origin, want.ID)
}

// toCome says whether an ID is reserved.
func (m *Repository) toCome(id store.MediaID) bool {
	err := m.store.View(func(tx *store.Tx) error {
		r, err := tx.Reservation(id)
		if err == nil && r.Expired(m.now()) {
			return store.ErrNotFound
		}
		return err
	})
	return err == nil
}

// awaited are the files that requests wait for: one entry for each, which goes when
// the last request does.
type awaited struct {
	mu      sync.Mutex // guards the fields below
	files   map[store.MediaID]*arrival
	waiting int
}

type arrival struct {
	news     chan struct{} // closed when the file is here
	requests int
}

// join returns a channel that is closed when a file is here, nil if too many wait
// already, and what ends the wait.
func (a *awaited) join(id store.MediaID) (news <-chan struct{}, leave func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting >= maxAwaiting {
		return nil, func() {}
	}
	if a.files == nil {
		a.files = make(map[store.MediaID]*arrival)
	}
	f := a.files[id]
	if f == nil {
		f = &arrival{news: make(chan struct{})}
		a.files[id] = f
	}
	a.waiting++
	f.requests++
	return f.news, func() { a.leave(id, f) }
}

func (a *awaited) leave(id store.MediaID, f *arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting--
	if f.requests--; f.requests == 0 && a.files[id] == f {
		delete(a.files, id)
	}
}

// arrived wakes those who wait for a file.
func (a *awaited) arrived(id store.MediaID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.files[id]; f != nil {
		close(f.news)
		delete(a.files, id)
	}
}
