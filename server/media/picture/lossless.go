package picture

import (
	"bufio"
	"context"
	"fmt"
	"image"
	"image/color"
	"io"
)

// This file decodes the lossless format of WebP: "WebP" cites RFC 9649, whose
// chapter 3 describes it. lossless_code.go reads bits and prefix codes,
// lossless_transform.go undoes the transforms.

// maxCodeBytes is the most memory that the prefix codes of a picture may take.
// There can be 65,536 groups of five, and a small file can ask for all.
const maxCodeBytes = 6_000_000

// losslessWeight is how many bytes it takes to decode so many pixels: four for
// each, at most a quarter of that again for each of two transforms and the map of
// code groups, which have a value for 4 by 4 pixels at most; and the codes.
func losslessWeight(pixels int64) int64 {
	return 4*pixels + 3*pixels/4 + maxCodeBytes
}

// lossless reads a picture.
type lossless struct {
	bits      losslessBits
	codeBytes int // memory that prefix codes take
}

// decodeLossless decodes a picture behind its header: pixels from the top left on,
// each alpha, red, green and blue from the highest byte down.
func decodeLossless(ctx context.Context, r io.Reader, width, height int) ([]uint32, error) {
	d := &lossless{bits: losslessBits{r: bufio.NewReader(r)}}
	var todo []transform
	var done [4]bool
	coded := width // of the picture as coded: colour indexes are bundled
	for d.bits.read(1) == 1 {
		kind := d.bits.read(2)
		if done[kind] {
			return nil, fmt.Errorf("transform %d twice: %w", kind, ErrBroken)
		}
		done[kind] = true
		t, err := d.readTransform(ctx, kind, coded, height)
		if err != nil {
			return nil, fmt.Errorf("transform %d: %w", kind, err)
		}
		coded = t.codedWidth
		todo = append(todo, t)
	}
	pix := make([]uint32, width*height)
	if err := d.readPixels(ctx, pix[:coded*height], coded, true); err != nil {
		return nil, err
	}
	for i := len(todo) - 1; i >= 0; i-- {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		todo[i].undo(pix, height)
	}
	return pix, nil
}

// groups says which group of prefix codes each pixel is coded with.
type groups struct {
	codes []codeGroup
	bits  uint     // a tile is 1<<bits pixels wide and high
	tiles []uint16 // the group of each tile; nil: there is one group
	width int      // tiles in a row
}

// codeGroup is the prefix codes for green and lengths, red, blue, alpha and
// distances: WebP, 3.7.2.
type codeGroup [5]*prefixCode

// Sizes of the alphabets: WebP, 3.7.2.1.
const (
	literals  = 256
	lengths   = 24
	distances = 40
)

// readPixels reads an entropy-coded picture into pix: WebP, 3.7. The picture
// itself is top and may have several code groups; the small ones within it do
// not.
func (d *lossless) readPixels(ctx context.Context, pix []uint32, width int, top bool) error {
	cacheBits := uint(0)
	if d.bits.read(1) == 1 {
		if cacheBits = uint(d.bits.read(4)); cacheBits < 1 || cacheBits > 11 {
			return fmt.Errorf("colour cache of %d bits: %w", cacheBits, ErrBroken)
		}
	}
	g := groups{}
	indexes := []int{0} // for each group in the file its place in codes, -1 if no tile uses it
	if top && d.bits.read(1) == 1 {
		var err error
		if indexes, err = d.readGroupMap(ctx, &g, width, len(pix)/width); err != nil {
			return fmt.Errorf("map of code groups: %w", err)
		}
	}
	for _, index := range indexes {
		group, err := d.readGroup(cacheBits)
		if err != nil {
			return err
		}
		if index >= 0 {
			g.codes = append(g.codes, group)
			d.codeBytes += group.bytes()
		}
		if d.codeBytes > maxCodeBytes {
			return fmt.Errorf("more than %d bytes of prefix codes: %w", maxCodeBytes, ErrTooLarge)
		}
	}
	return d.readCoded(ctx, pix, width, &g, cacheBits)
}

// readGroupMap reads which group each tile uses: WebP, 3.7.2.2.1. It numbers the
// groups that are used in the order in which the file lists them.
func (d *lossless) readGroupMap(ctx context.Context, g *groups, width, height int) ([]int, error) {
	g.bits = uint(d.bits.read(3)) + 2
	g.width = tiles(width, g.bits)
	pix := make([]uint32, g.width*tiles(height, g.bits))
	if err := d.readPixels(ctx, pix, g.width, false); err != nil {
		return nil, err
	}
	most := uint16(0)
	g.tiles = make([]uint16, len(pix))
	for i, p := range pix {
		g.tiles[i] = uint16(p >> 8) // red and green
		most = max(most, g.tiles[i])
	}
	indexes := make([]int, int(most)+1)
	for _, t := range g.tiles {
		indexes[t] = 1
	}
	used := 0
	for i, u := range indexes {
		indexes[i] = -1
		if u == 1 {
			indexes[i] = used
			used++
		}
	}
	for i, t := range g.tiles {
		g.tiles[i] = uint16(indexes[t])
	}
	return indexes, nil
}

