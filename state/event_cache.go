package state

import "hearth/store"

// maxCached bounds what an eventCache holds, in bytes of JSON.
const maxCached = 1 << 20

// eventCache keeps events at hand that were read lately: the auth rules and the
// resolution of forks ask for the same few power levels and members again and
// again. It is good while nobody else writes to the rooms whose events it holds.
// The zero value is an empty one.
type eventCache struct {
	events map[eventPlace]*store.StoredEvent
	bytes  int
}

type eventPlace struct {
	room store.RoomNum
	num  store.EventNum
}

// event returns an event, which nobody may change. The error wraps
// [store.ErrNotFound] if there is none.
func (c *eventCache) event(tx *store.Tx, room store.RoomNum, num store.EventNum) (*store.StoredEvent, error) {
	if ev := c.events[eventPlace{room, num}]; ev != nil {
		return ev, nil
	}
	ev, err := tx.Event(room, num)
	if err != nil {
		return nil, err
	}
	if c.bytes += len(ev.JSON()); c.events == nil || c.bytes > maxCached {
		c.events, c.bytes = make(map[eventPlace]*store.StoredEvent), len(ev.JSON())
	}
	c.events[eventPlace{room, num}] = ev
	return ev, nil
}

// clear forgets all events.
func (c *eventCache) clear() { *c = eventCache{} }
