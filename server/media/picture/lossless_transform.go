package picture

import "context"

// Transforms: WebP, 3.5.
const (
	predictorTransform = iota
	colourTransform
	subtractGreenTransform
	indexTransform
)

// transform is what was done to the pixels before they were coded.
type transform struct {
	kind       int
	width      int      // of the picture before it was done
	codedWidth int      // of the picture after it
	bits       uint     // a tile is 1<<bits pixels wide and high; for indexes, that many pixels are bundled
	pix        []uint32 // what to do in each tile, or the colour table
}

// tiles is how many tiles of 1<<bits pixels it takes for so many pixels.
func tiles(pixels int, bits uint) int { return (pixels + 1<<bits - 1) >> bits }

// readTransform reads a transform of a picture of width by height.
func (d *lossless) readTransform(ctx context.Context, kind, width, height int) (transform, error) {
	t := transform{kind: kind, width: width, codedWidth: width}
	switch kind {
	case predictorTransform, colourTransform:
		t.bits = uint(d.bits.read(3)) + 2
		columns := tiles(width, t.bits)
		t.pix = make([]uint32, columns*tiles(height, t.bits))
		return t, d.readPixels(ctx, t.pix, columns, false)
	case indexTransform:
		colours := d.bits.read(8) + 1
		switch {
		case colours <= 2:
			t.bits = 3
		case colours <= 4:
			t.bits = 2
		case colours <= 16:
			t.bits = 1
		}
		t.codedWidth = tiles(width, t.bits)
		t.pix = make([]uint32, 256) // beyond the table all is transparent black
		if err := d.readPixels(ctx, t.pix[:colours], colours, false); err != nil {
			return transform{}, err
		}
		for i := 1; i < colours; i++ {
			t.pix[i] = addPixels(t.pix[i], t.pix[i-1])
		}
	}
	return t, d.bits.err
}

// undo takes the pixels back to what they were before the transform. For indexes
// pix has room for the result.
func (t *transform) undo(pix []uint32, height int) {
	switch t.kind {
	case predictorTransform:
		t.undoPredictor(pix[:t.width*height])
	case colourTransform:
		t.undoColour(pix[:t.width*height])
	case subtractGreenTransform:
		for i, p := range pix[:t.width*height] {
			green := p >> 8 & 0xFF
			pix[i] = p&0xFF00FF00 | (p&0xFF00FF+green<<16+green)&0xFF00FF
		}
	case indexTransform:
		t.undoIndex(pix, height)
	}
}

// undoIndex looks up colours, from the last to the first, as the indexes lie at
// the front of where the colours go: WebP, 3.5.4.
func (t *transform) undoIndex(pix []uint32, height int) {
	each := uint(8) >> t.bits // bits of an index
	for y := height - 1; y >= 0; y-- {
		for x := t.width - 1; x >= 0; x-- {
			bundle := pix[y*t.codedWidth+x>>t.bits] >> 8 & 0xFF
			within := uint(x) & (1<<t.bits - 1)
			pix[y*t.width+x] = t.pix[bundle>>(within*each)&(1<<each-1)]
		}
	}
}

// undoColour adds what was taken for likeness to green and red: WebP, 3.5.2.
func (t *transform) undoColour(pix []uint32) {
	columns := tiles(t.width, t.bits)
	for i, p := range pix {
		x, y := i%t.width, i/t.width
		m := t.pix[y>>t.bits*columns+x>>t.bits]
		green := p >> 8
		red := p>>16 + likeness(m, green)
		blue := p + likeness(m>>8, green) + likeness(m>>16, red)
		pix[i] = p&0xFF00FF00 | red&0xFF<<16 | blue&0xFF
	}
}

// likeness multiplies two signed bytes, in units of 1/32.
func likeness(a, b uint32) uint32 { return uint32(int32(int8(a)) * int32(int8(b)) >> 5) }

// undoPredictor adds what the neighbours foretell: WebP, 3.5.1.
func (t *transform) undoPredictor(pix []uint32) {
	pix[0] = addPixels(pix[0], 0xFF000000)
	for x := 1; x < t.width; x++ {
		pix[x] = addPixels(pix[x], pix[x-1])
	}
	columns := tiles(t.width, t.bits)
	for at, y := t.width, 1; at < len(pix); at, y = at+t.width, y+1 {
		pix[at] = addPixels(pix[at], pix[at-t.width])
		modes := t.pix[y>>t.bits*columns:]
		for x := 1; x < t.width; x++ {
			i := at + x
			mode := modes[x>>t.bits] >> 8 & 15
			pix[i] = addPixels(pix[i], predict(mode, pix[i-1], pix[i-t.width-1:i-t.width+2]))
		}
	}
}

// predict foretells a pixel from the one on its left and the three above it.
func predict(mode, left uint32, above []uint32) uint32 {
	topLeft, top, topRight := above[0], above[1], above[2]
	switch mode {
	case 1:
		return left
	case 2:
		return top
	case 3:
		return topRight
	case 4:
		return topLeft
	case 5:
		return meanPixel(meanPixel(left, topRight), top)
	case 6:
		return meanPixel(left, topLeft)
	case 7:
		return meanPixel(left, top)
	case 8:
		return meanPixel(topLeft, top)
	case 9:
		return meanPixel(top, topRight)
	case 10:
		return meanPixel(meanPixel(left, topLeft), meanPixel(top, topRight))
	case 11:
		return nearerPixel(left, top, topLeft)
	case 12:
		return eachByte(left, top, topLeft, func(l, t, c int32) int32 { return l + t - c })
	case 13:
		return eachByte(meanPixel(left, top), topLeft, 0, func(m, c, _ int32) int32 { return m + (m-c)/2 })
	}
	return 0xFF000000
}

// addPixels adds byte by byte, without carry.
func addPixels(a, b uint32) uint32 {
	return (a&0xFF00FF00+b&0xFF00FF00)&0xFF00FF00 | (a&0x00FF00FF+b&0x00FF00FF)&0x00FF00FF
}

// meanPixel is the mean, rounded down, byte by byte.
func meanPixel(a, b uint32) uint32 { return a&b + (a^b)&0xFEFEFEFE>>1 }

// nearerPixel returns which of left and top is nearer to left + top - topLeft.
func nearerPixel(left, top, topLeft uint32) uint32 {
	var toLeft, toTop int
	for shift := 0; shift < 32; shift += 8 {
		toLeft += distance(byte(top>>shift), byte(topLeft>>shift))
		toTop += distance(byte(left>>shift), byte(topLeft>>shift))
	}
	if toLeft < toTop {
		return left
	}
	return top
}

// eachByte applies f to the bytes of three pixels and clamps what it gives.
func eachByte(a, b, c uint32, f func(a, b, c int32) int32) uint32 {
	var out uint32
	for shift := 0; shift < 32; shift += 8 {
		v := f(int32(a>>shift&0xFF), int32(b>>shift&0xFF), int32(c>>shift&0xFF))
		out |= uint32(clamp(v)) << shift
	}
	return out
}
