package picture

import (
	"fmt"
	"image"
)

// A Method is how a picture is fitted to the size asked for.
//
// Spec: CS Content repository, Thumbnails.
type Method string

const (
	// Scale keeps the picture's shape and covers the size asked for.
	Scale Method = "scale"
	// Crop keeps the shape asked for and cuts the picture to it, about its middle.
	Crop Method = "crop"
)

// A Request is the thumbnail that somebody asks for.
type Request struct {
	Width, Height int // pixels, more than 0
	Method        Method
	Animated      bool // whether a thumbnail that moves is welcome
}

// A Plan is the thumbnail that answers a Request.
type Plan struct {
	// Whole tells that the file itself is the answer: the picture is no larger
	// than asked for, or the thumbnail would be larger than any that is made.
	Whole bool
	// Width and Height are the thumbnail's, in pixels.
	Width, Height int
	// Weight is how much memory in bytes making the thumbnail takes at most.
	Weight int64

	crop   image.Rectangle // what of the stored picture is shown
	reduce eighths
}

const (
	// maxThumbnail is the most pixels of a thumbnail; beyond, the file itself is
	// the better answer.
	maxThumbnail = 2_000_000
	// encodeWeight covers what scaling and encoding take besides the pixels.
	encodeWeight = 1_500_000
)

// rungs are the lengths that the longer side of a thumbnail can have, in pixels.
// A size between them is rounded up, so that a picture has few thumbnails
// whatever sizes clients ask for.
var rungs = []int{32, 48, 64, 96, 128, 192, 256, 320, 480, 640, 800, 1200, 1600, 2400, 3200}

// rung rounds a length up to a rung. Lengths beyond the last stand as they are:
// only few are left before maxThumbnail is reached.
func rung(length int) int {
	for _, r := range rungs {
		if r >= length {
			return r
		}
	}
	return length
}

// Plan says which thumbnail answers a request and what it costs. The error wraps
// ErrTooLarge if it costs more than MaxWeight.
//
// "Servers MUST NOT upscale thumbnails under any circumstance. Servers MUST NOT
// return a smaller thumbnail than requested, unless the original content makes
// that impossible." So a picture that is smaller than asked for in either
// direction is its own thumbnail.
func (p *Picture) Plan(req Request) (Plan, error) {
	if req.Width <= 0 || req.Height <= 0 {
		return Plan{}, fmt.Errorf("plan %d by %d pixels: %w", req.Width, req.Height, ErrFormat)
	}
	plan := Plan{Whole: true, Width: p.Width, Height: p.Height}
	crop := image.Rect(0, 0, p.Width, p.Height)
	if req.Width < p.Width && req.Height < p.Height || req.Method == Crop && p.cuts(req) {
		if req.Method == Crop {
			plan.Width, plan.Height = p.cropSize(req)
			crop = p.cropped(plan.Width, plan.Height)
		} else {
			plan.Width, plan.Height = p.scaleSize(req)
		}
		plan.Whole = plan.Width*plan.Height > maxThumbnail || plan.Width == p.Width && plan.Height == p.Height
	}
	// "When false, the server MUST NOT return an animated thumbnail."
	if plan.Whole && p.Animated && !req.Animated {
		plan = Plan{Width: p.Width, Height: p.Height}
		crop = image.Rect(0, 0, p.Width, p.Height)
	}
	if plan.Whole {
		return Plan{Whole: true, Width: p.Width, Height: p.Height}, nil
	}
	plan.crop = p.turn.stored(crop, p.Width, p.Height)
	plan.reduce = p.reduction(plan)
	plan.Weight = p.stored.weigh(plan.reduce) + 4*int64(plan.Width)*int64(plan.Height) + encodeWeight
	if plan.Weight > MaxWeight {
		return Plan{}, fmt.Errorf("plan %d by %d of %d by %d pixels: %d bytes of memory: %w",
			plan.Width, plan.Height, p.Width, p.Height, plan.Weight, ErrTooLarge)
	}
	return plan, nil
}

// cuts tells that the picture is as wide or as high as asked for and larger the
// other way: it needs no scaling, but cutting.
func (p *Picture) cuts(req Request) bool {
	return req.Width == p.Width && req.Height < p.Height || req.Height == p.Height && req.Width < p.Width
}

// scaleSize returns the size of the smallest picture of p's shape that covers
// the request, taken up to a rung and no larger than p.
func (p *Picture) scaleSize(req Request) (width, height int) {
	// The side that shrinks less decides; compare req.Width/p.Width with
	// req.Height/p.Height without dividing.
	if req.Width*p.Height >= req.Height*p.Width {
		width, height = req.Width, divideUp(req.Width*p.Height, p.Width)
	} else {
		width, height = divideUp(req.Height*p.Width, p.Height), req.Height
	}
	long := rung(max(width, height))
	if long >= max(p.Width, p.Height) {
		return p.Width, p.Height
	}
	if p.Width >= p.Height {
		return long, min(divideUp(long*p.Height, p.Width), p.Height)
	}
	return min(divideUp(long*p.Width, p.Height), p.Width), long
}

// cropSize returns the size asked for, in its shape taken up to a rung where
// the picture is large enough for that.
func (p *Picture) cropSize(req Request) (width, height int) {
	long := max(req.Width, req.Height)
	up := rung(long)
	if up == long {
		return req.Width, req.Height
	}
	width, height = divideUp(req.Width*up, long), divideUp(req.Height*up, long)
	if width > p.Width || height > p.Height || width*height > maxThumbnail {
		return req.Width, req.Height
	}
	return width, height
}

// cropped returns the largest part of the picture that has the shape of width by
// height, from its middle. It is at least as large as that.
func (p *Picture) cropped(width, height int) image.Rectangle {
	w, h := p.Width, p.Height
	if w*height > h*width {
		w = min(max((h*width+height/2)/height, width), w)
	} else {
		h = min(max((w*height+width/2)/width, height), h)
	}
	x, y := (p.Width-w)/2, (p.Height-h)/2
	return image.Rect(x, y, x+w, y+h)
}

// reduction returns how small the picture may be decoded so that what is shown of
// it still has at least the thumbnail's pixels.
func (p *Picture) reduction(plan Plan) eighths {
	if !p.stored.reducible() {
		return 8
	}
	width, height := plan.Width, plan.Height
	if p.turn.swaps() {
		width, height = height, width
	}
	for _, n := range []eighths{1, 2, 4} {
		r := n.of(plan.crop)
		if r.Dx() >= width && r.Dy() >= height {
			return n
		}
	}
	return 8
}

// of returns the pixels of a reduced picture that lie within r of the full one.
func (n eighths) of(r image.Rectangle) image.Rectangle {
	k := int(n)
	return image.Rect(divideUp(r.Min.X*k, 8), divideUp(r.Min.Y*k, 8), r.Max.X*k/8, r.Max.Y*k/8)
}

// divideUp returns a/b, rounded up.
func divideUp(a, b int) int { return (a + b - 1) / b }
