package picture

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// coefficients are the blocks of a component that must be kept until the last
// scan, as a progressive picture refines them and a picture in scans of single
// components has its colours one after the other. Of each block only the low
// frequencies are kept that the reduced picture needs; yet to follow the bits,
// it must be known of all of them whether they are zero.
type coefficients struct {
	side    int      // how many rows and columns of a block are kept
	values  []int16  // side*side for each block
	nonzero []uint64 // a bit for each coefficient of a block, in zigzag order; progressive pictures only
}

// keptWeight returns the bytes that the coefficients of all components take.
func (f *jpegFile) keptWeight(side int) int64 {
	each := int64(2 * side * side)
	if f.progressive {
		each += 8
	}
	var blocks int64
	for i := range f.components {
		blocks += int64(f.components[i].stride) * int64(f.components[i].lines)
	}
	return blocks * each
}

// readKept reads all scans, keeping side rows and columns of each block.
func (f *jpegFile) readKept(ctx context.Context, side int) error {
	for i := range f.components {
		c := &f.components[i]
		blocks := c.stride * c.lines
		c.kept = coefficients{side: side, values: make([]int16, blocks*side*side)}
		if f.progressive {
			c.kept.nonzero = make([]uint64, blocks)
		}
	}
	for scans := 1; ; scans++ {
		if scans > maxScans {
			return fmt.Errorf("more than %d scans: %w", maxScans, ErrTooLarge)
		}
		if err := f.readScan(ctx); err != nil {
			return fmt.Errorf("scan %d: %w", scans, err)
		}
		if err := f.nextScan(); errors.Is(err, io.EOF) {
			break // with or without its EOI marker
		} else if err != nil {
			return err
		}
	}
	for i := range f.components {
		if f.components[i].quant == nil {
			return fmt.Errorf("component %d is in no scan: %w", i, ErrBroken)
		}
	}
	return nil
}

// readScan reads one scan into the kept coefficients.
func (f *jpegFile) readScan(ctx context.Context) error {
	r := f.newScanReader()
	width, height := f.mcusX, f.mcusY
	alone := f.scan.n == 1
	if alone { // its blocks stand in order, without filling up: T.81, A.2.2
		c := &f.components[f.scan.components[0].index]
		width, height = c.blocksX, c.blocksY
	}
	for y := range height {
		if err := ctx.Err(); err != nil {
			return err
		}
		for x := range width {
			if err := r.nextUnit(); err != nil {
				return err
			}
			if alone {
				c := &f.components[f.scan.components[0].index]
				r.keep(0, c, y*c.stride+x)
			} else {
				r.keepUnit(x, y)
			}
			if err := f.in.ended(); err != nil {
				return err
			}
		}
	}
	return nil
}

// scanReader reads the blocks of one scan.
type scanReader struct {
	f     *jpegFile
	in    *jpegBits
	units int // how many units were begun
	// run is how many blocks, with this one, have nothing more in this scan:
	// EOBRUN of T.81, G.1.2.2.
	run int
}

func (f *jpegFile) newScanReader() *scanReader {
	for i := range f.components {
		f.components[i].dc = 0
	}
	return &scanReader{f: f, in: f.in}
}

// nextUnit comes before each MCU: it takes the restart marker where one is due.
func (r *scanReader) nextUnit() error {
	r.units++
	if r.f.restart == 0 || r.units == 1 || (r.units-1)%r.f.restart != 0 {
		return nil
	}
	marker, err := r.in.nextMarker()
	if err != nil {
		return err
	}
	if marker < markerRST0 || marker > markerRST7 {
		return fmt.Errorf("marker %X where a restart is due: %w", marker, ErrBroken)
	}
	r.run = 0
	for i := range r.f.components {
		r.f.components[i].dc = 0
	}
	return nil
}

// keepUnit reads an interleaved MCU.
func (r *scanReader) keepUnit(x, y int) {
	for i := range r.f.scan.n {
		c := &r.f.components[r.f.scan.components[i].index]
		for v := range c.v {
			for h := range c.h {
				r.keep(i, c, (y*c.v+v)*c.stride+x*c.h+h)
			}
		}
	}
}

