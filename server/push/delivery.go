package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/store"
)

// maxAnswerBytes is the most that is read of a push gateway's answer.
const maxAnswerBytes = 64 << 10

// userAgent is how requests to push gateways present themselves.
const userAgent = "Hearth (Matrix homeserver)"

// ErrStatus is wrapped by the error of a push gateway that answered with another
// status than 200.
var ErrStatus = errors.New("the push gateway refused")

// deliver sends what a pusher has to send. An error means: again, later.
func (g *Gateway) deliver(ctx context.Context, t *task) (err error) {
	count := false
	defer func() {
		if err != nil && count {
			g.recount(t)
		}
	}()
	for {
		count = g.takeCount(t) || count // before the look: what comes after counts again
		next, failure := g.next(t)
		switch {
		case errors.Is(failure, store.ErrNotFound):
			g.forget(t)
			return nil
		case failure != nil:
			return failure
		}
		if next.body == nil {
			g.move(t, next.upto, false)
			if next.more {
				continue
			}
			if !count {
				return nil
			}
			return g.deliverCount(ctx, t, next.pusher)
		}
		if gone, err := g.send(ctx, t, next.pusher, next.body); err != nil || gone {
			return err
		}
		g.move(t, next.upto, true)
		g.told(t, next.unread)
		count = false
	}
}

// A step is what a pusher has to do next: send body if that is not nil. Then all up
// to upto is done.
type step struct {
	pusher store.Pusher
	body   []byte
	unread int // that body tells
	upto   store.Position
	more   bool // there are entries behind upto
}

// next looks for what a pusher has to send next. The error wraps store.ErrNotFound
// if the pusher is gone.
func (g *Gateway) next(t *task) (s step, err error) {
	err = g.store.View(func(tx *store.Tx) error {
		if s.pusher, err = tx.Pusher(t.user, t.id); err != nil {
			return err
		}
		s.upto = tx.Position()
		see := sight{g: g, tx: tx, user: t.user}
		looked, last := 0, store.Position(0)
		return tx.Changes(g.position(t, s.pusher), func(c store.Change) (bool, error) {
			if looked == lookAtOnce {
				s.more, s.upto = true, last
				return false, nil
			}
			looked++
			last = c.Position
			ev, rule, err := see.notice(c)
			if err != nil || rule == nil {
				return err == nil, err
			}
			s.upto = c.Position
			if s.unread, err = g.sources.Unread(tx, t.user); err != nil {
				return false, err
			}
			s.body, err = eventNotification(tx, s.pusher, t.user, ev, rule, s.unread)
			return false, err
		})
	})
	if err != nil {
		return s, fmt.Errorf("next notification: %w", err)
	}
	return s, nil
}

// sight is how a user sees the events of the stream, in one View.
type sight struct {
	g     *Gateway
	tx    *store.Tx
	user  store.UserNum
	rooms map[store.RoomNum]func(*store.StoredEvent) (Notice, error)
}

// notice returns an event with the rule that notifies the user of it, nil if none
// does or he has read it.
func (s *sight) notice(c store.Change) (*store.StoredEvent, *Rule, error) {
	if c.IsMembership() && c.User == s.user {
		return s.invite(c)
	}
	if c.Event == 0 || c.User == s.user {
		return nil, nil, nil
	}
	tell, known := s.rooms[c.Room]
	if !known {
		var err error
		if tell, err = s.g.sources.Notices(s.tx, s.user, c.Room); err != nil {
			return nil, nil, err
		}
		if s.rooms == nil {
			s.rooms = make(map[store.RoomNum]func(*store.StoredEvent) (Notice, error))
		}
		s.rooms[c.Room] = tell
	}
	if tell == nil {
		return nil, nil, nil
	}
	ev, err := s.tx.Event(c.Room, c.Event)
	if err != nil {
		return nil, nil, err
	}
	n, err := tell(ev)
	if err != nil || n.Rule == nil || n.Read {
		return nil, nil, err
	}
	if notify, _ := n.Rule.Notifies(); !notify {
		return nil, nil, nil
	}
	return ev, n.Rule, nil
}

