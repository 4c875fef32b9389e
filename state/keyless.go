package state

import (
	"fmt"
	"slices"

	"hearth/state/matrix"
)

// A KeylessError says which members' events came and cannot be checked, as nobody
// gives the keys that they are signed with: their servers have been gone for long. A
// state is taken without them, as it is at a join; otherwise no room would go on here in
// which somebody was on a server that is no more. The first event that a user sends from
// there again has the state put right, see [ErrDoubted].
type KeylessError struct {
	Events []*matrix.Event // whose form alone was checked
}

// Error says how many events there are.
func (e *KeylessError) Error() string {
	return fmt.Sprintf("the keys of %d events cannot be had", len(e.Events))
}

// addKeyless notes events that were asked for and cannot be checked.
func (p *pile) addKeyless(events []*matrix.Event, asked map[matrix.EventID]bool) {
	if p.keyless == nil {
		p.gathering.keyless = make(map[matrix.EventID]bool)
	}
	for _, ev := range events {
		if asked[ev.ID] {
			p.keyless[ev.ID] = true
		}
	}
}

// spreadKeyless notes the members' events that cite those, directly or not.
func (p *pile) spreadKeyless() {
	var from []matrix.EventID
	for id := range p.keyless {
		from = append(from, id)
	}
	for len(from) > 0 {
		id := from[len(from)-1]
		from = from[:len(from)-1]
		for _, h := range p.waiting[id] {
			if h.Type == "m.room.member" && !p.keyless[h.ID] {
				p.keyless[h.ID] = true
				from = append(from, h.ID)
			}
		}
	}
}

// withoutKeyless returns those of some events that are not known to be such.
func (g *gathering) withoutKeyless(ids []matrix.EventID) []matrix.EventID {
	return slices.DeleteFunc(ids, func(id matrix.EventID) bool { return g.keyless[id] })
}
