package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"hearth/state/matrix"
	"hearth/store"
)

// A Sender sends to other servers what happens here and is for them: the events of
// local users, and those of others that this server was asked to hand on; receipts,
// device lists, what waits in the outbox; typing and presence. Every server is a
// cursor on the stream, so nothing queues up and a crash loses nothing: what was
// sent in the last seconds before it may be sent again, which servers know by the
// event's ID.
//
// In memory there are only the servers that have something to get. Each gets one
// transaction at a time, in the order of the stream.
//
// Spec: SS Transactions.
type Sender struct {
	store   *store.Store
	server  matrix.ServerName
	config  SenderConfig
	log     *slog.Logger
	now     func() time.Time
	do      func(ctx context.Context, dest matrix.ServerName, q Request, answer any) error
	retryAt func(matrix.ServerName) time.Time
	bodies  *semaphore.Weighted               // of the bytes of the transactions under way
	silence func(matrix.ServerName) time.Time // since when a server does not answer; zero: it does
	ready   chan struct{}                     // holds one when there may be a destination to serve
	crowded chan struct{}                     // holds one when much has come into the outboxes
	prefix  string                            // of transaction IDs: no two processes have the same
	txns    atomic.Uint64                     // transactions so far

	mu           sync.Mutex     // guards the fields below and those of every destination; no View begins while it is held
	position     store.Position // the stream was read up to here
	destinations map[store.ServerNum]*destination
	waiting      map[matrix.ServerName]*destination // that failed, until they are tried again
	answering    map[store.ServerNum]bool           // servers that were there when last heard of
	proven       []*destination                     // ready, and answering; each once
	doubtful     []*destination                     // ready, and all others
	doubting     int                                // how many workers have a doubtful one
	kept         int                                // bytes of transactions that are to be repeated
	saved        store.Position                     // the position that is stored
	savedAt      time.Time
	arrived      bool // what waited in an outbox has arrived since
	caughtUp     bool // and somebody who has a record has got everything
	puts         int  // EDUs that came into outboxes since these were swept for that
}

// SenderConfig is what a Sender needs beside the network and the store.
type SenderConfig struct {
	// Workers is how many transactions may be under way, each with a connection. If
	// zero, 32.
	Workers int
	// MaxBytes bounds the bodies of the transactions that are under way, each of which
	// is in memory a few times while it is signed and sent. If zero, 4 MiB.
	MaxBytes int64
	// Now is the clock. If nil, time.Now.
	Now func() time.Time
	// Log takes what goes wrong. If nil, nothing is logged.
	Log *slog.Logger
}

// An EDU is sent beside events and is no part of a room's history.
//
// Spec: SS EDUs.
type EDU struct {
	Type    string         // "m.typing"
	Content jsontext.Value // a JSON object; whoever made it changes it no more
	Key     string         // a newer EDU replaces an older one of the same type and key; "": none does
}

const (
	defaultWorkers = 32
	defaultBodies  = 4 << 20
	// provenShare is the part of the workers that is left to servers that answer:
	// one in so many.
	provenShare = 4
)

// NewSender returns a sender over a network, which tells it of servers that speak.
// It does nothing before [Sender.Run].
func NewSender(network *Network, config SenderConfig) *Sender {
	if config.Now == nil {
		config.Now = network.config.Now
	}
	s := newSender(network.store, network.Do, network.RetryAt, config)
	s.silence = func(server matrix.ServerName) time.Time { return network.Backoff(server).Since }
	network.OnHeard(func(server matrix.ServerName, _ bool) { s.Wake(server) })
	return s
}

func newSender(
	st *store.Store,
	do func(ctx context.Context, dest matrix.ServerName, q Request, answer any) error,
	retryAt func(matrix.ServerName) time.Time,
	config SenderConfig,
) *Sender {
	if config.Workers <= 0 {
		config.Workers = defaultWorkers
	}
	if config.MaxBytes == 0 {
		config.MaxBytes = defaultBodies
	}
	config.MaxBytes = max(config.MaxBytes, maxTxnBytes)
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &Sender{
		store: st, server: st.Server(), config: config, log: config.Log, now: config.Now, do: do, retryAt: retryAt,
		bodies: semaphore.NewWeighted(config.MaxBytes), silence: func(matrix.ServerName) time.Time { return time.Time{} },
		ready: make(chan struct{}, 1), crowded: make(chan struct{}, 1), prefix: rand.Text()[:12] + "-",
		destinations: make(map[store.ServerNum]*destination), waiting: make(map[matrix.ServerName]*destination),
		answering: make(map[store.ServerNum]bool),
	}
}

// Run sends until ctx ends. It returns ctx's error, or that of the store.
func (s *Sender) Run(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.stopRetries()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.follow(ctx) })
	group.Go(func() error { return s.runSave(ctx) })
	group.Go(func() error { return s.runOutbox(ctx) })
	for range s.config.Workers {
		group.Go(func() error { return s.work(ctx) })
	}
	err := group.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	return errors.Join(err, s.save(last))
}

