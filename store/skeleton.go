package store

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// The skeleton of an event is its JSON with marks in place of what no
// compression makes smaller: the hashes, signatures, keys and ciphertexts that
// are most of it. Their bytes stand behind the skeleton as they are, not in
// base64. The ID of the room goes altogether, as whoever reads an event knows
// it. A mark is a byte that JSON never holds. The trainer of the dictionary
// writes the same marks.
const (
	markRoom      = 0x01 // the room's ID
	markHashURL   = 0x02 // 32 bytes, in base64 for URLs
	markHash      = 0x03 // 32 bytes, in standard base64
	markSignedURL = 0x04 // 64 bytes
	markSigned    = 0x05
	markBytesURL  = 0x06 // a uvarint says how many bytes
	markBytes     = 0x07
	markEnd       = 0x08 // the first byte that is no mark
)

// minLifted is the shortest text in base64 that is worth a mark.
const minLifted = 40

// liftBody takes an event's body apart; ok is false when it holds bytes that
// would be taken for marks. restoreBody gives back exactly the same bytes.
func liftBody(body []byte, room matrix.RoomID) (skeleton, lifted []byte, ok bool) {
	skeleton = make([]byte, 0, len(body))
	lifted = make([]byte, 0, len(body))
	for len(body) > 0 {
		n := base64Run(body)
		switch {
		case n >= minLifted:
			skeleton, lifted = liftRun(skeleton, lifted, body[:n])
		case n > 0:
			skeleton = append(skeleton, body[:n]...)
		case body[0] < markEnd:
			return nil, nil, false
		case body[0] == '!' && room != "" && bytes.HasPrefix(body, []byte(room)):
			n = len(room)
			skeleton = append(skeleton, markRoom)
		default:
			n = 1
			skeleton = append(skeleton, body[0])
		}
		body = body[n:]
	}
	return skeleton, lifted, true
}

// liftRun lifts a run of base64 characters, or leaves it where it would not
// come back the same.
func liftRun(skeleton, lifted, run []byte) ([]byte, []byte) {
	for i, encoding := range liftedEncodings {
		raw, err := encoding.AppendDecode(lifted, run)
		if err != nil {
			continue
		}
		switch n := len(raw) - len(lifted); n {
		case 32:
			skeleton = append(skeleton, byte(markHashURL+i))
		case 64:
			skeleton = append(skeleton, byte(markSignedURL+i))
		default:
			skeleton = binary.AppendUvarint(append(skeleton, byte(markBytesURL+i)), uint64(n))
		}
		return skeleton, raw
	}
	return append(skeleton, run...), lifted
}

// liftedEncodings are strict: one text for the same bytes.
var liftedEncodings = [2]*base64.Encoding{base64.RawURLEncoding.Strict(), base64.RawStdEncoding.Strict()}

// restoreBody puts back what liftBody took out.
func restoreBody(skeleton, lifted []byte, room matrix.RoomID) ([]byte, error) {
	body := make([]byte, 0, len(skeleton)+len(lifted)*4/3+len(room)+8)
	r := reader{b: skeleton}
	for len(r.b) > 0 {
		plain := 0
		for plain < len(r.b) && r.b[plain] >= markEnd {
			plain++
		}
		body = append(body, r.bytes(uint64(plain))...)
		if len(r.b) == 0 {
			break
		}
		mark := r.byte()
		if mark == markRoom {
			body = append(body, room...)
			continue
		}
		var n uint64
		switch mark {
		case markHashURL, markHash:
			n = 32
		case markSignedURL, markSigned:
			n = 64
		case markBytesURL, markBytes:
			n = r.uvarint()
		}
		if n == 0 || n > uint64(len(lifted)) || len(body) > matrix.MaxEventBytes {
			return nil, fmt.Errorf("skeleton of a body: %w", ErrDamaged)
		}
		body = liftedEncodings[mark&1].AppendEncode(body, lifted[:n])
		lifted = lifted[n:]
	}
	if len(lifted) > 0 || len(body) > matrix.MaxEventBytes {
		return nil, fmt.Errorf("skeleton of a body: %w", ErrDamaged)
	}
	return body, nil
}

// base64Run returns how many characters of base64, of either alphabet, b
// begins with.
func base64Run(b []byte) int {
	for i, c := range b {
		if !isBase64[c] {
			return i
		}
	}
	return len(b)
}

var isBase64 = func() (is [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_" {
		is[c] = true
	}
	return is
}()
