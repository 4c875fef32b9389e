package picture

import (
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
)

// jpegQuality is what thumbnails are encoded with, from 1 to 100.
const jpegQuality = 80

// maxLossless is the most pixels of a PNG's thumbnail that is a PNG as well: the lines of
// a drawing stay sharp, and it has 50 kB at most.
const maxLossless = 128 * 128

// Thumbnail makes the thumbnail of a plan that Plan returned and writes it to w:
// as JPEG, or as PNG if it can be seen through or is a small one of a PNG. It can be
// called once. The error wraps ErrBroken or ErrTooLarge, or is ctx's, w's or that of
// the reader given to Open. What has been written before an error is worth nothing.
func (p *Picture) Thumbnail(ctx context.Context, plan Plan, w io.Writer) (Format, error) {
	in, err := p.stored.decode(ctx, plan.reduce)
	if err != nil {
		return "", fmt.Errorf("decode %s: %w", p.Format, truncated(err))
	}
	out := image.NewRGBA(image.Rect(0, 0, plan.Width, plan.Height))
	width, height := plan.Width, plan.Height
	if p.turn.swaps() {
		width, height = height, width
	}
	crop := plan.crop
	if p.stored.reducible() {
		crop = plan.reduce.of(crop)
	}
	place := func(y int, row []byte) { p.turn.place(out, y, row) }
	if err := shrink(ctx, in, crop, width, height, place); err != nil {
		return "", fmt.Errorf("decode %s: %w", p.Format, truncated(err))
	}
	lossless := p.Format == PNG && plan.Width*plan.Height <= maxLossless
	if out.Opaque() && !lossless {
		return JPEG, jpeg.Encode(w, out, &jpeg.Options{Quality: jpegQuality})
	}
	return PNG, png.Encode(w, out)
}

// shrink reads a picture and hands on its part within crop, made width by height
// pixels, a row at a time. Each pixel of the result is the mean of the area that
// it covers; the result must not be larger than crop.
//
// All is in whole numbers: a row that is read counts as high as the result has
// rows, and a row of the result is full when it has gathered crop's height of
// that. The same holds for columns.
func shrink(ctx context.Context, in *rows, crop image.Rectangle, width, height int, emit func(y int, row []byte)) error {
	row := make([]byte, 4*in.width)
	line := make([]uint32, 4*width)
	sums := make([]uint32, 4*width)
	full := uint32(crop.Dy())
	need, y := full, 0
	for i := range crop.Max.Y {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := in.next(row); err != nil {
			return err
		}
		if i < crop.Min.Y {
			continue
		}
		narrow(line, row[4*crop.Min.X:4*crop.Max.X])
		for left := uint32(height); left > 0; {
			take := min(left, need)
			for j, v := range line {
				sums[j] += v * take
			}
			left -= take
			if need -= take; need == 0 {
				emit(y, level(row[:0], sums, full))
				need, y = full, y+1
			}
		}
	}
	return nil
}

// narrow makes the pixels of row as few as dst has places. It gives 16 bits for
// each 8 of row.
func narrow(dst []uint32, row []byte) {
	if len(dst) == len(row) {
		for i, v := range row {
			dst[i] = uint32(v) * 257
		}
		return
	}
	width, full := uint32(len(dst)/4), uint32(len(row)/4)
	var r, g, b, a uint32 // at most 255 * maxSide, times 257: within 32 bits
	need, j := full, 0
	for i := 0; i+3 < len(row); i += 4 {
		p := row[i : i+4 : i+4]
		take := min(width, need)
		r, g, b, a = r+uint32(p[0])*take, g+uint32(p[1])*take, b+uint32(p[2])*take, a+uint32(p[3])*take
		if need -= take; need > 0 {
			continue
		}
		d := dst[j : j+4 : j+4]
		d[0], d[1], d[2], d[3] = r*257/full, g*257/full, b*257/full, a*257/full
		rest := width - take // as dst is narrower than row, rest is less than full
		r, g, b, a = uint32(p[0])*rest, uint32(p[1])*rest, uint32(p[2])*rest, uint32(p[3])*rest
		need, j = full-rest, j+4
	}
}

// level appends to row the means of sums that have gathered full, in 8 bits, and
// clears the sums.
func level(row []byte, sums []uint32, full uint32) []byte {
	for i, s := range sums {
		row = append(row, byte((s/full+128)/257))
		sums[i] = 0
	}
	return row
}
