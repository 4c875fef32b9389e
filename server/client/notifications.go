package client

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/push"
	"hearth/state/matrix"
	"hearth/store"
)

// notification is an event that the user was notified of.
type notification struct {
	Actions []jsontext.Value `json:"actions"`
	Event   jsontext.Value   `json:"event"`
	Read    bool             `json:"read"`
	RoomID  matrix.RoomID    `json:"room_id"`
	TS      int64            `json:"ts"` // milliseconds
}

type getNotificationsResponse struct {
	NextToken     string         `json:"next_token,omitzero"`
	Notifications []notification `json:"notifications"`
}

// Bounds of one answer.
const (
	usualNotifications = 20
	maxNotifications   = 100
	// maxNotificationLook is how many entries of the stream are looked at; an answer
	// may then have fewer events than were asked for, and a token.
	maxNotificationLook = 5000
)

// getNotifications answers GET /notifications: what the user was notified of, newest
// first. Nothing is stored for it. The push rules of now are asked about the events
// of the rooms that he is in, so a change of rules changes the list.
//
// Spec: CS Push Notifications, Listing Notifications.
func (s *Server) getNotifications(w http.ResponseWriter, r *http.Request, who session) error {
	ask, err := notificationRequest(r.URL.Query())
	if err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitSearch, string(who.user)); err != nil {
		return err
	}
	answer := getNotificationsResponse{Notifications: []notification{}}
	err = s.store.View(func(tx *store.Tx) error {
		if ask.before == 0 {
			ask.before = tx.Position() + 1
		}
		l := notificationList{s: s, tx: tx, who: who, ask: ask, answer: &answer, rooms: make(map[store.RoomNum]*notifiedRoom)}
		return tx.ChangesBack(ask.before, l.look)
	})
	if err != nil {
		return fmt.Errorf("notifications of %s: %w", who.user, err)
	}
	return api.WriteJSON(w, answer)
}

// notificationAsk is what a request wants to have.
type notificationAsk struct {
	before    store.Position // 0: all
	limit     int
	highlight bool // those alone
}

// notificationToken begins a next_token; a position follows.
const notificationToken = "n"

var errNotificationToken = errors.New("this is no token that this endpoint gave")

func notificationRequest(q url.Values) (ask notificationAsk, err error) {
	ask.limit = usualNotifications
	if q.Has("limit") {
		n, err := strconv.ParseUint(q.Get("limit"), 10, 31)
		if err != nil || n == 0 {
			return ask, api.ErrInvalidParam.Because("limit must be a number, more than 0")
		}
		ask.limit = min(int(n), maxNotifications)
	}
	ask.highlight = q.Get("only") == "highlight"
	if from := q.Get("from"); from != "" {
		number, ok := strings.CutPrefix(from, notificationToken)
		pos, err := strconv.ParseUint(number, 10, 63)
		if err != nil || !ok || pos == 0 {
			return ask, api.InvalidParam("from", errNotificationToken)
		}
		ask.before = store.Position(pos)
	}
	return ask, nil
}

// notificationList is the making of one answer.
type notificationList struct {
	s      *Server
	tx     *store.Tx
	who    session
	ask    notificationAsk
	answer *getNotificationsResponse
	rooms  map[store.RoomNum]*notifiedRoom
	looked int
}

// notifiedRoom is what is needed for the events of one room.
type notifiedRoom struct {
	notices *pushNotices // nil: nothing there concerns the user
	format  *formatter
}

// look takes one entry of the stream. The token says where the next answer begins,
// and is absent where the stream ends.
func (l *notificationList) look(c store.Change) (bool, error) {
	l.looked++
	if len(l.answer.Notifications) == l.ask.limit || l.looked > maxNotificationLook {
		l.answer.NextToken = notificationToken + strconv.FormatUint(uint64(c.Position)+1, 10)
		return false, nil
	}
	if c.Event == 0 || c.User == l.who.num {
		return true, nil
	}
	room, err := l.room(c.Room)
	if err != nil || room.notices == nil {
		return err == nil, err
	}
	ev, err := l.tx.Event(c.Room, c.Event)
	if err != nil {
		return false, err
	}
	notice, err := room.notices.of(ev)
	if err != nil || notice.Rule == nil {
		return err == nil, err
	}
	if notify, highlight := notice.Rule.Notifies(); !notify || l.ask.highlight && !highlight {
		return true, nil
	}
	return true, l.add(room, ev, notice)
}

func (l *notificationList) add(room *notifiedRoom, ev *store.StoredEvent, notice push.Notice) error {
	event, err := room.format.event(ev)
	if err != nil {
		return err
	}
	l.answer.Notifications = append(l.answer.Notifications, notification{
		Actions: notice.Rule.Actions, Event: event, Read: notice.Read,
		RoomID: l.tx.RoomID(ev.RoomNum), TS: ev.OriginServerTS,
	})
	return nil
}

// room returns what is needed for a room's events, found once.
func (l *notificationList) room(num store.RoomNum) (*notifiedRoom, error) {
	if room := l.rooms[num]; room != nil {
		return room, nil
	}
	room := new(notifiedRoom)
	l.rooms[num] = room
	var err error
	if room.notices, err = newPushNotices(l.tx, l.who, num); room.notices == nil || err != nil {
		return room, err
	}
	if room.format, err = l.s.formatter(l.tx, num, l.who); err != nil {
		return nil, err
	}
	room.format.id = "" // beside the event
	return room, nil
}
