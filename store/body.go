package store

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"hearth/state/matrix"
)

// How a packed body begins.
const (
	bodyPlain  = 0 // the bytes of the PDU follow
	bodyPacked = 1 // the length of a zstd frame, the frame with the skeleton, and what was lifted out of it
)

//go:generate go run ./traindict -o body.dict

// bodyDictionary was trained on skeletons of events. Frames need the one that
// they were packed with: another dictionary is another kind of body.
//
//go:embed body.dict
var bodyDictionary []byte

// A bodyCodec packs the bodies of events, each alone: what cannot be compressed
// is lifted out (skeleton.go), the rest goes through zstd with a dictionary. An
// event becomes half as long; without either it would lose a tenth. Encoder and
// decoder are shared and made at the first use; they cost 0.9 MB of heap.
type bodyCodec struct {
	encoder func() (*zstd.Encoder, error)
	decoder func() (*zstd.Decoder, error)
}

func (c *bodyCodec) init() {
	c.encoder = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil,
			zstd.WithEncoderDict(bodyDictionary),
			zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(matrix.MaxEventBytes),
			zstd.WithSingleSegment(true),
			zstd.WithEncoderCRC(false))
	})
	c.decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil,
			zstd.WithDecoderDicts(bodyDictionary),
			zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(matrix.MaxEventBytes))
	})
}

// pack appends the packed body of an event in a room to a record.
func (c *bodyCodec) pack(record, body []byte, room matrix.RoomID) ([]byte, error) {
	if len(body) > matrix.MaxEventBytes {
		return nil, fmt.Errorf("body of %d bytes: %w", len(body), matrix.ErrTooLarge)
	}
	encoder, err := c.encoder()
	if err != nil {
		return nil, fmt.Errorf("pack a body: %w", err)
	}
	skeleton, lifted, ok := liftBody(body, room)
	if ok {
		frame := encoder.EncodeAll(skeleton, make([]byte, 0, len(skeleton)))
		if len(frame)+len(lifted)+binary.MaxVarintLen16 < len(body) {
			record = binary.AppendUvarint(append(record, bodyPacked), uint64(len(frame)))
			return append(append(record, frame...), lifted...), nil
		}
	}
	return append(append(record, bodyPlain), body...), nil
}

// skeletons are buffers for what lives no longer than one call of unpack.
var skeletons = sync.Pool{New: func() any { return new([]byte) }}

// unpack returns a copy of what pack was given, never more than an event may
// have.
func (c *bodyCodec) unpack(packed []byte, room matrix.RoomID) ([]byte, error) {
	r := reader{b: packed}
	kind := r.byte()
	switch {
	case r.err == nil && kind == bodyPlain && len(r.b) <= matrix.MaxEventBytes:
		return append([]byte(nil), r.b...), nil
	case r.err == nil && kind == bodyPacked:
		frame := r.bytes(r.uvarint())
		if r.err != nil {
			return nil, r.err
		}
		decoder, err := c.decoder()
		if err != nil {
			return nil, fmt.Errorf("unpack a body: %w", err)
		}
		skeleton := skeletons.Get().(*[]byte)
		defer skeletons.Put(skeleton)
		*skeleton, err = decoder.DecodeAll(frame, (*skeleton)[:0])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return restoreBody(*skeleton, r.b, room)
	}
	return nil, fmt.Errorf("body of kind %d: %w", kind, ErrDamaged)
}