// begin finds where sending stopped, and who has not got everything by then.
func (s *Sender) begin(ctx context.Context) error {
	known := false
	err := s.store.View(func(tx *store.Tx) (err error) {
		if s.position, known, err = tx.SentPosition(); err != nil {
			return err
		}
		if !known {
			s.position = tx.Position() // what was before is nobody's
		}
		return tx.AllBehind(func(server store.ServerNum, b store.Behind) (bool, error) {
			s.load(server, b)
			return true, nil
		})
	})
	if err == nil && !known {
		err = s.store.Update(ctx, func(tx *store.Tx) error { return tx.PutSentPosition(s.position) })
	}
	if err != nil {
		return fmt.Errorf("begin to send to other servers: %w", err)
	}
	s.saved, s.savedAt = s.position, s.now()
	return nil
}

// load takes a server from its record, and sends to it at once.
func (s *Sender) load(server store.ServerNum, b store.Behind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &destination{
		server: server, cursor: b.Cursor, known: b.Cursor, newest: max(s.position, b.Cursor),
		departures: b.Departures, absent: true, recorded: true, savedCursor: b.Cursor,
	}
	d.outbox = d.newest
	d.savedDepartures = len(d.departures)
	s.destinations[server] = d
	s.enqueue(d)
}

// follow follows the stream and notes for each server what is for it.
func (s *Sender) follow(ctx context.Context) error {
	err := s.store.Follow(ctx, s.position, s.note, func(upto store.Position) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.position = upto
	})
	return fmt.Errorf("watch for what other servers shall get: %w", err)
}

// note notes one entry of the stream for those whom it is for.
func (s *Sender) note(tx *store.Tx, c store.Change) error {
	a, err := s.audience(tx, c)
	if err != nil || a.nobody() {
		return err
	}
	var servers []store.ServerNum
	err = a.each(tx, func(server store.ServerNum) { servers = append(servers, server) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, server := range servers {
		d := s.destination(server, c.Position-1)
		d.note(c.Position)
		if a.departs && server == a.also {
			d.depart(c.Position)
		}
		if c.Server != 0 {
			d.outbox = c.Position
			s.notePut()
		}
		if len(servers) <= smallCircle {
			s.hasten(d)
		}
		s.enqueue(d)
	}
	return nil
}

// destination returns a server's destination, made if there is none, and lets one
// that has got everything begin at a position. s.mu is held.
func (s *Sender) destination(server store.ServerNum, at store.Position) *destination {
	d := s.destinations[server]
	if d == nil {
		d = &destination{server: server}
		s.destinations[server] = d
	}
	if !d.behind() && !d.running && d.known < at {
		d.cursor, d.known, d.newest = at, at, at
	}
	return d
}

// SendToRoom sends an EDU to the other servers of a room. It may be lost: it is kept
// in memory, and not at all for servers that do not answer.
func (s *Sender) SendToRoom(room matrix.RoomID, edu EDU) error {
	var servers []store.ServerNum
	err := s.store.View(func(tx *store.Tx) error {
		num := tx.RoomNum(room)
		if num == 0 {
			return nil
		}
		return tx.RoomServers(num, func(server store.ServerNum, _ uint64) (bool, error) {
			servers = append(servers, server)
			return true, nil
		})
	})
	if err != nil {
		return fmt.Errorf("send %s to %s: %w", edu.Type, room, err)
	}
	s.sendEDU(servers, edu)
	return nil
}

// SendToServers is SendToRoom for servers by name. One that the store has never
// seen gets nothing.
func (s *Sender) SendToServers(names []matrix.ServerName, edu EDU) error {
	var servers []store.ServerNum
	err := s.store.View(func(tx *store.Tx) error {
		for _, name := range names {
			if num := tx.ServerNum(name); num != 0 && name != s.server {
				servers = append(servers, num)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("send %s to %d servers: %w", edu.Type, len(names), err)
	}
	s.sendEDU(servers, edu)
	return nil
}

// SendForUser is SendToRoom for the servers that share a room with a local user.
func (s *Sender) SendForUser(user matrix.UserID, edu EDU) error {
	var servers []store.ServerNum
	err := s.store.View(func(tx *store.Tx) error {
		rooms, err := joinedRooms(tx, tx.UserNum(user))
		if err != nil {
			return err
		}
		return audience{pos: tx.Position(), rooms: rooms}.each(tx, func(server store.ServerNum) {
			servers = append(servers, server)
		})
	})
	if err != nil {
		return fmt.Errorf("send %s of %s: %w", edu.Type, user, err)
	}
	s.sendEDU(servers, edu)
	return nil
}

func (s *Sender) sendEDU(servers []store.ServerNum, edu EDU) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, server := range servers {
		d := s.destination(server, s.position)
		if d.retry == nil {
			d.addEDU(edu)
			s.enqueue(d)
		}
	}
}

// Wake tries a server again at once that did not answer before: it has spoken. It
// is cheap for any other.
func (s *Sender) Wake(server matrix.ServerName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.waiting[server]
	if d == nil {
		return
	}
	s.answering[d.server] = true
	s.endWait(d)
	s.enqueue(d)
}
