package client

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"hearth/server/api"
	"hearth/store"
)

// A streamToken is a place between two changes: next_batch, prev_batch, start
// and end. "s12_3" stands behind position 12 of the stream, and behind the third
// change of what lives in memory alone: who types, and who is there. "s12_3_7" says besides
// that messages to the device were given up to position 7 only, as they were too
// many for one sync. "h12_-3_7" stands right before a back-filled event, in the past of
// one room (see store.Place). It is good for ever.
//
// Spec: APP Pagination; CS Syncing.
type streamToken struct {
	pos      store.Position
	past     store.Place    // of the back-filled event that the token stands before; its Num is 0 for none
	memory   uint64         // see memorySerials
	toDevice store.Position // 0: messages to the device were given up to pos
}

// delivered returns the position up to which the device has its messages.
func (t streamToken) delivered() store.Position {
	if t.toDevice != 0 {
		return t.toDevice
	}
	return t.pos
}

var errToken = errors.New("this is no token that this server gave")

// String returns the token as clients keep it.
func (t streamToken) String() string {
	if t.past.Num != 0 {
		return fmt.Sprintf("h%d_%d_%d", t.past.Position, t.past.Height, t.past.Num)
	}
	s := "s" + strconv.FormatUint(uint64(t.pos), 10)
	if t.memory != 0 || t.toDevice != 0 {
		s += "_" + strconv.FormatUint(t.memory, 10)
	}
	if t.toDevice != 0 {
		s += "_" + strconv.FormatUint(uint64(t.toDevice), 10)
	}
	return s
}

// parseToken reads what String wrote; name is the parameter it came in.
func parseToken(name, s string) (streamToken, error) {
	if rest, ok := strings.CutPrefix(s, "h"); ok {
		return parsePast(name, rest)
	}
	rest, ok := strings.CutPrefix(s, "s")
	if !ok {
		return streamToken{}, api.InvalidParam(name, errToken)
	}
	var parts [3]uint64
	for i := 0; ok; i++ {
		var part string
		part, rest, ok = strings.Cut(rest, "_")
		if i == len(parts) {
			return streamToken{}, api.InvalidParam(name, errToken)
		}
		var err error
		if parts[i], err = strconv.ParseUint(part, 10, 63); err != nil {
			return streamToken{}, api.InvalidParam(name, errToken)
		}
	}
	return streamToken{pos: store.Position(parts[0]), memory: parts[1], toDevice: store.Position(parts[2])}, nil
}

// parsePast reads the rest of a token before a back-filled event.
func parsePast(name, rest string) (streamToken, error) {
	pos, rest, _ := strings.Cut(rest, "_")
	height, num, _ := strings.Cut(rest, "_")
	position, posErr := strconv.ParseUint(pos, 10, 63)
	h, heightErr := strconv.ParseInt(height, 10, 64)
	n, numErr := strconv.ParseUint(num, 10, 64)
	t := tokenBefore(store.Place{Position: store.Position(position), Height: h, Num: store.EventNum(n)})
	if posErr != nil || heightErr != nil || numErr != nil || position == 0 || t.past.Num == 0 {
		return streamToken{}, api.InvalidParam(name, errToken)
	}
	return t, nil
}

// tokenBefore is the token right before the event at a place. Where a timeline event has
// back-filled ones before it, they come before the token, too.
func tokenBefore(p store.Place) streamToken {
	t := streamToken{pos: p.Position - 1}
	if p.BackFilled() {
		t.past = p
	}
	return t
}

// place returns the place that a token stands right before, in a room.
func (t streamToken) place(tx *store.Tx, room store.RoomNum) (store.Place, error) {
	if t.past.Num != 0 {
		return t.past, nil
	}
	return tx.PlaceBehind(room, t.pos)
}
