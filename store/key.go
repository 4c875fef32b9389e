package store

import (
	"encoding/binary"
	"strings"
)

// keyOf starts a key under a room or user number with its kind byte.
func keyOf(num uint32, kind byte) []byte {
	k := make([]byte, 0, 48)
	k = binary.BigEndian.AppendUint32(k, num)
	return append(k, kind)
}

// u32 reads a big-endian number that ends a key or is a whole value. Of fewer
// bytes, which only a damaged file has, it makes 0, the number of nothing.
func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// u64 is u32 for eight bytes.
func u64(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// appendU32 appends n big-endian.
func appendU32(k []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(k, n) }

// appendU64 appends n big-endian.
func appendU64(k []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(k, n) }

// appendPart appends s and the NUL byte that ends it within a key.
func appendPart(k []byte, s string) []byte { return append(append(k, s...), 0) }

// appendString appends s with its length before it, as values hold strings.
func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes a value apart. After the first fault every further read gives
// the zero value and err says what was wrong: a damaged record is an error,
// never a panic.
type reader struct {
	b   []byte
	err error
}

// uvarint reads an unsigned varint.
func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

// varint reads a signed varint.
func (r *reader) varint() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

// bytes reads n bytes, which alias the value.
func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// byte reads one byte.
func (r *reader) byte() byte {
	b := r.bytes(1)
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// string reads what appendString wrote, as a copy.
func (r *reader) string() string { return string(r.bytes(r.uvarint())) }

func (r *reader) fail() {
	if r.err == nil {
		r.err = ErrDamaged
	}
	r.b = nil
}

// cutPart takes apart what appendPart began: the part, and what follows it.
func cutPart(k []byte) (part, rest string, ok bool) {
	return strings.Cut(string(k), "\x00")
}
