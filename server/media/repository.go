// Package media is the content repository: files that users upload, the same
// files given back, and thumbnails of pictures; and files of other servers, which
// are fetched once and kept for as long as there is room. It writes the answers of
// the endpoints of server/client and server/federation, which have parsed and
// authorised the requests.
//
// The bytes are blobs (store/blob), what is known of them are records in store,
// and thumbnails are both: they are made once. The order of every write is the
// bytes first, then the record; what a crash leaves between the two is a blob
// that nothing refers to, and [Repository.Run] removes it.
//
// Nothing here holds a file in memory. Thumbnails are made one at a time, within
// a memory budget that the server gives.
//
// Spec: CS Content repository; SS Content Repository.
package media

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
	"hearth/store/blob"
)

// Budget waits until so many bytes of memory may be used and returns what gives
// them back, or an error when they cannot be had.
type Budget func(ctx context.Context, bytes int64) (release func(), err error)

// Config is what the owner decides about media. The zero value is right.
type Config struct {
	// MaxUpload is the most bytes of an upload. If zero, 50 MiB.
	MaxUpload int64
	// Fetch gets files of other servers. If nil, there are none.
	Fetch Fetch
	// MaxFetched is the most bytes of such a file. If zero, 100 MiB, or MaxUpload
	// where that is more.
	MaxFetched int64
	// FetchedQuota is the most bytes of all of them. Those that were not used for the
	// longest time make room for others. If zero, 2 GiB.
	FetchedQuota int64
	// Budget gives the memory to make thumbnails. If nil, nothing counts it.
	Budget Budget
	// Previews fetches what links lead to. If nil, no previews are made of them.
	Previews *http.Client
	// Log takes what goes wrong. If nil, nothing is logged.
	Log *slog.Logger
}

const (
	// defaultMaxUpload is the most bytes of an upload unless Config says otherwise.
	defaultMaxUpload = 50 << 20
	// maxWaiting is how many thumbnails may wait to be made.
	maxWaiting = 256
)

// A Repository keeps files. Its methods may be called by several goroutines.
type Repository struct {
	config  Config
	store   *store.Store
	blobs   *blob.Dir
	log     *slog.Logger
	now     func() time.Time
	turn    *semaphore.Weighted // of the one thumbnail that is being made
	waiting *semaphore.Weighted // of those that wait for their turn
	awaited awaited             // files that are to come

	fetches  singleflight.Group // files that are being fetched
	fetching fetcher            // and what bounds that

	previewing  singleflight.Group  // previews that are being made
	previewTurn *semaphore.Weighted // of those
	previewWait *semaphore.Weighted // of the requests that wait for one

	// referring is held for reading from before a blob is committed until a
	// record refers to it, and for writing while a blob without record is
	// deleted: so nobody refers to what is being deleted.
	referring sync.RWMutex
}

// New returns the repository of a store.
func New(st *store.Store, config Config) *Repository {
	if config.MaxUpload <= 0 {
		config.MaxUpload = defaultMaxUpload
	}
	if config.MaxFetched <= 0 {
		config.MaxFetched = max(defaultMaxFetched, config.MaxUpload)
	}
	if config.FetchedQuota <= 0 {
		config.FetchedQuota = defaultFetchedQuota
	}
	if config.Budget == nil {
		config.Budget = func(context.Context, int64) (func(), error) { return func() {}, nil }
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &Repository{
		config: config, store: st, blobs: st.Blobs(), log: config.Log, now: time.Now,
		turn: semaphore.NewWeighted(1), waiting: semaphore.NewWeighted(maxWaiting),
		fetching:    newFetcher(),
		previewTurn: semaphore.NewWeighted(maxPreviewing), previewWait: semaphore.NewWeighted(maxPreviewWait),
	}
}

// MaxUpload is the most bytes of an upload.
func (m *Repository) MaxUpload() int64 { return m.config.MaxUpload }

// When the repository looks for blobs that nothing refers to.
const (
	firstSweep = 5 * time.Minute
	nextSweep  = 24 * time.Hour
	// youngest is how old a blob must be to be swept: a young one may belong to an
	// upload whose record is on its way.
	youngest = time.Hour
)

// Run removes what crashes have left, until ctx ends. It returns ctx's error.
func (m *Repository) Run(ctx context.Context) error {
	timer := time.NewTimer(firstSweep)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		removed, err := m.sweep(ctx)
		err = errors.Join(err, m.sweepReservations(ctx), m.sweepPreviews(ctx), m.evict(ctx, m.config.FetchedQuota))
		if err != nil && ctx.Err() == nil {
			m.log.Warn("files that nobody needs could not be removed", "err", err)
		}
		if removed > 0 {
			m.log.Info("removed files that nobody needs", "files", removed)
		}
		timer.Reset(nextSweep)
	}
}

// sweep deletes the blobs that no record refers to and says how many there were.
func (m *Repository) sweep(ctx context.Context) (removed int, err error) {
	limit := m.now().Add(-youngest)
	err = m.blobs.Walk(func(s blob.Stat) error {
		if ctx.Err() != nil || s.Written.After(limit) || m.inUse(s.Hash) {
			return ctx.Err()
		}
		deleted, err := m.deleteUnused(s.Hash)
		if deleted {
			removed++
		}
		return err
	})
	return removed, err
}

// inUse says whether a record refers to a blob. If that cannot be read, one may.
func (m *Repository) inUse(h blob.Hash) bool {
	used := true
	err := m.store.View(func(tx *store.Tx) error {
		used = tx.BlobInUse(h)
		return nil
	})
	return used || err != nil
}

// deleteUnused deletes a blob unless a record refers to it, or is about to.
func (m *Repository) deleteUnused(h blob.Hash) (deleted bool, err error) {
	m.referring.Lock()
	defer m.referring.Unlock()
	if m.inUse(h) {
		return false, nil
	}
	return true, m.blobs.Delete(h)
}

// deleteAllUnused deletes blobs that a write has left without use. What stays,
// the next sweep finds.
func (m *Repository) deleteAllUnused(unused []blob.Hash) {
	for _, h := range unused {
		if _, err := m.deleteUnused(h); err != nil {
			m.log.Warn("a file that nobody needs could not be removed", "err", err)
		}
	}
}

// commit makes a blob durable and has put store the record that refers to it.
func (m *Repository) commit(ctx context.Context, w *blob.Writer, put func(*store.Tx, blob.Hash, int64) error) error {
	m.referring.RLock()
	defer m.referring.RUnlock()
	h, size, err := w.Commit()
	if err != nil {
		return err
	}
	return m.store.Update(ctx, func(tx *store.Tx) error { return put(tx, h, size) })
}

// Delete removes a file. The error wraps store.ErrNotFound if there is none.
func (m *Repository) Delete(ctx context.Context, origin matrix.ServerName, id store.MediaID) error {
	var unused []blob.Hash
	err := m.store.Update(ctx, func(tx *store.Tx) (err error) {
		unused, err = tx.DeleteMedia(origin, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete media: %w", err)
	}
	m.deleteAllUnused(unused)
	return nil
}

// find returns the record of a file.
func (m *Repository) find(origin matrix.ServerName, id store.MediaID) (found store.Media, err error) {
	err = m.store.View(func(tx *store.Tx) error {
		found, err = tx.Media(origin, id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return store.Media{}, api.ErrNotFound.Because("There is no such file")
	}
	return found, err
}
