package picture

import (
	"bufio"
	"compress/zlib"
	"context"
	"encoding/binary"
	"fmt"
	"image/png"
	"io"
)

// This file reads PNG files row by row; "PNG" cites the W3C Recommendation
// "Portable Network Graphics". png_row.go makes colours of the rows.

const pngSignature = "\x89PNG\r\n\x1a\n"

// Colour types: PNG, 11.2.1.
const (
	pngGray      = 0
	pngRGB       = 2
	pngPalette   = 3
	pngGrayAlpha = 4
	pngRGBA      = 6
)

// pngChannels is how many samples a pixel of each colour type has.
var pngChannels = [7]int{pngGray: 1, pngRGB: 3, pngPalette: 1, pngGrayAlpha: 2, pngRGBA: 4}

// pngDepths has a bit for each depth that a colour type may have.
var pngDepths = [7]uint32{
	pngGray:      1<<1 | 1<<2 | 1<<4 | 1<<8 | 1<<16,
	pngRGB:       1<<8 | 1<<16,
	pngPalette:   1<<1 | 1<<2 | 1<<4 | 1<<8,
	pngGrayAlpha: 1<<8 | 1<<16,
	pngRGBA:      1<<8 | 1<<16,
}

// maxPNGChunks is the most chunks that may stand before the pixels.
const maxPNGChunks = 1000

// pngFile is a PNG picture, read up to its first chunk of pixels.
type pngFile struct {
	r             *io.SectionReader
	width, height int
	depth         int // bits of a sample
	colour        int // colour type
	interlaced    bool
	palette       [256][4]byte // red, green, blue, alpha; premultiplied
	colours       int          // how many the palette has
	key           []byte       // the sample values that are transparent, 16 bits each; nil: none
	data          pngData
}

// openPNG reads up to the pixels. Check sums are not looked at: the pixels have
// one of their own, and nothing else can do harm.
func openPNG(r *io.SectionReader) (*Picture, error) {
	f := &pngFile{r: r}
	p := &Picture{Format: PNG, stored: f}
	at := int64(len(pngSignature))
	for range maxPNGChunks {
		kind, length, err := pngChunk(r, at)
		if err != nil {
			return nil, err
		}
		if (kind == "IHDR") != (at == int64(len(pngSignature))) {
			return nil, fmt.Errorf("chunk %q out of place: %w", kind, ErrBroken)
		}
		switch kind {
		case "IDAT":
			f.data = pngData{r: r, at: at + 8, left: length}
			if f.colour == pngPalette && f.colours == 0 {
				return nil, fmt.Errorf("no palette: %w", ErrBroken)
			}
			return p, nil
		case "acTL": // of Animated PNG
			p.Animated = true
		case "IHDR", "PLTE", "tRNS", "eXIf":
			if length > maxEXIF {
				return nil, fmt.Errorf("chunk %q of %d bytes: %w", kind, length, ErrBroken)
			}
			data := make([]byte, length)
			if _, err := r.ReadAt(data, at+8); err != nil {
				return nil, err
			}
			if kind == "eXIf" {
				p.turn = turnOf(data)
			} else if err := f.header(kind, data); err != nil {
				return nil, fmt.Errorf("chunk %q: %w", kind, err)
			}
		}
		at += 12 + int64(length)
	}
	return nil, fmt.Errorf("more than %d chunks before the pixels: %w", maxPNGChunks, ErrBroken)
}

// pngChunk reads the head of the chunk at a place: its type and the length of
// its data, which begin eight bytes on.
func pngChunk(r io.ReaderAt, at int64) (kind string, length uint32, err error) {
	var head [8]byte
	if _, err := r.ReadAt(head[:], at); err != nil {
		return "", 0, err
	}
	length = binary.BigEndian.Uint32(head[:])
	if length > 1<<31-1 {
		return "", 0, ErrBroken
	}
	return string(head[4:]), length, nil
}

