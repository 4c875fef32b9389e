package client

import (
	"errors"
	"strconv"
	"strings"

	"hearth/server/api"
	"hearth/store"
)

// A streamToken is a place between two changes: next_batch, prev_batch, start
// and end. "s12_3" stands behind position 12 of the stream, and behind the third
// change of what lives in memory alone: who types, and who is there. "s12_3_7" says besides
// that messages to the device were given up to position 7 only, as they were too
// many for one sync. It is good for ever.
//
// Spec: APP Pagination; CS Syncing.
type streamToken struct {
	pos      store.Position
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
