package picture

import "context"

// jpegRows makes pixels of a JPEG picture, one row of MCUs at a time.
type jpegRows struct {
	f      *jpegFile
	side   int // pixels that a block gives in either direction: the eighths
	width  int // of the reduced picture
	planes [4]plane
	paint  func(row []byte, lines *[4][]byte)
	load   func(y int) error // fills the planes with row y of MCUs
	unit   int               // the row of MCUs that comes next
	y      int               // the next row of pixels in the planes
	high   int               // how many there are
}

// plane is one component within a row of MCUs.
type plane struct {
	pix    []byte
	stride int
	line   []byte // room for a line that is stretched to the picture's width
}

// weigh counts the planes and the coefficients that must be kept.
func (f *jpegFile) weigh(n eighths) int64 {
	side := int64(n)
	var total int64
	for i := range f.components {
		c := &f.components[i]
		total += int64(c.stride)*side*int64(c.v)*side + int64(f.mcusX*f.hMax)*side
	}
	total += 4 * int64(f.mcusX*f.hMax) * side
	if !f.streams() {
		total += f.keptWeight(int(n))
	}
	return total
}

// newRows allocates the planes.
func (f *jpegFile) newRows(n eighths) *jpegRows {
	r := &jpegRows{f: f, side: int(n), width: divideUp(f.width*int(n), 8), high: f.vMax * int(n), paint: f.painter()}
	r.y = r.high
	for i := range f.components {
		c, p := &f.components[i], &r.planes[i]
		p.stride = c.stride * r.side
		p.pix = make([]byte, p.stride*c.v*r.side)
		if c.h != f.hMax {
			p.line = make([]byte, r.width)
		}
	}
	return r
}

// rows returns the reader of the picture.
func (r *jpegRows) rows() *rows {
	return &rows{width: r.width, height: divideUp(r.f.height*r.side, 8), next: r.next}
}

// streamRows reads the picture from its one scan, as rows are asked for.
func (f *jpegFile) streamRows(n eighths) *rows {
	r, scan := f.newRows(n), f.newScanReader()
	r.load = func(int) error {
		for x := range f.mcusX {
			if err := scan.nextUnit(); err != nil {
				return err
			}
			r.streamUnit(scan, x)
			if err := f.in.ended(); err != nil {
				return err
			}
		}
		return nil
	}
	return r.rows()
}

// streamUnit reads one MCU and makes pixels of it.
func (r *jpegRows) streamUnit(scan *scanReader, x int) {
	for i := range r.f.scan.n {
		index := r.f.scan.components[i].index
		c, p := &r.f.components[index], &r.planes[index]
		for v := range c.v {
			for h := range c.h {
				var b block
				scan.sequential(i, c, &b, limits[r.side])
				b.pixels(p.pix[(v*p.stride+x*c.h+h)*r.side:], p.stride, r.side, c.quant)
			}
		}
	}
}

// keptRows reads the whole picture, then makes pixels of what was kept.
func (f *jpegFile) keptRows(ctx context.Context, n eighths) (*rows, error) {
	if err := f.readKept(ctx, int(n)); err != nil {
		return nil, err
	}
	r := f.newRows(n)
	r.load = func(y int) error {
		for i := range f.components {
			r.loadKept(&f.components[i], &r.planes[i], y)
		}
		return nil
	}
	return r.rows(), nil
}

// loadKept makes pixels of the blocks of c in row y of MCUs.
func (r *jpegRows) loadKept(c *jpegComponent, p *plane, y int) {
	side := r.side
	for v := range c.v {
		for x := range c.stride {
			at := ((y*c.v+v)*c.stride + x) * side * side
			var b block
			for row := range side {
				for column, value := range c.kept.values[at+row*side : at+(row+1)*side] {
					b[8*row+column] = int32(value)
				}
			}
			b.pixels(p.pix[(v*p.stride+x)*side:], p.stride, side, c.quant)
		}
	}
}

// next makes the next row of the picture.
func (r *jpegRows) next(row []byte) error {
	if r.y == r.high {
		if err := r.load(r.unit); err != nil {
			return err
		}
		r.unit, r.y = r.unit+1, 0
	}
	var lines [4][]byte
	for i := range r.f.components {
		c, p := &r.f.components[i], &r.planes[i]
		lines[i] = p.pix[r.y*c.v/r.f.vMax*p.stride:]
		if p.line != nil {
			for x := range p.line {
				p.line[x] = lines[i][x*c.h/r.f.hMax]
			}
			lines[i] = p.line
		}
		lines[i] = lines[i][:r.width]
	}
	r.y++
	r.paint(row, &lines)
	return nil
}

// painter returns what makes colours of the components. The standard does not
// say what they mean; the JFIF and Adobe headers do, and custom.
func (f *jpegFile) painter() func(row []byte, lines *[4][]byte) {
	switch {
	case len(f.components) == 1:
		return paintGray
	case len(f.components) == 3:
		named := f.components[0].id == 'R' && f.components[1].id == 'G' && f.components[2].id == 'B'
		if f.adobe && f.transform == 0 || !f.adobe && !f.jfif && named {
			return paintRGB
		}
		return paintYCbCr
	case f.adobe && f.transform != 0: // YCCK: red, green and blue stand for inks
		return func(row []byte, lines *[4][]byte) {
			paintYCbCr(row, lines)
			for i, v := range row {
				row[i] = 255 - v
			}
			darken(row, lines[3])
		}
	case f.adobe: // Adobe's inks are stored upside down: 255 is none
		return func(row []byte, lines *[4][]byte) {
			paintRGB(row, lines)
			darken(row, lines[3])
		}
	}
	return paintInks
}

// paintInks is for inks as they are: 255 is all of it.
func paintInks(row []byte, lines *[4][]byte) {
	m, y, k := lines[1], lines[2], lines[3]
	for x, c := range lines[0] {
		p := row[4*x : 4*x+4 : 4*x+4]
		light := uint32(255 - k[x])
		p[0] = byte((uint32(255-c)*light + 127) / 255)
		p[1] = byte((uint32(255-m[x])*light + 127) / 255)
		p[2] = byte((uint32(255-y[x])*light + 127) / 255)
		p[3] = 255
	}
}

func paintGray(row []byte, lines *[4][]byte) {
	for x, v := range lines[0] {
		p := row[4*x : 4*x+4 : 4*x+4]
		p[0], p[1], p[2], p[3] = v, v, v, 255
	}
}

func paintRGB(row []byte, lines *[4][]byte) {
	g, b := lines[1], lines[2]
	for x, v := range lines[0] {
		p := row[4*x : 4*x+4 : 4*x+4]
		p[0], p[1], p[2], p[3] = v, g[x], b[x], 255
	}
}

// paintYCbCr follows JFIF, with the factors times 1<<16.
func paintYCbCr(row []byte, lines *[4][]byte) {
	cb, cr := lines[1], lines[2]
	for x, v := range lines[0] {
		y, b, r := int32(v)<<16+1<<15, int32(cb[x])-128, int32(cr[x])-128
		p := row[4*x : 4*x+4 : 4*x+4]
		p[0] = clamp((y + 91881*r) >> 16)
		p[1] = clamp((y - 22554*b - 46802*r) >> 16)
		p[2] = clamp((y + 116130*b) >> 16)
		p[3] = 255
	}
}

// darken takes black ink, of which 255 is none, to the colours of row.
func darken(row, black []byte) {
	for x, k := range black {
		p := row[4*x : 4*x+4 : 4*x+4]
		for i := range 3 {
			p[i] = byte((uint32(p[i])*uint32(k) + 127) / 255)
		}
		p[3] = 255
	}
}
