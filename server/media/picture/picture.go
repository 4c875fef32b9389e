// Package picture makes thumbnails of JPEG, PNG, GIF and WebP pictures in little
// memory. It is pure: bytes in, bytes out; it knows no HTTP, no store and no
// user.
//
// Whoever sends a picture may have made it to hurt: a file of a few kilobytes
// can claim to be 65,000 pixels wide and high. So a picture is opened by its
// header alone, the header says what decoding it will cost ([Plan.Weight]), and
// what costs more than [MaxWeight] is refused before a pixel is decoded.
//
// JPEG and PNG, which is what cameras and screens make, go through row by row: a
// picture of any size passes in a few hundred kilobytes, and a JPEG that will
// shrink is not even decoded in full, as its low frequencies are the smaller
// picture. GIF, WebP and interlaced PNG need the whole picture at once and are
// held to the weight.
//
// Spec: CS Content repository, Thumbnails.
package picture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// What a call can meet.
var (
	// ErrFormat is wrapped where the bytes are no picture that can be read here.
	ErrFormat = errors.New("not a picture that can be made smaller here")
	// ErrBroken is wrapped where a picture breaks the rules of its format.
	ErrBroken = errors.New("the picture is damaged")
	// ErrTooLarge is wrapped where a picture would take too much memory or time.
	ErrTooLarge = errors.New("the picture is too large")
)

const (
	// MaxWeight is the most memory in bytes that making one thumbnail may take.
	MaxWeight = 24_000_000
	// MaxPixels is the most pixels a picture may have: they cost time even where
	// they cost no memory.
	MaxPixels = 100_000_000
	// maxSide is the most pixels of a picture in one direction.
	maxSide = 1<<16 - 1
)

// A Format is a picture's media type.
type Format string

const (
	JPEG Format = "image/jpeg"
	PNG  Format = "image/png"
	GIF  Format = "image/gif"
	WebP Format = "image/webp"
)

// A Picture is one whose header has been read. It gives one thumbnail.
type Picture struct {
	Format Format
	// Width and Height are in pixels, as the picture is meant to be seen: after
	// the turn that its EXIF data asks for.
	Width, Height int
	// Animated tells that the picture may move: WebP and PNG say whether they
	// do, a GIF always may.
	Animated bool

	stored coded
	turn   turn
}

// coded is a picture as it lies in its file.
type coded interface {
	// size is the width and height in pixels, before any turn.
	size() (width, height int)
	// reducible tells whether decode heeds its eighths.
	reducible() bool
	// weigh returns how many bytes decode and the rows take together at most.
	weigh(n eighths) int64
	// decode begins to decode the picture, as n eighths of its size if it is
	// reducible. It can be called once.
	decode(ctx context.Context, n eighths) (*rows, error)
}

// eighths is how much of its width and height a picture keeps when it is
// decoded: 1, 2, 4 or 8 eighths.
type eighths int

// rows is a picture that is read once, from its top to its bottom.
type rows struct {
	width, height int
	// next fills row, 4*width bytes, with the next row: red, green, blue and
	// alpha for each pixel, the colours multiplied by alpha. It is called height
	// times at most.
	next func(row []byte) error
}

// Open reads the header of the picture in the first size bytes of r. It detects
// the format by content alone. The error wraps ErrFormat, ErrBroken or
// ErrTooLarge, or is one of r's.
func Open(r io.ReaderAt, size int64) (*Picture, error) {
	var magic [12]byte
	n, err := r.ReadAt(magic[:min(int64(len(magic)), max(size, 0))], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("open picture: %w", err)
	}
	p, err := open(io.NewSectionReader(r, 0, size), magic[:n])
	if err != nil {
		return nil, fmt.Errorf("open picture: %w", truncated(err))
	}
	w, h := p.stored.size()
	if w <= 0 || h <= 0 {
		return nil, fmt.Errorf("open picture: %d by %d pixels: %w", w, h, ErrBroken)
	}
	if w > maxSide || h > maxSide || int64(w)*int64(h) > MaxPixels {
		return nil, fmt.Errorf("open picture: %d by %d pixels: %w", w, h, ErrTooLarge)
	}
	p.Width, p.Height = w, h
	if p.turn.swaps() {
		p.Width, p.Height = h, w
	}
	return p, nil
}

// open has the header read by the format that magic tells.
func open(r *io.SectionReader, magic []byte) (*Picture, error) {
	switch {
	case bytes.HasPrefix(magic, []byte{0xFF, markerSOI, 0xFF}):
		return openJPEG(r)
	case bytes.HasPrefix(magic, []byte(pngSignature)):
		return openPNG(r)
	case bytes.HasPrefix(magic, []byte("GIF87a")), bytes.HasPrefix(magic, []byte("GIF89a")):
		return openGIF(r)
	case len(magic) == 12 && string(magic[:4]) == "RIFF" && string(magic[8:]) == "WEBP":
		return openWebP(r)
	}
	return nil, ErrFormat
}

// truncated says that a file which ends too early is damaged.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it ends too early: %w", ErrBroken)
	}
	return err
}
