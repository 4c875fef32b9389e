package picture

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
)

// This file reads the segments of a JPEG file; ITU-T T.81 is the standard that
// "T.81" cites below. jpeg_bits.go reads entropy-coded bits, jpeg_scan.go the
// scans, jpeg_block.go single blocks, jpeg_rows.go makes pixels of them.

// Markers: T.81, table B.1.
const (
	markerSOF0  = 0xC0 // baseline
	markerSOF1  = 0xC1 // extended sequential
	markerSOF2  = 0xC2 // progressive
	markerSOF15 = 0xCF // the last of the processes, most of which nobody uses
	markerDHT   = 0xC4
	markerJPG   = 0xC8
	markerDAC   = 0xCC
	markerRST0  = 0xD0
	markerRST7  = 0xD7
	markerSOI   = 0xD8
	markerEOI   = 0xD9
	markerSOS   = 0xDA
	markerDQT   = 0xDB
	markerDRI   = 0xDD
	markerAPP0  = 0xE0
	markerAPP1  = 0xE1
	markerAPP14 = 0xEE
	markerTEM   = 0x01
)

// maxScans is the most scans of a picture. Encoders make a dozen; each costs a
// walk over all blocks.
const maxScans = 64

// zigzag is the place in a block, 8*row+column, of the nth coefficient: T.81,
// figure A.6.
var zigzag = [64]uint8{
	0, 1, 8, 16, 9, 2, 3, 10,
	17, 24, 32, 25, 18, 11, 4, 5,
	12, 19, 26, 33, 40, 48, 41, 34,
	27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36,
	29, 22, 15, 23, 30, 37, 44, 51,
	58, 59, 52, 45, 38, 31, 39, 46,
	53, 60, 61, 54, 47, 55, 62, 63,
}

// jpegFile is a JPEG picture, read up to and with the header of its next scan.
type jpegFile struct {
	in            *jpegBits
	width, height int
	progressive   bool
	components    []jpegComponent
	hMax, vMax    int // the largest sampling factors
	mcusX, mcusY  int // how many minimum coded units there are in either direction

	quant     [4]*[64]uint16 // by place in the block; a new table is a new array
	huffman   [2][4]*huffman // DC and AC
	restart   int            // MCUs between restart markers; 0: none
	jfif      bool           // there is a JFIF header: three components are YCbCr
	adobe     bool           // there is an Adobe header, with
	transform byte           // its colour transform: 0 none, 1 YCbCr, 2 YCCK
	turn      turn
	scan      jpegScan
}

// jpegComponent is one colour of a picture.
type jpegComponent struct {
	id       byte
	h, v     int // sampling factors, 1 to 4
	selector byte
	quant    *[64]uint16 // from its first scan on
	blocksX  int         // blocks in either direction in a scan of its own
	blocksY  int
	stride   int // blocks in a row, filled up to whole MCUs
	lines    int // rows of blocks, filled up to whole MCUs
	dc       int32
	kept     coefficients
}

// jpegScan is the header of a scan: T.81, B.2.3.
type jpegScan struct {
	components [4]struct {
		index  int
		dc, ac *huffman // nil where the scan does not say
	}
	n          int  // how many components
	start, end int  // spectral selection
	high, low  uint // successive approximation
}

// openJPEG reads up to the first scan.
func openJPEG(r io.Reader) (*Picture, error) {
	f := &jpegFile{in: newJPEGBits(r)}
	if err := f.nextScan(); err != nil {
		return nil, err
	}
	return &Picture{Format: JPEG, stored: f, turn: f.turn}, nil
}

func (f *jpegFile) size() (width, height int) { return f.width, f.height }
func (f *jpegFile) reducible() bool           { return true }

// decode begins with the scan that openJPEG found.
func (f *jpegFile) decode(ctx context.Context, n eighths) (*rows, error) {
	if f.streams() {
		return f.streamRows(n), nil
	}
	return f.keptRows(ctx, n)
}

// streams tells that the first scan holds everything, so that pixels can be made
// as it is read.
func (f *jpegFile) streams() bool { return !f.progressive && f.scan.n == len(f.components) }