// header reads the chunks that say how to read the pixels: PNG, 11.2 and 11.3.1.
func (f *pngFile) header(kind string, data []byte) error {
	switch kind {
	case "IHDR":
		return f.readIHDR(data)
	case "PLTE":
		if len(data)%3 != 0 || len(data) > 3*256 || len(data) == 0 {
			return ErrBroken
		}
		f.colours = len(data) / 3
		for i := range f.colours {
			f.palette[i] = [4]byte{data[3*i], data[3*i+1], data[3*i+2], 255}
		}
	case "tRNS":
		switch f.colour {
		case pngGray, pngRGB:
			if len(data) != 2*pngChannels[f.colour] {
				return ErrBroken
			}
			f.key = data
		case pngPalette:
			if len(data) > f.colours {
				return ErrBroken
			}
			for i, a := range data {
				c := &f.palette[i]
				*c = premultiply(c[0], c[1], c[2], a)
			}
		}
	}
	return nil
}

// readIHDR reads size and kind of the picture: PNG, 11.2.1.
func (f *pngFile) readIHDR(data []byte) error {
	if len(data) != 13 {
		return ErrBroken
	}
	width, height := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:])
	depth, colour, interlace := data[8], data[9], data[12]
	if width > maxSide || height > maxSide {
		return fmt.Errorf("%d by %d pixels: %w", width, height, ErrTooLarge)
	}
	if int(colour) >= len(pngDepths) || depth > 16 || pngDepths[colour]&(1<<depth) == 0 || data[10] != 0 || data[11] != 0 || interlace > 1 {
		return ErrBroken
	}
	f.width, f.height = int(width), int(height)
	f.depth, f.colour, f.interlaced = int(depth), int(colour), interlace == 1
	return nil
}

func (f *pngFile) size() (width, height int) { return f.width, f.height }
func (f *pngFile) reducible() bool           { return false }

// rowBytes is the length of a packed row; pixelBytes that of a pixel, at least 1.
func (f *pngFile) rowBytes() int   { return divideUp(f.width*pngChannels[f.colour]*f.depth, 8) }
func (f *pngFile) pixelBytes() int { return divideUp(pngChannels[f.colour]*f.depth, 8) }

// weigh counts two rows, or for an interlaced picture all of it and its largest
// pass, which is half of it, as the standard library decodes it.
func (f *pngFile) weigh(eighths) int64 {
	const inflate = 64 << 10
	rows := 2*int64(f.rowBytes()) + 4*int64(f.width) + inflate
	if !f.interlaced {
		return rows
	}
	pixel := int64(4)
	switch {
	case f.depth == 16:
		pixel = 8
	case f.colour == pngPalette, f.colour == pngGray && f.key == nil:
		pixel = 1
	}
	return rows + int64(f.width)*int64(f.height)*pixel*3/2
}

// decode begins to inflate the pixels.
func (f *pngFile) decode(context.Context, eighths) (*rows, error) {
	if f.interlaced {
		img, err := png.Decode(bufio.NewReader(io.NewSectionReader(f.r, 0, f.r.Size())))
		if err != nil {
			return nil, broken(err)
		}
		return imageRows(img, f.width, f.height)
	}
	z, err := zlib.NewReader(bufio.NewReaderSize(&f.data, 16<<10))
	if err != nil {
		return nil, broken(err)
	}
	row := &pngRow{f: f, now: make([]byte, 1+f.rowBytes()), before: make([]byte, 1+f.rowBytes())}
	return &rows{width: f.width, height: f.height, next: func(dst []byte) error {
		row.now, row.before = row.before, row.now
		if _, err := io.ReadFull(z, row.now); err != nil {
			return broken(err)
		}
		if err := row.unfilter(); err != nil {
			return err
		}
		row.colours(dst)
		return nil
	}}, nil
}

// pngData reads the data of all IDAT chunks, which follow one another.
type pngData struct {
	r    io.ReaderAt
	at   int64
	left uint32 // bytes left in the chunk
}

// Read reads what is left of a chunk, and then of the next.
func (d *pngData) Read(p []byte) (int, error) {
	for empty := 0; d.left == 0; empty++ {
		kind, length, err := pngChunk(d.r, d.at+4)
		if err != nil {
			return 0, err
		}
		if kind != "IDAT" || empty == maxPNGChunks {
			return 0, io.EOF
		}
		d.at, d.left = d.at+12, length
	}
	n, err := d.r.ReadAt(p[:min(len(p), int(d.left))], d.at)
	d.at, d.left = d.at+int64(n), d.left-uint32(n)
	if n > 0 {
		err = nil
	}
	return n, err
}