// invite is notice for an invite to a room that this server is not in, as long as it
// stands: it is no event of the stream, but a change of what the room is to the user.
func (s *sight) invite(c store.Change) (*store.StoredEvent, *Rule, error) {
	member, _, err := s.tx.LocalMembership(s.user, c.Room)
	if member.Position != c.Position || err != nil {
		return nil, nil, err
	}
	ev, n, err := s.g.sources.Invite(s.tx, s.user, c.Room)
	if ev == nil || n.Rule == nil || err != nil {
		return nil, nil, err
	}
	if notify, _ := n.Rule.Notifies(); !notify {
		return nil, nil, nil
	}
	return ev, n.Rule, nil
}

// deliverCount tells the number of unread events if it is another than was told.
func (g *Gateway) deliverCount(ctx context.Context, t *task, p store.Pusher) error {
	var unread int
	err := g.store.View(func(tx *store.Tx) (err error) {
		unread, err = g.sources.Unread(tx, t.user)
		return err
	})
	if err != nil {
		return fmt.Errorf("count of unread events: %w", err)
	}
	if !g.isNews(t, unread) {
		return nil
	}
	body, err := countNotification(p, unread)
	if err != nil {
		return err
	}
	if gone, err := g.send(ctx, t, p, body); err != nil || gone {
		return err
	}
	g.told(t, unread)
	return nil
}

// takeCount says whether the count may have changed, once.
func (g *Gateway) takeCount(t *task) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	count := t.count
	t.count = false
	return count
}

// recount makes takeCount say so again.
func (g *Gateway) recount(t *task) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.count = true
}

// isNews says whether a count is another than was told last.
func (g *Gateway) isNews(t *task, unread int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return unread != t.badge
}

// told notes the count that was told, to a push gateway that works.
func (g *Gateway) told(t *task, unread int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.badge, t.failed = unread, 0
}

// send sends a notification. gone says that the push gateway knows the pushkey no
// more: the pusher was removed. "Homeservers must cease sending notification
// requests for these pushkeys and remove the associated pushers."
func (g *Gateway) send(ctx context.Context, t *task, p store.Pusher, body []byte) (gone bool, err error) {
	rejected, err := g.post(ctx, p, body)
	if err != nil {
		return false, err
	}
	if !slices.Contains(rejected, p.Key) {
		return false, nil
	}
	err = g.store.Update(ctx, func(tx *store.Tx) error {
		now, err := tx.Pusher(t.user, t.id)
		if err != nil || !now.Updated.Equal(p.Updated) || !bytes.Equal(now.Data, p.Data) {
			return err // it was set anew meanwhile
		}
		gone = true
		return tx.DeletePusher(t.user, t.id)
	})
	if err != nil {
		return false, fmt.Errorf("remove a rejected pusher: %w", err)
	}
	if gone {
		g.log.Info("a push gateway rejected a pusher, which was removed", "user", t.user, "app", p.App)
		g.forget(t)
	}
	return gone, nil
}

// post sends a notification and returns the pushkeys that the push gateway rejects.
// What it says else is of no interest: it has the notification.
func (g *Gateway) post(ctx context.Context, p store.Pusher, body []byte) (rejected []string, err error) {
	var data struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(p.Data, &data); err != nil {
		return nil, fmt.Errorf("data of a pusher: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, data.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("notify: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", userAgent)
	res, err := g.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("notify: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("notify %s: status %d: %w", req.URL.Host, res.StatusCode, ErrStatus)
	}
	var told struct {
		Rejected []string `json:"rejected"`
	}
	if err != nil || json.Unmarshal(answer, &told) != nil {
		return nil, nil
	}
	return told.Rejected, nil
}

// SendTimeout is how long a push gateway may take for one notification.
const SendTimeout = 20 * time.Second
