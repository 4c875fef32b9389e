package picture

import (
	"encoding/binary"
	"fmt"
)

// pngRow is two rows of packed samples; the first byte of each is its filter.
type pngRow struct {
	f           *pngFile
	now, before []byte
}

// Filter types: PNG, 9.2.
const (
	filterNone    = 0
	filterSub     = 1
	filterUp      = 2
	filterAverage = 3
	filterPaeth   = 4
)

// unfilter turns differences into samples: PNG, 9.2.
func (r *pngRow) unfilter() error {
	now, before, step := r.now[1:], r.before[1:], r.f.pixelBytes()
	switch r.now[0] {
	case filterNone:
	case filterSub:
		for i := step; i < len(now); i++ {
			now[i] += now[i-step]
		}
	case filterUp:
		for i, b := range before {
			now[i] += b
		}
	case filterAverage:
		for i := range min(step, len(now)) {
			now[i] += before[i] / 2
		}
		for i := step; i < len(now); i++ {
			now[i] += byte((int(now[i-step]) + int(before[i])) / 2)
		}
	case filterPaeth:
		for i := range min(step, len(now)) {
			now[i] += before[i]
		}
		for i := step; i < len(now); i++ {
			now[i] += paeth(now[i-step], before[i], before[i-step])
		}
	default:
		return fmt.Errorf("filter %d: %w", r.now[0], ErrBroken)
	}
	return nil
}

// paeth returns which of left, above and above left is nearest to left + above -
// above left: PNG, 9.4.
func paeth(left, above, corner byte) byte {
	a, b := distance(above, corner), distance(left, corner)
	c := int(left) + int(above) - 2*int(corner)
	c = max(c, -c)
	switch {
	case a <= b && a <= c:
		return left
	case b <= c:
		return above
	}
	return corner
}

func distance(a, b byte) int { return max(int(a)-int(b), int(b)-int(a)) }

// colours unpacks the row's pixels into dst, four bytes each.
func (r *pngRow) colours(dst []byte) {
	now, f := r.now[1:], r.f
	if f.depth < 8 {
		r.packed(dst)
		return
	}
	wide := f.depth / 8 // bytes of a sample, of which the first is enough to see
	channels := pngChannels[f.colour]
	for x := range f.width {
		in, out := now[x*channels*wide:(x+1)*channels*wide], dst[4*x:4*x+4:4*x+4]
		switch f.colour {
		case pngGray:
			out[0], out[1], out[2], out[3] = in[0], in[0], in[0], 255
		case pngRGB:
			out[0], out[1], out[2], out[3] = in[0], in[wide], in[2*wide], 255
		case pngPalette:
			copy(out, f.palette[in[0]][:])
		case pngGrayAlpha:
			c := premultiply(in[0], in[0], in[0], in[wide])
			copy(out, c[:])
		case pngRGBA:
			c := premultiply(in[0], in[wide], in[2*wide], in[3*wide])
			copy(out, c[:])
		}
		if f.key != nil && f.isKey(in, wide) {
			clear(out)
		}
	}
}

// isKey tells that a pixel has the colour that stands for transparent.
func (f *pngFile) isKey(pixel []byte, wide int) bool {
	for i := 0; i < len(f.key); i += 2 {
		sample := uint16(pixel[i/2*wide])
		if wide == 2 {
			sample = binary.BigEndian.Uint16(pixel[i:])
		}
		if sample != binary.BigEndian.Uint16(f.key[i:]) {
			return false
		}
	}
	return true
}

// packed is colours for samples of 1, 2 and 4 bits: gray or from the palette.
func (r *pngRow) packed(dst []byte) {
	f, now := r.f, r.now[1:]
	most := byte(1<<f.depth - 1)
	for x := range f.width {
		bit := x * f.depth
		v := now[bit/8] >> (8 - f.depth - bit%8) & most
		out := dst[4*x : 4*x+4 : 4*x+4]
		switch {
		case f.colour == pngPalette:
			copy(out, f.palette[v][:])
		case f.key != nil && uint16(v) == binary.BigEndian.Uint16(f.key):
			clear(out)
		default:
			gray := v * (255 / most)
			out[0], out[1], out[2], out[3] = gray, gray, gray, 255
		}
	}
}

// premultiply multiplies a colour by its alpha.
func premultiply(r, g, b, a byte) [4]byte {
	if a == 255 {
		return [4]byte{r, g, b, a}
	}
	m := func(c byte) byte { return byte((uint32(c)*uint32(a) + 127) / 255) }
	return [4]byte{m(r), m(g), m(b), a}
}