// nextScan reads segments up to the header of the next scan. It returns io.EOF
// at the end of the picture.
func (f *jpegFile) nextScan() error {
	for {
		marker, err := f.in.nextMarker()
		if err != nil {
			return err
		}
		switch {
		case marker == markerSOI, marker == markerTEM, marker >= markerRST0 && marker <= markerRST7:
			continue // stand alone
		case marker == markerEOI:
			return io.EOF
		}
		length, err := f.in.uint16()
		if err != nil {
			return err
		}
		if length < 2 {
			return fmt.Errorf("segment %X of %d bytes: %w", marker, length, ErrBroken)
		}
		if err := f.segment(marker, length-2); err != nil {
			return fmt.Errorf("segment %X: %w", marker, err)
		}
		if marker == markerSOS {
			return nil
		}
	}
}

// segment reads one segment of n bytes.
func (f *jpegFile) segment(marker byte, n int) error {
	isFrame := marker >= markerSOF0 && marker <= markerSOF15 &&
		marker != markerDHT && marker != markerJPG && marker != markerDAC
	switch {
	case isFrame:
	case marker == markerDHT, marker == markerDQT, marker == markerDRI, marker == markerSOS:
	case marker == markerAPP0, marker == markerAPP1, marker == markerAPP14:
	case marker == markerDAC:
		return fmt.Errorf("arithmetic coding: %w", ErrFormat)
	default:
		return f.in.skip(n)
	}
	data, err := f.in.take(n)
	if err != nil {
		return err
	}
	switch marker {
	case markerDHT:
		return f.huffmanTables(data)
	case markerDQT:
		return f.quantTables(data)
	case markerDRI:
		if len(data) != 2 {
			return ErrBroken
		}
		f.restart = int(binary.BigEndian.Uint16(data))
		return nil
	case markerSOS:
		return f.scanHeader(data)
	case markerAPP0, markerAPP1, markerAPP14:
		f.application(marker, data)
		return nil
	}
	return f.frameHeader(marker, data)
}

// application reads what matters to us of the segments APP0, APP1 and APP14.
func (f *jpegFile) application(marker byte, data []byte) {
	switch {
	case marker == markerAPP0 && bytes.HasPrefix(data, []byte("JFIF\x00")):
		f.jfif = true
	case marker == markerAPP1 && bytes.HasPrefix(data, []byte("Exif\x00\x00")):
		f.turn = turnOf(data[6:])
	case marker == markerAPP14 && bytes.HasPrefix(data, []byte("Adobe")) && len(data) >= 12:
		f.adobe, f.transform = true, data[11]
	}
}

// frameHeader reads the picture's size and components: T.81, B.2.2.
func (f *jpegFile) frameHeader(marker byte, data []byte) error {
	if f.components != nil {
		return fmt.Errorf("a second frame: %w", ErrBroken)
	}
	if len(data) < 6 || len(data) != 6+3*int(data[5]) {
		return ErrBroken
	}
	if marker > markerSOF2 || data[0] != 8 {
		return fmt.Errorf("process %X, %d bits: %w", marker, data[0], ErrFormat)
	}
	f.progressive = marker == markerSOF2
	f.height, f.width = int(binary.BigEndian.Uint16(data[1:])), int(binary.BigEndian.Uint16(data[3:]))
	n := int(data[5])
	if n != 1 && n != 3 && n != 4 {
		return fmt.Errorf("%d components: %w", n, ErrFormat)
	}
	if f.width == 0 || f.height == 0 {
		return fmt.Errorf("%d by %d pixels: %w", f.width, f.height, ErrBroken)
	}
	f.components = make([]jpegComponent, n)
	for i := range f.components {
		spec := data[6+3*i:]
		c := jpegComponent{id: spec[0], h: int(spec[1] >> 4), v: int(spec[1] & 15), selector: spec[2]}
		if c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 || c.selector > 3 {
			return fmt.Errorf("component %d: %w", i, ErrBroken)
		}
		if n == 1 {
			c.h, c.v = 1, 1 // one component is never interleaved: T.81, A.2.2
		}
		f.components[i] = c
		f.hMax, f.vMax = max(f.hMax, c.h), max(f.vMax, c.v)
	}
	f.mcusX, f.mcusY = divideUp(f.width, 8*f.hMax), divideUp(f.height, 8*f.vMax)
	for i := range f.components {
		c := &f.components[i]
		c.blocksX, c.blocksY = divideUp(f.width*c.h, 8*f.hMax), divideUp(f.height*c.v, 8*f.vMax)
		c.stride, c.lines = f.mcusX*c.h, f.mcusY*c.v
	}
	return nil
}

