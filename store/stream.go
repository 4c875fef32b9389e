package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
)

// A Position is a place in the stream. The first change has 1; 0 is before
// everything.
type Position uint64

// Position returns the newest committed place in the stream, a moment after a View
// may see it.
func (s *Store) Position() Position { return Position(s.position.Load()) }

// Position returns the place of the last change that the transaction sees,
// its own included.
func (tx *Tx) Position() Position { return Position(tx.in(bucketStream).Sequence()) }

// A Change is one entry of the stream. Which fields hold something depends on
// Kind; see the stream kinds in schema.go.
type Change struct {
	Position Position
	Kind     byte
	Room     RoomNum
	User     UserNum
	Server   ServerNum
	Event    EventNum
	Relay    bool   // of an event: see [StoredEvent]
	Name     string // account data type or device ID

	// Of a device list: the place of the change of a device before it, 0 for none, and
	// whether it is the cross-signing keys that changed; see device_list.go.
	Previous     Position
	CrossSigning bool
}

// nextPosition takes the next place in the stream.
func (tx *Tx) nextPosition() (Position, error) {
	n, err := tx.in(bucketStream).NextSequence()
	if err != nil {
		return 0, fmt.Errorf("next position: %w", err)
	}
	tx.wrote++ // a place that was given is never given again
	return Position(n), nil
}

// appendChange gives c the next place in the stream and returns it. Events do
// not come this way; see [Tx.PutEvent].
func (tx *Tx) appendChange(c Change) (Position, error) {
	pos, err := tx.nextPosition()
	if err != nil {
		return 0, err
	}
	v := make([]byte, 0, 32+len(c.Name))
	v = append(v, c.Kind)
	about := uint64(c.Room)
	if c.Kind == streamOutbox {
		about = uint64(c.Server)
	}
	v = binary.AppendUvarint(v, about)
	v = binary.AppendUvarint(v, uint64(c.User))
	if c.Kind == streamDevices {
		v = binary.AppendUvarint(v, uint64(c.Previous)<<1|bit(1, c.CrossSigning))
	}
	v = append(v, c.Name...)
	return pos, tx.put(bucketStream, appendU64(nil, uint64(pos)), v)
}

// Changes calls fn for each entry of the stream behind after, in order, until
// fn returns false or an error.
func (tx *Tx) Changes(after Position, fn func(Change) (bool, error)) error {
	start := appendU64(nil, uint64(after)+1)
	return tx.scan(bucketStream, nil, start, func(key, value []byte) (bool, error) {
		c, err := readChange(key, value)
		if err != nil {
			return false, err
		}
		return fn(c)
	})
}

// ChangesBack is Changes from newest to oldest, beginning with the newest entry
// that is older than before.
func (tx *Tx) ChangesBack(before Position, fn func(Change) (bool, error)) error {
	return tx.scanBack(bucketStream, nil, appendU64(nil, uint64(before)), func(key, value []byte) (bool, error) {
		c, err := readChange(key, value)
		if err != nil {
			return false, err
		}
		return fn(c)
	})
}

// ChangeAt returns the entry of the stream at a position; ok is false where there
// is none, or none any more.
func (tx *Tx) ChangeAt(pos Position) (c Change, ok bool, err error) {
	key := appendU64(nil, uint64(pos))
	v := tx.get(bucketStream, key)
	if v == nil {
		return Change{}, false, nil
	}
	c, err = readChange(key, v)
	return c, err == nil, err
}

// IsMembership says whether the change is one of what a room is to a local user.
func (c Change) IsMembership() bool { return c.Kind == streamMembership }

// IsReceipt says whether the change is a receipt.
func (c Change) IsReceipt() bool { return c.Kind == streamReceipt }

