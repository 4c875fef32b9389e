package picture

import (
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"io"

	"golang.org/x/image/vp8"
)

// This file reads the container of WebP files: "WebP" cites RFC 9649. Lossy
// frames go to the vp8 package; lossless ones, and alpha compressed like them,
// are decoded here (lossless.go), as the package for them can be made to take a
// hundred times the memory that it should.

// maxWebPChunks is the most chunks of a file that are looked at.
const maxWebPChunks = 256

// webpFile is a WebP picture, of which the first frame counts.
type webpFile struct {
	r             *io.SectionReader
	width, height int   // of the canvas; 0 until known
	frame         frame // the first
	exif          chunk
}

// frame is one still picture on the canvas.
type frame struct {
	rect   image.Rectangle
	data   chunk // "VP8 " or "VP8L"
	alpha  chunk // "ALPH"; kind is empty if there is none
	method byte  // how alpha is filtered and compressed: WebP, 2.7.1.2
}

// chunk is a chunk of a file: its kind and where its data are.
type chunk struct {
	kind     string
	at, size int64
}

// openWebP reads the container up to and with the first frame, and on to the
// EXIF data if there are any.
func openWebP(r *io.SectionReader) (*Picture, error) {
	f := &webpFile{r: r}
	p := &Picture{Format: WebP, stored: f}
	var wantEXIF bool
	for at, n := int64(12), 0; n < maxWebPChunks; n++ {
		c, next, err := f.chunk(at, r.Size())
		if err != nil && f.frame.data.kind != "" {
			break // only the EXIF data are missing
		}
		if err != nil {
			return nil, err
		}
		at = next
		switch c.kind {
		case "VP8X":
			if p.Animated, wantEXIF, err = f.extended(c); err != nil {
				return nil, err
			}
		case "ANMF":
			if f.frame.data.kind == "" {
				if err := f.animation(c); err != nil {
					return nil, err
				}
			}
		case "EXIF":
			p.turn, wantEXIF = f.turn(c), false
		default:
			if f.frame.data.kind == "" {
				if err := f.still(c); err != nil {
					return nil, err
				}
			}
		}
		if f.frame.data.kind != "" && !wantEXIF {
			break
		}
	}
	return p, f.check()
}

// chunk reads the head of the chunk at a place, which must lie before end, and
// says where the next one is.
func (f *webpFile) chunk(at, end int64) (c chunk, next int64, err error) {
	var head [8]byte
	if at+8 > end {
		return chunk{}, 0, io.ErrUnexpectedEOF
	}
	if _, err := f.r.ReadAt(head[:], at); err != nil {
		return chunk{}, 0, err
	}
	c = chunk{kind: string(head[:4]), at: at + 8, size: int64(binary.LittleEndian.Uint32(head[4:]))}
	if c.at+c.size > end {
		return chunk{}, 0, io.ErrUnexpectedEOF
	}
	return c, c.at + c.size + c.size&1, nil
}

// read returns the first n bytes of a chunk.
func (f *webpFile) read(c chunk, n int64) ([]byte, error) {
	if c.size < n {
		return nil, fmt.Errorf("chunk %q of %d bytes: %w", c.kind, c.size, ErrBroken)
	}
	data := make([]byte, n)
	_, err := f.r.ReadAt(data, c.at)
	return data, err
}

// extended reads the header of the extended format: WebP, 2.7.
func (f *webpFile) extended(c chunk) (animated, exif bool, err error) {
	data, err := f.read(c, 10)
	if err != nil {
		return false, false, err
	}
	const (
		animationFlag = 1 << 1
		exifFlag      = 1 << 3
	)
	f.width, f.height = 1+uint24(data[4:]), 1+uint24(data[7:])
	return data[0]&animationFlag != 0, data[0]&exifFlag != 0, nil
}

// animation reads the first frame of an animation: WebP, 2.7.1.1.
func (f *webpFile) animation(c chunk) error {
	data, err := f.read(c, 16)
	if err != nil {
		return err
	}
	x, y := 2*uint24(data), 2*uint24(data[3:])
	for at, n := c.at+16, 0; n < maxWebPChunks && f.frame.data.kind == ""; n++ {
		part, next, err := f.chunk(at, c.at+c.size)
		if err != nil {
			return err
		}
		if err := f.still(part); err != nil {
			return err
		}
		at = next
	}
	size := f.frame.rect.Size()
	if size.X != 1+uint24(data[6:]) || size.Y != 1+uint24(data[9:]) {
		return fmt.Errorf("a frame of %v: %w", size, ErrBroken)
	}
	f.frame.rect = f.frame.rect.Add(image.Pt(x, y))
	return nil
}

// still reads the chunks that a still picture or a frame consists of.
func (f *webpFile) still(c chunk) error {
	switch c.kind {
	case "ALPH":
		data, err := f.read(c, 1)
		if err != nil {
			return err
		}
		f.frame.alpha, f.frame.method = chunk{c.kind, c.at + 1, c.size - 1}, data[0]
	case "VP8 ":
		data, err := f.read(c, 10)
		if err != nil {
			return err
		}
		f.frame.data = c
		f.frame.rect.Max = image.Pt(
			int(binary.LittleEndian.Uint16(data[6:])&0x3FFF), int(binary.LittleEndian.Uint16(data[8:])&0x3FFF))
	case "VP8L":
		data, err := f.read(c, 5)
		if err != nil {
			return err
		}
		head := binary.LittleEndian.Uint32(data[1:])
		if data[0] != 0x2F || head>>29 != 0 {
			return fmt.Errorf("lossless version %d: %w", head>>29, ErrBroken)
		}
		f.frame.data = chunk{c.kind, c.at + 5, c.size - 5}
		f.frame.rect.Max = image.Pt(1+int(head&0x3FFF), 1+int(head>>14&0x3FFF))
	}
	return nil
}

