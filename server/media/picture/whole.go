package picture

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"io"
)

// This file is about pictures that can only be decoded whole.

// imageRows reads a decoded picture row by row. What img does not cover of a
// picture of width by height is transparent.
func imageRows(img image.Image, width, height int) (*rows, error) {
	wide, ok := img.(image.RGBA64Image) // unlike At, RGBA64At makes no garbage
	if !ok {
		return nil, fmt.Errorf("%T: %w", img, ErrFormat)
	}
	y := 0
	return &rows{width: width, height: height, next: func(row []byte) error {
		r := img.Bounds().Intersect(image.Rect(0, y, width, y+1))
		if r.Dx() < width {
			clear(row)
		}
		for x := r.Min.X; x < r.Max.X; x++ {
			c, p := wide.RGBA64At(x, y), row[4*x:4*x+4:4*x+4]
			p[0], p[1], p[2], p[3] = byte(c.R>>8), byte(c.G>>8), byte(c.B>>8), byte(c.A>>8)
		}
		y++
		return nil
	}}, nil
}

// broken marks an error of a decoder that is not ours.
func broken(err error) error {
	if errors.Is(err, ErrBroken) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBroken, err)
}

// gifFile is a GIF picture, of which the first frame counts.
type gifFile struct {
	r             *io.SectionReader
	width, height int
}

// openGIF reads the size of the logical screen.
func openGIF(r *io.SectionReader) (*Picture, error) {
	var head [10]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return nil, err
	}
	f := &gifFile{r: r}
	f.width, f.height = int(binary.LittleEndian.Uint16(head[6:])), int(binary.LittleEndian.Uint16(head[8:]))
	return &Picture{Format: GIF, Animated: true, stored: f}, nil
}

func (f *gifFile) size() (width, height int) { return f.width, f.height }
func (f *gifFile) reducible() bool           { return false }

// weigh counts a byte for each pixel of the frame, and once more while an
// interlaced one is put in order.
func (f *gifFile) weigh(eighths) int64 { return 2*int64(f.width)*int64(f.height) + 4*int64(f.width) }

func (f *gifFile) decode(context.Context, eighths) (*rows, error) {
	img, err := gif.Decode(bufio.NewReader(io.NewSectionReader(f.r, 0, f.r.Size())))
	if err != nil {
		return nil, broken(err)
	}
	return imageRows(img, f.width, f.height)
}