// keep reads what the scan has of block at of c, which is the scan's component i.
func (r *scanReader) keep(i int, c *jpegComponent, at int) {
	s := &r.f.scan
	switch {
	case !r.f.progressive:
		var b block
		r.sequential(i, c, &b, 63)
		for n, v := range b {
			c.kept.set(at, n, v)
		}
	case s.start > 0 && s.high == 0:
		r.acFirst(s.components[i].ac, &c.kept, at)
	case s.start > 0:
		r.acRefine(s.components[i].ac, &c.kept, at)
	case s.high == 0:
		c.dc += r.in.signed(uint(r.in.symbol(s.components[i].dc)) & 15)
		c.kept.set(at, 0, c.dc<<s.low)
	case r.in.take1():
		c.kept.values[at*c.kept.side*c.kept.side] |= 1 << s.low
	}
}

// sequential reads a whole block: T.81, F.2.2. Coefficients beyond limit, in
// zigzag order, are not stored.
func (r *scanReader) sequential(i int, c *jpegComponent, b *block, limit int) {
	in, ac := r.in, r.f.scan.components[i].ac
	c.dc += in.signed(uint(in.symbol(r.f.scan.components[i].dc)) & 15)
	b[0] = c.dc
	for z := 1; z < 64; z++ {
		sym := in.symbol(ac)
		zeros, size := int(sym>>4), uint(sym&15)
		if size == 0 {
			if zeros < 15 {
				return
			}
			z += 15
			continue
		}
		if z += zeros; z > 63 {
			in.bad = true
			return
		}
		if v := in.signed(size); z <= limit {
			b[zigzag[z]] = v
		}
	}
}

// acFirst reads the first bits of a band of coefficients: T.81, G.1.2.2.
func (r *scanReader) acFirst(ac *huffman, k *coefficients, at int) {
	if r.run > 0 {
		r.run--
		return
	}
	s := &r.f.scan
	for z := s.start; z <= s.end; z++ {
		sym := r.in.symbol(ac)
		zeros, size := int(sym>>4), uint(sym&15)
		if size == 0 {
			if zeros < 15 {
				r.run = 1<<zeros - 1 + int(r.in.bits(uint(zeros)))
				return
			}
			z += 15
			continue
		}
		if z += zeros; z > s.end {
			r.in.bad = true
			return
		}
		k.found(at, z, r.in.signed(size)<<s.low)
	}
}

// acRefine reads one more bit of each coefficient of a band: T.81, G.1.2.3.
// Those that are not zero have a bit each; those that become so are listed.
func (r *scanReader) acRefine(ac *huffman, k *coefficients, at int) {
	s := &r.f.scan
	z := s.start
	for r.run == 0 && z <= s.end {
		sym := r.in.symbol(ac)
		zeros, size := int(sym>>4), sym&15
		if size == 0 && zeros < 15 {
			r.run = 1<<zeros + int(r.in.bits(uint(zeros)))
			break
		}
		var v int32
		if size != 0 {
			if size != 1 {
				r.in.bad = true
				return
			}
			v = -1 << s.low
			if r.in.take1() {
				v = 1 << s.low
			}
		}
		z = r.refine(k, at, z, zeros)
		if v != 0 {
			if z > s.end {
				r.in.bad = true
				return
			}
			k.found(at, z, v)
		}
		z++
	}
	if r.run > 0 {
		r.run--
		r.refine(k, at, z, 64)
	}
}

// refine reads the bit of each coefficient from z on that is not zero. It passes
// over as many zeros as told and returns where the next one stands.
func (r *scanReader) refine(k *coefficients, at, z, zeros int) int {
	for ; z <= r.f.scan.end; z++ {
		if k.nonzero[at]&(1<<z) == 0 {
			if zeros == 0 {
				break
			}
			zeros--
		} else if r.in.take1() {
			k.grow(at, z, 1<<r.f.scan.low)
		}
	}
	return z
}

// set stores the coefficient at place n, 8*row+column, if it is one to keep.
func (k *coefficients) set(at, n int, v int32) {
	if row, column := n>>3, n&7; row < k.side && column < k.side {
		k.values[(at*k.side+row)*k.side+column] = int16(v)
	}
}

// found stores coefficient z of a block in zigzag order, which is not zero.
func (k *coefficients) found(at, z int, v int32) {
	k.nonzero[at] |= 1 << z
	k.set(at, int(zigzag[z]), v)
}

// grow moves coefficient z away from zero by delta.
func (k *coefficients) grow(at, z int, delta int16) {
	row, column := int(zigzag[z]>>3), int(zigzag[z]&7)
	if row >= k.side || column >= k.side {
		return
	}
	v := &k.values[(at*k.side+row)*k.side+column]
	if *v < 0 {
		delta = -delta
	}
	*v += delta
}