// quantTables reads quantization tables: T.81, B.2.4.1.
func (f *jpegFile) quantTables(data []byte) error {
	for len(data) > 0 {
		wide, slot := data[0]>>4, data[0]&15
		size := 64 << wide
		if wide > 1 || slot > 3 || len(data) < 1+size {
			return ErrBroken
		}
		var table [64]uint16
		for i := range table {
			if wide == 1 {
				table[zigzag[i]] = binary.BigEndian.Uint16(data[1+2*i:])
			} else {
				table[zigzag[i]] = uint16(data[1+i])
			}
		}
		f.quant[slot] = &table
		data = data[1+size:]
	}
	return nil
}

// huffmanTables reads Huffman tables: T.81, B.2.4.2.
func (f *jpegFile) huffmanTables(data []byte) error {
	for len(data) > 0 {
		class, slot := data[0]>>4, data[0]&15
		if class > 1 || slot > 3 {
			return ErrBroken
		}
		table, rest, err := newHuffman(data[1:])
		if err != nil {
			return err
		}
		f.huffman[class][slot] = table
		data = rest
	}
	return nil
}

// scanHeader reads which components a scan has and what of them: T.81, B.2.3.
func (f *jpegFile) scanHeader(data []byte) error {
	if f.components == nil {
		return fmt.Errorf("no frame before the scan: %w", ErrBroken)
	}
	if len(data) < 1 || int(data[0]) < 1 || int(data[0]) > len(f.components) || len(data) != 4+2*int(data[0]) {
		return ErrBroken
	}
	s := jpegScan{n: int(data[0])}
	tail := data[1+2*s.n:]
	s.start, s.end, s.high, s.low = int(tail[0]), int(tail[1]), uint(tail[2]>>4), uint(tail[2]&15)
	if !f.progressive {
		s.start, s.end, s.high, s.low = 0, 63, 0, 0
	}
	if s.start > s.end || s.end > 63 || s.low > 13 || s.high != 0 && s.high != s.low+1 ||
		f.progressive && (s.start == 0) != (s.end == 0) || s.start > 0 && s.n > 1 {
		return fmt.Errorf("scan of coefficients %d to %d, bits %d to %d: %w", s.start, s.end, s.high, s.low, ErrBroken)
	}
	used := 0
	for i := range s.n {
		index := f.indexOf(data[1+2*i])
		tables := data[2+2*i]
		if index < 0 || used&(1<<index) != 0 || tables>>4 > 3 || tables&15 > 3 {
			return fmt.Errorf("component %d of the scan: %w", i, ErrBroken)
		}
		used |= 1 << index
		s.components[i].index = index
		s.components[i].dc, s.components[i].ac = f.huffman[0][tables>>4], f.huffman[1][tables&15]
		if s.start == 0 && s.high == 0 && s.components[i].dc == nil || s.end > 0 && s.components[i].ac == nil {
			return fmt.Errorf("component %d lacks a Huffman table: %w", i, ErrBroken)
		}
		if c := &f.components[index]; c.quant == nil {
			if c.quant = f.quant[c.selector]; c.quant == nil {
				return fmt.Errorf("component %d lacks a quantization table: %w", i, ErrBroken)
			}
		}
	}
	f.scan = s
	return nil
}

// indexOf returns which component has an identifier, or -1.
func (f *jpegFile) indexOf(id byte) int {
	for i := range f.components {
		if f.components[i].id == id {
			return i
		}
	}
	return -1
}