// turn reads the orientation in EXIF data.
func (f *webpFile) turn(c chunk) turn {
	data, err := f.read(c, min(c.size, maxEXIF))
	if err != nil {
		return 0
	}
	return turnOf(data)
}

// check says whether there is a frame and it lies on the canvas.
func (f *webpFile) check() error {
	if f.frame.data.kind == "" {
		return fmt.Errorf("no picture in the file: %w", ErrBroken)
	}
	if f.width == 0 {
		f.width, f.height = f.frame.rect.Dx(), f.frame.rect.Dy()
	}
	if f.frame.rect.Empty() || !f.frame.rect.In(image.Rect(0, 0, f.width, f.height)) {
		return fmt.Errorf("a frame of %v on a canvas of %d by %d: %w", f.frame.rect, f.width, f.height, ErrBroken)
	}
	return nil
}

func (f *webpFile) size() (width, height int) { return f.width, f.height }
func (f *webpFile) reducible() bool           { return false }

// compressed tells that the alpha of the frame is a lossless picture.
func (f *frame) compressed() bool { return f.alpha.kind != "" && f.method&3 == 1 }

// weigh counts what the decoders hold at once.
func (f *webpFile) weigh(eighths) int64 {
	width, height := int64(f.frame.rect.Dx()+15)&^15, int64(f.frame.rect.Dy()+15)&^15
	pixels := width * height
	total := 4 * int64(f.width)
	if f.frame.data.kind == "VP8L" {
		return total + losslessWeight(pixels)
	}
	// Three planes, the compressed data, and a little for each block of 16 by 16.
	total += pixels*3/2 + f.frame.data.size + pixels/16
	if f.frame.alpha.kind != "" {
		total += pixels
	}
	if f.frame.compressed() {
		total += losslessWeight(pixels)
	}
	return total
}

func (f *webpFile) decode(ctx context.Context, _ eighths) (*rows, error) {
	img, err := f.frame.decode(ctx, f.r)
	if err != nil {
		return nil, broken(err)
	}
	return imageRows(img, f.width, f.height)
}

// decode decodes a frame, at its place on the canvas.
func (f *frame) decode(ctx context.Context, r io.ReaderAt) (image.Image, error) {
	data := io.NewSectionReader(r, f.data.at, f.data.size)
	width, height := f.rect.Dx(), f.rect.Dy()
	if f.data.kind == "VP8L" {
		pix, err := decodeLossless(ctx, data, width, height)
		return &argb{pix: pix, rect: f.rect}, err
	}
	alpha, err := f.decodeAlpha(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("alpha: %w", err)
	}
	d := vp8.NewDecoder()
	d.Init(data, int(f.data.size))
	if _, err := d.DecodeFrameHeader(); err != nil {
		return nil, err
	}
	img, err := d.DecodeFrame()
	if err != nil {
		return nil, err
	}
	img.Rect = f.rect // the planes are read relative to its corner
	if alpha == nil {
		return img, nil
	}
	return &image.NYCbCrA{YCbCr: *img, A: alpha, AStride: width}, nil
}

// decodeAlpha decodes the alpha of a lossy frame, nil if there is none: WebP,
// 2.7.1.2.
func (f *frame) decodeAlpha(ctx context.Context, r io.ReaderAt) ([]byte, error) {
	if f.alpha.kind == "" {
		return nil, nil
	}
	width, height := f.rect.Dx(), f.rect.Dy()
	data := io.NewSectionReader(r, f.alpha.at, f.alpha.size)
	alpha := make([]byte, width*height)
	switch f.method & 3 {
	case 0:
		if _, err := io.ReadFull(data, alpha); err != nil {
			return nil, err
		}
	case 1:
		pix, err := decodeLossless(ctx, data, width, height)
		if err != nil {
			return nil, err
		}
		for i, p := range pix {
			alpha[i] = byte(p >> 8) // it stands where green does
		}
	default:
		return nil, fmt.Errorf("compression %d: %w", f.method&3, ErrBroken)
	}
	unfilterAlpha(alpha, width, f.method>>2&3)
	return alpha, nil
}

// unfilterAlpha turns differences into alpha: WebP, 2.7.1.2. The first row is
// predicted from the left, the first column from above.
func unfilterAlpha(alpha []byte, width int, filter byte) {
	if filter == 0 {
		return
	}
	for i := 1; i < len(alpha); i++ {
		switch {
		case i < width:
			alpha[i] += alpha[i-1]
		case i%width == 0 || filter == 2:
			alpha[i] += alpha[i-width]
		case filter == 1:
			alpha[i] += alpha[i-1]
		default:
			alpha[i] += clamp(int32(alpha[i-1]) + int32(alpha[i-width]) - int32(alpha[i-width-1]))
		}
	}
}

// uint24 reads three bytes, the lowest first.
func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }
