package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/semaphore"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
	"hearth/store/blob"
)

// Fetch asks another server for a file, as [remote.Network.Media] does.
type Fetch = func(ctx context.Context, origin matrix.ServerName, id store.MediaID, q remote.MediaQuery) (*remote.File, error)

const (
	// defaultMaxFetched is the most bytes of a file of another server.
	defaultMaxFetched = 100 << 20
	// defaultFetchedQuota is the most bytes of all of them together.
	defaultFetchedQuota = 2 << 30
	// fetchTime is how long the fetching of a file may take, and fetchPatience how long
	// somebody waits for it, beside waiting for a file that is to come: clients and
	// proxies give up after a minute, and would not learn that it still comes.
	fetchTime     = 10 * time.Minute
	fetchPatience = 30 * time.Second
	// maxFetching is how many files may be fetched at a time, maxFetchingFrom how many
	// of them from one server, and maxFetchWait how many requests may wait for one.
	maxFetching     = 12
	maxFetchingFrom = 3
	maxFetchWait    = 256
	// usedEvery is how exactly it is known when a file was last used: to write it down
	// each time would wear out the disk.
	usedEvery = 24 * time.Hour
	// evictedAtOnce is how many files one write removes.
	evictedAtOnce = 64
)

// A Want is a file that somebody wants.
type Want struct {
	Origin   matrix.ServerName // of the mxc:// URI
	ID       store.MediaID
	Wait     time.Duration // how long to wait for a file that is to come
	HereOnly bool          // do not ask other servers for it
}

// A fetcher holds what is under way from other servers.
type fetcher struct {
	turns   *semaphore.Weighted // of the files that are being fetched
	waiting *semaphore.Weighted // of the requests that wait for one
	lanes   lanes
}

func newFetcher() fetcher {
	return fetcher{turns: semaphore.NewWeighted(maxFetching), waiting: semaphore.NewWeighted(maxFetchWait)}
}

// lanes let so many files of each server be fetched at a time.
type lanes struct {
	mu    sync.Mutex // guards lanes and the users of each
	lanes map[matrix.ServerName]*lane
}

type lane struct {
	turns *semaphore.Weighted
	users int // who have it or wait for it; at 0 it goes
}

// enter waits for a turn with a server, which leave ends.
func (l *lanes) enter(ctx context.Context, server matrix.ServerName) (leave func(), err error) {
	l.mu.Lock()
	if l.lanes == nil {
		l.lanes = make(map[matrix.ServerName]*lane)
	}
	lane := l.lanes[server]
	if lane == nil {
		lane = newLane()
		l.lanes[server] = lane
	}
	lane.users++
	l.mu.Unlock()
	gone := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if lane.users--; lane.users == 0 {
			delete(l.lanes, server)
		}
	}
	if err := lane.turns.Acquire(ctx, 1); err != nil {
		gone()
		return nil, err
	}
	return func() { lane.turns.Release(1); gone() }, nil
}

func newLane() *lane { return &lane{turns: semaphore.NewWeighted(maxFetchingFrom)} }

// fetchFile returns the record of another server's file, which it fetches unless it is
// here. Those who ask for the same at the same time wait for one fetch, which goes
// on when they leave.
func (m *Repository) fetchFile(ctx context.Context, want Want) (store.Media, error) {
	found, err := m.find(want.Origin, want.ID)
	if err == nil {
		return found, m.use(ctx, found)
	}
	if !errors.Is(err, api.ErrNotFound) {
		return found, err
	}
	switch {
	case want.HereOnly:
		return found, api.ErrNotFound.Because("The file is of %s, and not here", want.Origin)
	case m.config.Fetch == nil:
		return found, api.ErrNotFound.Because("The file is of %s: this server does not federate", want.Origin)
	case !m.fetching.waiting.TryAcquire(1):
		return found, api.TryAfter(retryThumbnail)
	}
	defer m.fetching.waiting.Release(1)
	fetched := m.fetches.DoChan(string(want.Origin)+"/"+string(want.ID), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
		defer cancel()
		return m.fetchOne(ctx, want)
	})
	timer := time.NewTimer(want.Wait + fetchPatience)
	defer timer.Stop()
	select {
	case got := <-fetched:
		if got.Err != nil {
			return found, fetchError(want, got.Err)
		}
		return got.Val.(store.Media), nil
	case <-timer.C:
		return found, api.ErrUnknown.WithStatus(http.StatusGatewayTimeout).
			Because("The file is still on its way from %s: ask for it again in a while", want.Origin)
	case <-ctx.Done():
		return found, ctx.Err()
	}
}

// fetchOne fetches a file in its turn and stores it.
func (m *Repository) fetchOne(ctx context.Context, want Want) (store.Media, error) {
	leave, err := m.fetching.lanes.enter(ctx, want.Origin)
	if err != nil {
		return store.Media{}, err
	}
	defer leave()
	if err := m.fetching.turns.Acquire(ctx, 1); err != nil {
		return store.Media{}, err
	}
	defer m.fetching.turns.Release(1)
	if found, err := m.find(want.Origin, want.ID); !errors.Is(err, api.ErrNotFound) {
		return found, err // fetched while this one waited
	}
	file, err := m.config.Fetch(ctx, want.Origin, want.ID, remote.MediaQuery{MaxBytes: m.config.MaxFetched, Wait: want.Wait})
	if err != nil {
		return store.Media{}, err
	}
	defer file.Body.Close()
	record := store.Media{
		Origin: want.Origin, ID: want.ID, Type: cleanType(file.Type), Name: cleanName(file.Name),
		Created: m.now().Truncate(time.Millisecond),
	}
	if err := m.keepFetched(ctx, &record, file.Body); err != nil {
		return store.Media{}, err
	}
	if err := m.evict(ctx, m.config.FetchedQuota); err != nil {
		m.log.Warn("files of other servers that are too many could not be removed", "err", err)
	}
	return record, nil
}