func readChange(key, value []byte) (Change, error) {
	if len(key) != 8 {
		return Change{}, fmt.Errorf("stream key of %d bytes: %w", len(key), ErrDamaged)
	}
	r := reader{b: value}
	c := Change{Position: Position(u64(key)), Kind: r.byte()}
	if c.Kind == streamOutbox {
		c.Server = ServerNum(r.uvarint())
	} else {
		c.Room = RoomNum(r.uvarint())
	}
	if c.Kind == streamEvent {
		c.Relay = r.uvarint()&eventRelay != 0
		c.User = UserNum(r.uvarint())
		c.Event = timelineNum(c.Position)
	} else {
		c.User = UserNum(r.uvarint())
		if c.Kind == streamDevices && len(r.b) > 0 { // format 3 ends here
			link := r.uvarint()
			c.Previous, c.CrossSigning = Position(link>>1), link&1 != 0
		}
		c.Name = string(r.b)
	}
	if r.err != nil {
		return Change{}, fmt.Errorf("stream entry %d: %w", c.Position, r.err)
	}
	return c, nil
}

// Touch tells, after the commit, those who wait for news of these local users.
func (tx *Tx) Touch(users ...UserNum) { tx.touched = append(tx.touched, users...) }

// Touch wakes those who wait for news of these local users, for what lives in
// memory alone, such as typing and presence.
func (s *Store) Touch(users ...UserNum) { s.news.touch(users) }

// Wait returns the newest position as soon as it is behind after, or ctx's
// error. It also returns when the store closes, with ErrClosed.
func (s *Store) Wait(ctx context.Context, after Position) (Position, error) {
	for {
		changed := s.news.everything()
		if pos := s.Position(); pos > after {
			return pos, nil
		}
		select {
		case <-changed:
			if s.news.isClosed() {
				return 0, fmt.Errorf("wait: %w", ErrClosed)
			}
		case <-ctx.Done():
			return 0, fmt.Errorf("wait: %w", ctx.Err())
		}
	}
}

// A Watch waits for news of one local user. Take it before the View that
// looks for news, so that nothing falls in between.
type Watch struct {
	news   *news
	user   UserNum
	serial uint64
}

// Watch begins to watch for news of user.
func (s *Store) Watch(user UserNum) Watch {
	return Watch{news: &s.news, user: user, serial: s.news.serial(user)}
}

// Wait returns nil once there is news since the watch began, ctx's error when
// that ends first, and ErrClosed when the store closes.
func (w Watch) Wait(ctx context.Context) error {
	select {
	case <-w.News():
		if _, serial := w.news.of(w.user); serial == w.serial {
			return fmt.Errorf("watch: %w", ErrClosed)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("watch: %w", ctx.Err())
	}
}

// News returns a channel that is closed once there is news since the watch began,
// and when the store closes.
func (w Watch) News() <-chan struct{} {
	changed, serial := w.news.of(w.user)
	if serial != w.serial {
		return past
	}
	return changed
}

// past is closed: what it stands for has happened.
var past = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// news wakes waiting readers. It knows one entry per local user that was
// touched or watched since the start: a household's worth.
type news struct {
	mu     sync.Mutex // guards the fields below
	users  map[UserNum]*topic
	all    chan struct{} // closed at the next commit
	closed bool
}

// topic is the news of one user: how often there was some, and the channel
// that the next one closes (nil while nobody waits).
type topic struct {
	serial  uint64
	changed chan struct{}
}

func (n *news) init() {
	n.users = make(map[UserNum]*topic)
	n.all = make(chan struct{})
}

func (n *news) topic(user UserNum) *topic {
	t := n.users[user]
	if t == nil {
		t = &topic{}
		n.users[user] = t
	}
	return t
}

func (n *news) serial(user UserNum) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.topic(user).serial
}

func (n *news) of(user UserNum) (changed <-chan struct{}, serial uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.topic(user)
	if t.changed == nil {
		t.changed = make(chan struct{})
		if n.closed {
			close(t.changed)
		}
	}
	return t.changed, t.serial
}

func (n *news) everything() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all
}

func (n *news) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}

// publish wakes everybody who waits for a commit, and the touched users.
func (n *news) publish(touched []UserNum) {
	n.mu.Lock()
	if !n.closed {
		close(n.all)
		n.all = make(chan struct{})
	}
	n.mu.Unlock()
	n.touch(touched)
}

func (n *news) touch(users []UserNum) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	for _, user := range users {
		t := n.topic(user)
		t.serial++
		if t.changed != nil {
			close(t.changed)
			t.changed = nil
		}
	}
}

// close wakes everybody for good.
func (n *news) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.closed = true
	close(n.all)
	for _, t := range n.users {
		if t.changed != nil {
			close(t.changed)
		}
	}
}
