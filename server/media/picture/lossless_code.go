package picture

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// losslessBits reads bits, the lowest of each byte first: WebP, 3.3. After the
// end it gives zeros; err then says that too many were taken.
type losslessBits struct {
	r    *bufio.Reader
	acc  uint64
	n    uint // bits in acc
	made uint // how many of them were made up beyond the end
	err  error
}

// fill sees to it that there are at least 32 bits.
func (b *losslessBits) fill() {
	for b.n <= 56 {
		c, err := b.r.ReadByte()
		if err != nil {
			if b.err == nil && !errors.Is(err, io.EOF) {
				b.err = err
			}
			c = 0
			b.made += 8
		}
		b.acc |= uint64(c) << b.n
		b.n += 8
	}
}

// drop takes n bits that fill has provided.
func (b *losslessBits) drop(n uint) {
	b.acc >>= n
	b.n -= n
	if b.n < b.made && b.err == nil {
		b.err = fmt.Errorf("it ends too early: %w", ErrBroken)
	}
}

// read takes n bits, at most 32.
func (b *losslessBits) read(n uint) int {
	if b.n < n {
		b.fill()
	}
	v := b.acc & (1<<n - 1)
	b.drop(n)
	return int(v)
}

// extended reads what a length or distance symbol needs more: WebP, 3.6.2.1.
func (b *losslessBits) extended(symbol int) int {
	if symbol < 4 {
		return symbol + 1
	}
	extra := uint(symbol-2) >> 1
	return (2+symbol&1)<<extra + b.read(extra) + 1
}

const (
	maxCodeLength = 15
	quickBits     = 7
)

// prefixCode is a canonical prefix code.
type prefixCode struct {
	only int // the symbol of a code without bits; -1: there are several
	// quick has, for each value of the next quickBits bits, a symbol times 16 and
	// the length of its code; 0 for longer codes.
	quick *[1 << quickBits]uint16
	// counts is how many codes of each length there are; symbols lists what they
	// stand for, shortest first.
	counts  [maxCodeLength + 1]uint16
	symbols []uint16
}

// bytes is about how much memory the codes take.
func (g *codeGroup) bytes() int {
	total := 0
	for _, c := range g {
		total += 96 + 2*len(c.symbols)
		if c.quick != nil {
			total += 2 << quickBits
		}
	}
	return total
}

// symbol reads a symbol.
func (b *losslessBits) symbol(c *prefixCode) int {
	if c.only >= 0 {
		return c.only
	}
	if b.n < maxCodeLength {
		b.fill()
	}
	if q := c.quick[b.acc&(1<<quickBits-1)]; q != 0 {
		b.drop(uint(q & 15))
		return int(q >> 4)
	}
	// Codes of one length are consecutive numbers, highest bit first.
	code, first, index := 0, 0, 0
	for length := 1; length <= maxCodeLength; length++ {
		code |= int(b.acc >> (length - 1) & 1)
		count := int(c.counts[length])
		if code-first < count {
			b.drop(uint(length))
			return int(c.symbols[index+code-first])
		}
		index += count
		first = (first + count) << 1
		code <<= 1
	}
	return 0 // cannot be: newPrefixCode takes complete codes alone
}

// newPrefixCode makes a code of the length that each symbol's has, 0 for none.
func newPrefixCode(lengths []uint8) (*prefixCode, error) {
	c := &prefixCode{only: -1}
	used := 0
	for symbol, n := range lengths {
		if n > 0 {
			c.counts[n]++
			c.only = symbol
			used++
		}
	}
	if used == 1 {
		return &prefixCode{only: c.only}, nil
	}
	c.only = -1
	var places [maxCodeLength + 2]int
	left := 1 // codes that are still free
	for n := 1; n <= maxCodeLength; n++ {
		left = left<<1 - int(c.counts[n])
		if left < 0 {
			return nil, fmt.Errorf("more codes of %d bits than there can be: %w", n, ErrBroken)
		}
		places[n+1] = places[n] + int(c.counts[n])
	}
	if left != 0 {
		return nil, fmt.Errorf("an incomplete prefix code: %w", ErrBroken)
	}
	c.symbols = make([]uint16, used)
	for symbol, n := range lengths {
		if n > 0 {
			c.symbols[places[n]] = uint16(symbol)
			places[n]++
		}
	}
	c.fillQuick()
	return c, nil
}

// fillQuick makes the table for short codes.
func (c *prefixCode) fillQuick() {
	c.quick = new([1 << quickBits]uint16)
	code, index := 0, 0
	for n := 1; n <= quickBits; n++ {
		for range c.counts[n] {
			low := int(bits.Reverse16(uint16(code)) >> (16 - n))
			for i := low; i < len(c.quick); i += 1 << n {
				c.quick[i] = c.symbols[index]<<4 | uint16(n)
			}
			code, index = code+1, index+1
		}
		code <<= 1
	}
}

// lengthOrder is the order in which the lengths of the code for lengths come:
// WebP, 3.7.2.1.2.
var lengthOrder = [19]uint8{17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// readCode reads the code of an alphabet of size symbols: WebP, 3.7.2.1.
func (b *losslessBits) readCode(size int) (*prefixCode, error) {
	lengths := make([]uint8, size)
	if b.read(1) == 1 { // a simple code of one or two symbols
		two := b.read(1) == 1
		first := b.read(1 + 7*uint(b.read(1)))
		if first >= size {
			return nil, fmt.Errorf("symbol %d of %d: %w", first, size, ErrBroken)
		}
		lengths[first] = 1
		if two {
			second := b.read(8)
			if second >= size {
				return nil, fmt.Errorf("symbol %d of %d: %w", second, size, ErrBroken)
			}
			lengths[second] = 1
		}
	} else if err := b.readLengths(lengths); err != nil {
		return nil, err
	}
	if b.err != nil {
		return nil, b.err
	}
	return newPrefixCode(lengths)
}

// readLengths reads the lengths of a code, which are coded themselves.
func (b *losslessBits) readLengths(lengths []uint8) error {
	var own [len(lengthOrder)]uint8
	for i := range 4 + b.read(4) {
		own[lengthOrder[i]] = uint8(b.read(3))
	}
	code, err := newPrefixCode(own[:])
	if err != nil {
		return err
	}
	most := len(lengths)
	if b.read(1) == 1 {
		if most = 2 + b.read(2+2*uint(b.read(3))); most > len(lengths) {
			return fmt.Errorf("%d code lengths for %d symbols: %w", most, len(lengths), ErrBroken)
		}
	}
	previous := uint8(8)
	for i := 0; i < len(lengths) && most > 0; most-- {
		symbol := b.symbol(code)
		if symbol < 16 {
			lengths[i] = uint8(symbol)
			if symbol != 0 {
				previous = lengths[i]
			}
			i++
			continue
		}
		var repeat int
		value := uint8(0)
		switch symbol {
		case 16:
			repeat, value = 3+b.read(2), previous
		case 17:
			repeat = 3 + b.read(3)
		default:
			repeat = 11 + b.read(7)
		}
		if repeat > len(lengths)-i {
			return fmt.Errorf("code lengths beyond the last symbol: %w", ErrBroken)
		}
		for range repeat {
			lengths[i] = value
			i++
		}
	}
	return b.err
}