// readGroup reads the five codes of a group.
func (d *lossless) readGroup(cacheBits uint) (codeGroup, error) {
	sizes := [5]int{literals + lengths, literals, literals, literals, distances}
	if cacheBits > 0 {
		sizes[0] += 1 << cacheBits
	}
	var g codeGroup
	for i, size := range sizes {
		code, err := d.bits.readCode(size)
		if err != nil {
			return codeGroup{}, fmt.Errorf("prefix code: %w", err)
		}
		g[i] = code
	}
	return g, nil
}

// readCoded reads pixels: literals, copies of what went before, and colours from
// the cache: WebP, 3.6.
func (d *lossless) readCoded(ctx context.Context, pix []uint32, width int, g *groups, cacheBits uint) error {
	var cache []uint32
	if cacheBits > 0 {
		cache = make([]uint32, 1<<cacheBits)
	}
	cached := 0 // how many pixels went into the cache
	group := &g.codes[0]
	x, y := 0, 0
	for i := 0; i < len(pix); {
		if g.tiles != nil {
			group = &g.codes[g.tiles[(y>>g.bits)*g.width+x>>g.bits]]
		}
		n := 1
		switch green := d.bits.symbol(group[0]); {
		case green < literals:
			red := d.bits.symbol(group[1])
			blue := d.bits.symbol(group[2])
			alpha := d.bits.symbol(group[3])
			pix[i] = uint32(alpha)<<24 | uint32(red)<<16 | uint32(green)<<8 | uint32(blue)
		case green < literals+lengths:
			n = d.bits.extended(green - literals)
			back := backwards(d.bits.extended(d.bits.symbol(group[4])), width)
			if back > i || n > len(pix)-i {
				return fmt.Errorf("a copy of %d pixels from %d back at %d: %w", n, back, i, ErrBroken)
			}
			for j := i; j < i+n; j++ {
				pix[j] = pix[j-back]
			}
		default:
			for ; cached < i; cached++ {
				cache[hashColour(pix[cached], cacheBits)] = pix[cached]
			}
			pix[i] = cache[green-literals-lengths]
		}
		i += n
		for x += n; x >= width; x -= width {
			y++
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if d.bits.err != nil {
			return d.bits.err
		}
	}
	return nil
}

// hashColour is where a colour stands in the cache: WebP, 3.6.3.
func hashColour(argb uint32, bits uint) uint32 { return 0x1E35A7BD * argb >> (32 - bits) }

// near lists how far to the left and up the short distance codes point: WebP,
// 3.6.2.2, high nibble up, low nibble eight less what it is to the left.
var near = [120]uint8{
	0x18, 0x07, 0x17, 0x19, 0x28, 0x06, 0x27, 0x29, 0x16, 0x1a, 0x26, 0x2a, 0x38, 0x05, 0x37, 0x39, 0x15, 0x1b, 0x36, 0x3a,
	0x25, 0x2b, 0x48, 0x04, 0x47, 0x49, 0x14, 0x1c, 0x35, 0x3b, 0x46, 0x4a, 0x24, 0x2c, 0x58, 0x45, 0x4b, 0x34, 0x3c, 0x03,
	0x57, 0x59, 0x13, 0x1d, 0x56, 0x5a, 0x23, 0x2d, 0x44, 0x4c, 0x55, 0x5b, 0x33, 0x3d, 0x68, 0x02, 0x67, 0x69, 0x12, 0x1e,
	0x66, 0x6a, 0x22, 0x2e, 0x54, 0x5c, 0x43, 0x4d, 0x65, 0x6b, 0x32, 0x3e, 0x78, 0x01, 0x77, 0x79, 0x53, 0x5d, 0x11, 0x1f,
	0x64, 0x6c, 0x42, 0x4e, 0x76, 0x7a, 0x21, 0x2f, 0x75, 0x7b, 0x31, 0x3f, 0x63, 0x6d, 0x52, 0x5e, 0x00, 0x74, 0x7c, 0x41,
	0x4f, 0x10, 0x20, 0x62, 0x6e, 0x30, 0x73, 0x7d, 0x51, 0x5f, 0x40, 0x72, 0x7e, 0x61, 0x6f, 0x50, 0x71, 0x7f, 0x60, 0x70,
}

// backwards turns a distance code into a number of pixels.
func backwards(code, width int) int {
	if code > len(near) {
		return code - len(near)
	}
	n := near[code-1]
	return max(int(n>>4)*width+8-int(n&15), 1)
}

// argb is an image.Image of pixels as the lossless format has them.
type argb struct {
	pix  []uint32
	rect image.Rectangle
}

func (p *argb) Bounds() image.Rectangle { return p.rect }
func (p *argb) ColorModel() color.Model { return color.NRGBAModel }
func (p *argb) At(x, y int) color.Color { return p.RGBA64At(x, y) }

// RGBA64At returns a pixel, which must lie in the picture.
func (p *argb) RGBA64At(x, y int) color.RGBA64 {
	v := p.pix[(y-p.rect.Min.Y)*p.rect.Dx()+x-p.rect.Min.X]
	c := premultiply(byte(v>>16), byte(v>>8), byte(v), byte(v>>24))
	return color.RGBA64{R: uint16(c[0]) * 257, G: uint16(c[1]) * 257, B: uint16(c[2]) * 257, A: uint16(c[3]) * 257}
}