// keepFetched stores the bytes of a file and its record. Where the disk is full,
// files of other servers make room for the next.
func (m *Repository) keepFetched(ctx context.Context, record *store.Media, body io.Reader) error {
	w, err := m.blobs.Create(m.config.MaxFetched)
	if err == nil {
		defer w.Abort()
		_, err = io.Copy(w, body)
	}
	if err == nil {
		err = m.commit(ctx, w, func(tx *store.Tx, h blob.Hash, size int64) error {
			record.Content, record.Size = h, size
			return tx.PutMedia(*record)
		})
	}
	if errors.Is(err, blob.ErrFull) {
		err = errors.Join(err, m.makeRoom(ctx))
	}
	return err
}

// makeRoom removes the half of other servers' files that was not used for longer.
func (m *Repository) makeRoom(ctx context.Context) error {
	var sum uint64
	err := m.store.View(func(tx *store.Tx) (err error) {
		sum, err = tx.FetchedBytes()
		return err
	})
	if err != nil {
		return err
	}
	return m.evict(ctx, int64(sum/2))
}

// evict removes files of other servers that were not used for the longest time, if
// they have more than limit bytes together, until they are well below.
func (m *Repository) evict(ctx context.Context, limit int64) error {
	var sum uint64
	err := m.store.View(func(tx *store.Tx) (err error) {
		sum, err = tx.FetchedBytes()
		return err
	})
	if err != nil || sum <= uint64(limit) {
		return err
	}
	for more := true; more; {
		var unused []blob.Hash
		err := m.store.Update(ctx, func(tx *store.Tx) (err error) {
			unused, more, err = tx.EvictMedia(uint64(limit-limit/10), evictedAtOnce)
			return err
		})
		if err != nil {
			return fmt.Errorf("remove files of other servers: %w", err)
		}
		m.deleteAllUnused(unused)
	}
	return nil
}

// use notes that another server's file was used, if that was long ago.
func (m *Repository) use(ctx context.Context, found store.Media) error {
	var used time.Time
	err := m.store.View(func(tx *store.Tx) (err error) {
		used, err = tx.MediaUsed(found.Origin, found.ID)
		return err
	})
	now := m.now()
	if err != nil || now.Sub(used) < usedEvery {
		return err
	}
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		err := tx.UseMedia(found.Origin, found.ID, now)
		if errors.Is(err, store.ErrNotFound) {
			return nil // removed just now; whoever has its bytes open reads on
		}
		return err
	})
	if errors.Is(err, store.ErrFull) {
		return nil // it can be read all the same
	}
	return err
}

// cleanName returns what of a file name of another server is told on: its last part,
// without what cannot be shown, and nothing where that is too long.
func cleanName(name string) string {
	if !utf8.ValidString(name) {
		return ""
	}
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, name)
	if len(name) > maxName {
		return ""
	}
	return name
}

// fetchError says what a fault means for who wants a file of another server.
func fetchError(want Want, err error) error {
	var answer *remote.Error
	switch {
	case errors.Is(err, remote.ErrFileTooLarge), errors.Is(err, blob.ErrTooLarge):
		return tooLargeElsewhere(want.Origin)
	case errors.As(err, &answer):
		return answerError(answer)
	case errors.Is(err, remote.ErrUnreachable) && errors.Is(err, context.DeadlineExceeded):
		return api.ErrUnknown.WithStatus(http.StatusGatewayTimeout).Because("%s does not answer in time", want.Origin)
	case errors.Is(err, remote.ErrUnreachable):
		return api.ErrUnknown.WithStatus(http.StatusBadGateway).Because("The file cannot be had from %s", want.Origin)
	case errors.Is(err, context.DeadlineExceeded):
		return api.TryAfter(retryThumbnail)
	}
	return err
}

// answerError is the answer for who wants a file that another server does not give.
func answerError(answer *remote.Error) error {
	switch {
	case answer.Code == api.ErrNotYetUploaded.Code:
		return api.ErrNotYetUploaded
	case answer.Code == api.ErrTooLarge.Code:
		return tooLargeElsewhere(answer.Server)
	case answer.Status == http.StatusNotFound:
		return api.ErrNotFound.Because("%s has no such file", answer.Server)
	case answer.Status == http.StatusTooManyRequests:
		return api.TryAfter(retryThumbnail)
	}
	return api.ErrUnknown.WithStatus(http.StatusBadGateway).Because("%s does not give the file: it answers with status %d", answer.Server, answer.Status)
}

// tooLargeElsewhere: "Content is too large to serve", with the status for what
// another server's files are.
func tooLargeElsewhere(origin matrix.ServerName) error {
	return api.ErrTooLarge.WithStatus(http.StatusBadGateway).Because("The file of %s is larger than this server takes", origin)
}
