package picture

import (
	"errors"
	"fmt"
	"io"
)

// jpegBits reads a JPEG file: bytes in its segments, bits in its scans.
//
// In a scan a byte FF is followed by 00; FF and anything else is a marker, which
// ends the bits. Whoever reads on gets zeros, and ended then says so: that is
// checked once for a block and not at every bit.
type jpegBits struct {
	r      io.Reader
	unread []byte // read from r, but not taken
	space  []byte
	err    error // why r gives no more; sticks

	acc    uint64 // the next bits, from the highest down
	n      int    // how many bits of acc are good
	made   int    // how many of them were made up beyond the end
	marker byte   // the marker that ended the bits; 0: none yet
	bad    bool   // a code that no table has was met
}

func newJPEGBits(r io.Reader) *jpegBits {
	return &jpegBits{r: r, space: make([]byte, 16<<10)}
}

// byte returns the next byte.
func (b *jpegBits) byte() (byte, error) {
	if len(b.unread) == 0 {
		if err := b.read(); err != nil {
			return 0, err
		}
	}
	c := b.unread[0]
	b.unread = b.unread[1:]
	return c, nil
}

// read fetches more bytes. Its error is io.EOF at the end.
func (b *jpegBits) read() error {
	for tries := 0; len(b.unread) == 0 && b.err == nil; tries++ {
		n, err := b.r.Read(b.space)
		b.unread, b.err = b.space[:n], err
		if n == 0 && err == nil && tries == 100 {
			b.err = io.ErrNoProgress
		}
	}
	if len(b.unread) > 0 {
		return nil
	}
	return b.err
}

// uint16 returns the next two bytes as a number.
func (b *jpegBits) uint16() (int, error) {
	high, err := b.byte()
	if err != nil {
		return 0, err
	}
	low, err := b.byte()
	return int(high)<<8 | int(low), err
}

// take returns the next n bytes.
func (b *jpegBits) take(n int) ([]byte, error) {
	data := make([]byte, 0, n)
	for len(data) < n {
		if len(b.unread) == 0 {
			if err := b.read(); err != nil {
				return nil, err
			}
		}
		part := b.unread[:min(len(b.unread), n-len(data))]
		data, b.unread = append(data, part...), b.unread[len(part):]
	}
	return data, nil
}

// skip passes over n bytes.
func (b *jpegBits) skip(n int) error {
	for n > 0 {
		if len(b.unread) == 0 {
			if err := b.read(); err != nil {
				return err
			}
		}
		part := min(len(b.unread), n)
		n, b.unread = n-part, b.unread[part:]
	}
	return nil
}

// nextMarker drops the bits that are left and returns the marker that ended them
// or, failing that, the next one in the file.
func (b *jpegBits) nextMarker() (byte, error) {
	marker := b.marker
	b.acc, b.n, b.made, b.marker = 0, 0, 0, 0
	for marker == 0 {
		c, err := b.byte()
		for err == nil && c == 0xFF {
			if c, err = b.byte(); err == nil && c != 0xFF {
				marker = c // 0: a stuffed byte, no marker
			}
		}
		if err != nil {
			return 0, err
		}
	}
	return marker, nil
}

// fill sees to it that there are at least 57 bits.
func (b *jpegBits) fill() {
	for b.n <= 56 {
		if b.marker == 0 {
			c, err := b.byte()
			if err == nil && c == 0xFF {
				for err == nil && c == 0xFF {
					c, err = b.byte()
				}
				if err == nil && c != 0 {
					b.marker = c
				}
				c = 0xFF
			}
			if err != nil {
				b.marker = markerEOI
			}
			if b.marker == 0 {
				b.acc |= uint64(c) << (56 - b.n)
				b.n += 8
				continue
			}
		}
		b.made += 8
		b.n += 8
	}
}

// ended returns an error if more bits were taken than there are, or a code that
// does not exist.
func (b *jpegBits) ended() error {
	switch {
	case b.bad:
		return fmt.Errorf("no such code: %w", ErrBroken)
	case b.n >= b.made:
		return nil
	case b.err != nil && !errors.Is(b.err, io.EOF):
		return b.err
	}
	return fmt.Errorf("a scan ends too early: %w", ErrBroken)
}

// take1 returns the next bit.
func (b *jpegBits) take1() bool {
	if b.n < 1 {
		b.fill()
	}
	bit := b.acc>>63 != 0
	b.acc <<= 1
	b.n--
	return bit
}

// bits returns the next s bits, at most 16.
func (b *jpegBits) bits(s uint) int32 {
	if b.n < 16 {
		b.fill()
	}
	v := int32(b.acc >> 1 >> (63 - s))
	b.acc <<= s
	b.n -= int(s)
	return v
}

// signed returns the next s bits, at most 16, as the signed number that they
// stand for: T.81, F.2.2.1, RECEIVE and EXTEND.
func (b *jpegBits) signed(s uint) int32 {
	if s == 0 {
		return 0
	}
	v := b.bits(s)
	if v < 1<<(s-1) {
		v += 1 - 1<<s
	}
	return v
}

// huffman is a table of codes of 1 to 16 bits.
type huffman struct {
	// fast has, for each value of the next fastBits bits, the length of the code
	// that they begin with and the symbol it stands for; 0 for longer codes.
	fast [1 << fastBits]uint16
	// last is the highest code of each length, -1 if there is none; offset added
	// to a code of that length gives the place of its symbol.
	last, offset [17]int32
	symbols      []byte
}

const fastBits = 9

// newHuffman reads a table and returns what follows it: T.81, B.2.4.2 and C.2.
func newHuffman(data []byte) (*huffman, []byte, error) {
	if len(data) < 16 {
		return nil, nil, ErrBroken
	}
	counts, data := data[:16], data[16:]
	total := 0
	for _, n := range counts {
		total += int(n)
	}
	if total == 0 || total > 256 || total > len(data) {
		return nil, nil, fmt.Errorf("a Huffman table of %d codes: %w", total, ErrBroken)
	}
	h := &huffman{symbols: data[:total]}
	code, at := int32(0), int32(0)
	for i, n := range counts {
		length := i + 1
		h.offset[length] = at - code
		for range n {
			if length <= fastBits && code < 1<<length {
				first := code << (fastBits - length)
				for j := range int32(1) << (fastBits - length) {
					h.fast[first+j] = uint16(length)<<8 | uint16(h.symbols[at])
				}
			}
			code, at = code+1, at+1
		}
		if code > 1<<length {
			return nil, nil, fmt.Errorf("more codes of %d bits than there can be: %w", length, ErrBroken)
		}
		h.last[length] = -1
		if n > 0 {
			h.last[length] = code - 1
		}
		code <<= 1
	}
	return h, data[total:], nil
}

// symbol returns the symbol of the next code. It leaves at least 16 bits, enough
// for the number that may follow.
func (b *jpegBits) symbol(h *huffman) byte {
	if b.n < 32 {
		b.fill()
	}
	if e := h.fast[b.acc>>(64-fastBits)]; e != 0 {
		length := int(e >> 8)
		b.acc <<= length
		b.n -= length
		return byte(e)
	}
	next := int32(b.acc >> 48)
	for length := fastBits + 1; length <= 16; length++ {
		if code := next >> (16 - length); code <= h.last[length] {
			b.acc <<= length
			b.n -= length
			return h.symbols[code+h.offset[length]]
		}
	}
	b.bad = true
	return 0
}
