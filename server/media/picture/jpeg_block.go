package picture

import (
	"math"
	"math/bits"
)

// block is eight rows of eight coefficients, the lowest frequencies first.
type block [64]int32

// limits is, for a picture decoded as so many eighths, the last coefficient in
// zigzag order that counts.
var limits = [9]int{1: 0, 2: 4, 4: 24, 8: 63}

// cosines holds for 1, 2, 4 and 8 points, in this order, what coefficient u adds
// to point i: an inverse cosine transform of that many points, times 1<<12.
//
// The low frequencies of a block of 8 by 8 pixels are, but for a factor, the
// coefficients of the same block in fewer pixels. The factor, points/8, and that
// of the transform, 2/points, cancel out: the scale is the same for all sizes.
var cosines = func() (tables [4][8][8]int32) {
	for t := range tables {
		points := 1 << t
		for i := range points {
			for u := range points {
				scale := 0.5
				if u == 0 {
					scale = math.Sqrt(1.0 / 8)
				}
				c := math.Cos(float64((2*i+1)*u) * math.Pi / float64(2*points))
				tables[t][i][u] = int32(math.Round(scale * c * (1 << 12)))
			}
		}
	}
	return tables
}()

// pixels makes side by side pixels of a block. Input that overflows gives wrong
// pixels and nothing worse.
func (b *block) pixels(dst []byte, stride, side int, quant *[64]uint16) {
	if side == 1 || b.flat(side) {
		v := clamp((b[0]*int32(quant[0])+4)>>3 + 128)
		for y := range side {
			line := dst[y*stride : y*stride+side]
			for x := range line {
				line[x] = v
			}
		}
		return
	}
	basis := &cosines[bits.Len(uint(side))-1]
	var half [64]int32 // transformed from top to bottom, times 1<<4
	for u := range side {
		var column [8]int32
		last := 0
		for v := range side {
			if c := b[8*v+u]; c != 0 {
				column[v] = c * int32(quant[8*v+u])
				last = v
			}
		}
		for y := range side {
			sum := int32(1 << 7)
			for v := 0; v <= last; v++ {
				sum += basis[y][v] * column[v]
			}
			half[8*y+u] = sum >> 8
		}
	}
	for y := range side {
		in, line := half[8*y:8*y+8], dst[y*stride:y*stride+side]
		for x := range line {
			sum := int32(1<<15 + 128<<16)
			for u := range side {
				sum += basis[x][u] * in[u]
			}
			line[x] = clamp(sum >> 16)
		}
	}
}

// flat tells that a block, as far as it counts for side, is of one colour.
func (b *block) flat(side int) bool {
	for v := range side {
		for u := range side {
			if b[8*v+u] != 0 && v+u > 0 {
				return false
			}
		}
	}
	return true
}

// clamp brings v into a byte.
func clamp(v int32) byte {
	if uint32(v) > 255 {
		if v < 0 {
			return 0
		}
		return 255
	}
	return byte(v)
}
