package picture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"testing"
)

// made is a picture that is not there: only its size and format count.
type made struct {
	width, height int
	jpeg          bool
}

func (m made) size() (width, height int) { return m.width, m.height }
func (m made) reducible() bool           { return m.jpeg }
func (m made) weigh(n eighths) int64     { return int64(n) }
func (m made) decode(context.Context, eighths) (*rows, error) {
	return nil, errors.New("nothing to decode")
}

func TestPlan(t *testing.T) {
	photo := Picture{Width: 4000, Height: 3000, stored: made{4000, 3000, true}}
	upright := Picture{Width: 3000, Height: 4000, stored: made{4000, 3000, true}, turn: turns[6]}
	small := Picture{Width: 200, Height: 100, stored: made{200, 100, false}}
	moving := Picture{Width: 200, Height: 100, stored: made{200, 100, false}, Animated: true}
	wide := Picture{Width: 30000, Height: 400, stored: made{30000, 400, false}}
	line := Picture{Width: 5000, Height: 1, stored: made{5000, 1, false}}
	tests := []struct {
		name   string
		p      Picture
		req    Request
		width  int // 0: the whole file is the answer
		height int
		reduce eighths
	}{
		// The sizes that the specification recommends.
		{"crop 32", photo, Request{32, 32, Crop, false}, 32, 32, 1},
		{"crop 96", photo, Request{96, 96, Crop, false}, 96, 96, 1},
		{"scale 320", photo, Request{320, 240, Scale, false}, 320, 240, 1},
		{"scale 640", photo, Request{640, 480, Scale, false}, 640, 480, 2},
		{"scale 800", photo, Request{800, 600, Scale, false}, 800, 600, 2},
		{"scale upright", upright, Request{320, 240, Scale, false}, 360, 480, 1},
		{"crop upright", upright, Request{96, 96, Crop, false}, 96, 96, 1},
		// Between the rungs.
		{"rounded up", photo, Request{810, 600, Scale, false}, 1200, 900, 4},
		{"crop rounded up", photo, Request{100, 50, Crop, false}, 128, 64, 1},
		{"height decides", photo, Request{10, 600, Scale, false}, 800, 600, 2},
		{"too large to make", photo, Request{2000, 1500, Scale, false}, 0, 0, 0},
		{"too large to crop", photo, Request{2000, 2000, Crop, false}, 0, 0, 0},
		// Never upscaled.
		{"smaller than asked", small, Request{800, 600, Scale, false}, 0, 0, 0},
		{"as large as asked", small, Request{200, 100, Crop, false}, 0, 0, 0},
		{"lower than asked", small, Request{50, 101, Scale, false}, 0, 0, 0},
		{"lower than asked, crop", small, Request{50, 101, Crop, false}, 0, 0, 0},
		{"cut to the height", small, Request{100, 100, Crop, false}, 100, 100, 8},
		{"no rung left", small, Request{195, 97, Scale, false}, 0, 0, 0},
		{"no rung left, crop", small, Request{195, 97, Crop, false}, 195, 97, 8},
		{"one pixel", small, Request{1, 1, Scale, false}, 32, 16, 8},
		// What moves is not to move unless asked.
		{"still", moving, Request{800, 600, Scale, false}, 200, 100, 8},
		{"moving", moving, Request{800, 600, Scale, true}, 0, 0, 0},
		{"moving, smaller", moving, Request{64, 32, Scale, true}, 64, 32, 8},
		// Odd shapes.
		{"panorama", wide, Request{320, 100, Scale, false}, 7500, 100, 8},
		{"panorama, large", wide, Request{320, 240, Scale, false}, 0, 0, 0},
		{"panorama, crop", wide, Request{96, 96, Crop, false}, 96, 96, 8},
		{"line", line, Request{100, 1, Crop, false}, 100, 1, 8},
		{"huge", photo, Request{math.MaxInt32, math.MaxInt32, Crop, false}, 0, 0, 0},
	}
	for _, tt := range tests {
		plan, err := tt.p.Plan(tt.req)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if plan.Whole != (tt.width == 0) {
			t.Errorf("%s: Whole = %v", tt.name, plan.Whole)
			continue
		}
		if !plan.Whole && (plan.Width != tt.width || plan.Height != tt.height || plan.reduce != tt.reduce) {
			t.Errorf("%s: %d by %d at %d/8, want %d by %d at %d/8",
				tt.name, plan.Width, plan.Height, plan.reduce, tt.width, tt.height, tt.reduce)
		}
	}
	for _, req := range []Request{{0, 1, Scale, false}, {1, -1, Crop, false}} {
		if _, err := photo.Plan(req); err == nil {
			t.Errorf("%v is planned", req)
		}
	}
}

// For every size of picture and request: a thumbnail is no larger than the
// picture and no smaller than asked for unless the picture is; what is cut out
// lies in the picture and has at least the thumbnail's pixels.
func TestPlanHolds(t *testing.T) {
	sizes := []int{1, 2, 3, 7, 31, 32, 33, 100, 640, 3333, 65535}
	for _, w := range sizes {
		for _, h := range sizes {
			if w*h > MaxPixels {
				continue
			}
			for turn := range turns {
				p := Picture{Width: w, Height: h, stored: made{w, h, turn%2 == 0}, turn: turns[turn]}
				if p.turn.swaps() {
					p.stored = made{h, w, turn%2 == 0}
				}
				for _, rw := range sizes {
					for _, rh := range sizes {
						for _, m := range []Method{Scale, Crop} {
							checkPlan(t, &p, Request{rw, rh, m, false})
						}
					}
				}
			}
		}
	}
}

func checkPlan(t *testing.T, p *Picture, req Request) {
	t.Helper()
	plan, err := p.Plan(req)
	if err != nil || plan.Whole {
		return
	}
	if plan.Width > p.Width || plan.Height > p.Height || plan.Width < req.Width || plan.Height < req.Height {
		t.Fatalf("%d by %d for %v: %d by %d", p.Width, p.Height, req, plan.Width, plan.Height)
	}
	w, h := p.stored.size()
	sw, sh := plan.Width, plan.Height
	if p.turn.swaps() {
		sw, sh = sh, sw
	}
	r := plan.crop
	if p.stored.reducible() {
		r, w, h = plan.reduce.of(r), divideUp(w*int(plan.reduce), 8), divideUp(h*int(plan.reduce), 8)
	}
	if !r.In(image.Rect(0, 0, w, h)) || r.Dx() < sw || r.Dy() < sh {
		t.Fatalf("%d by %d for %v: %v of %d by %d cannot become %d by %d", p.Width, p.Height, req, r, w, h, sw, sh)
	}
}

// marked is a picture whose corners differ: red, green, blue and white from the
// top left on.
func marked(width, height int) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			img.Set(x, y, [2][2]color.NRGBA{
				{{255, 0, 0, 255}, {0, 255, 0, 255}}, {{0, 0, 255, 255}, {255, 255, 255, 255}},
			}[2*y/height][2*x/width])
		}
	}
	return img
}

func encodeJPEG(t testing.TB, img image.Image) []byte {
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// exif is EXIF data that hold an orientation.
func exif(order binary.AppendByteOrder, magic string, orientation uint16) []byte {
	b := order.AppendUint32([]byte(magic), 8)
	b = order.AppendUint16(b, 2)
	for _, entry := range [][2]uint16{{0x010F, 7}, {0x0112, orientation}} {
		b = order.AppendUint16(b, entry[0])
		b = order.AppendUint16(b, 3)
		b = order.AppendUint32(b, 1)
		b = order.AppendUint16(b, entry[1])
		b = order.AppendUint16(b, 0)
	}
	return order.AppendUint32(b, 0)
}

// withEXIF puts EXIF data into a JPEG file.
func withEXIF(file, data []byte) []byte {
	data = append([]byte("Exif\x00\x00"), data...)
	segment := binary.BigEndian.AppendUint16([]byte{0xFF, markerAPP1}, uint16(len(data)+2))
	return bytes.Join([][]byte{file[:2], segment, data, file[2:]}, nil)
}

// thumbnail makes a thumbnail and decodes it.
func thumbnail(t testing.TB, data []byte, req Request) image.Image {
	t.Helper()
	p := openBytes(t, data)
	plan, err := p.Plan(req)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Whole {
		t.Fatalf("%v is answered by the whole file", req)
	}
	var buf bytes.Buffer
	format, err := p.Thumbnail(t.Context(), plan, &buf)
	if err != nil {
		t.Fatal(err)
	}
	img, kind, err := image.Decode(&buf)
	if err != nil || "image/"+kind != string(format) {
		t.Fatalf("%s claims to be %s: %v", kind, format, err)
	}
	if size := img.Bounds().Size(); size != image.Pt(plan.Width, plan.Height) {
		t.Fatalf("%v instead of %d by %d", size, plan.Width, plan.Height)
	}
	return img
}

// corners names the colours in the corners of a picture, from the top left on.
func corners(img image.Image) string {
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	s := ""
	for _, at := range []image.Point{{w / 4, h / 4}, {3 * w / 4, h / 4}, {w / 4, 3 * h / 4}, {3 * w / 4, 3 * h / 4}} {
		r, g, b, _ := img.At(at.X, at.Y).RGBA()
		switch {
		case r > 0xC000 && g > 0xC000 && b > 0xC000:
			s += "w"
		case r > 0xC000:
			s += "r"
		case g > 0xC000:
			s += "g"
		case b > 0xC000:
			s += "b"
		default:
			s += "?"
		}
	}
	return s
}

// The EXIF orientations, by which corner the stored picture's come to: EXIF 2.3,
// tag 0x0112.
func TestOrientation(t *testing.T) {
	file := encodeJPEG(t, marked(300, 200))
	want := [9]string{1: "rgbw", 2: "grwb", 3: "wbgr", 4: "bwrg", 5: "rbgw", 6: "brwg", 7: "wgbr", 8: "gwrb"}
	for o := 1; o <= 8; o++ {
		for magic, order := range map[string]binary.AppendByteOrder{"II*\x00": binary.LittleEndian, "MM\x00*": binary.BigEndian} {
			data := withEXIF(file, exif(order, magic, uint16(o)))
			p := openBytes(t, data)
			if swapped := o >= 5; p.Width != 300 && !swapped || p.Width != 200 && swapped {
				t.Errorf("orientation %d: %d by %d", o, p.Width, p.Height)
			}
			for _, req := range []Request{{64, 64, Crop, false}, {30, 30, Scale, false}} {
				if got := corners(thumbnail(t, data, req)); got != want[o] {
					t.Errorf("orientation %d, %v: corners %s, want %s", o, req, got, want[o])
				}
			}
		}
	}
	for name, data := range map[string][]byte{
		"unknown": exif(binary.BigEndian, "MM\x00*", 9), "zero": exif(binary.BigEndian, "MM\x00*", 0),
		"cut off": exif(binary.BigEndian, "MM\x00*", 6)[:20], "no TIFF": []byte("what is this, then?"), "empty": {},
		"far away": {'M', 'M', 0, '*', 0xFF, 0xFF, 0xFF, 0xFF},
	} {
		if got := turnOf(data); got != 0 {
			t.Errorf("%s: turn %d", name, got)
		}
	}
}

// EXIF data of PNG and WebP count like those of JPEG.
func TestOrientationElsewhere(t *testing.T) {
	data := exif(binary.BigEndian, "MM\x00*", 6)
	var buf bytes.Buffer
	if err := png.Encode(&buf, marked(100, 60)); err != nil {
		t.Fatal(err)
	}
	const behindIHDR = 8 + 25
	chunk := append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), "eXIf"...)
	file := bytes.Join([][]byte{buf.Bytes()[:behindIHDR], chunk, data, make([]byte, 4), buf.Bytes()[behindIHDR:]}, nil)
	if p := openBytes(t, file); p.Width != 60 || corners(thumbnail(t, file, Request{30, 30, Crop, false})) != "brwg" {
		t.Errorf("PNG is not turned: %d by %d", p.Width, p.Height)
	}
	still := readFixture(t, "lossless.webp")
	plain := openBytes(t, still)
	canvas := []byte{1 << 3, 0, 0, 0, byte(plain.Width - 1), 0, 0, byte(plain.Height - 1), 0, 0}
	file = webpFileOf(webpChunk("VP8X", canvas), still[12:], webpChunk("XMP ", []byte("x")), webpChunk("EXIF", data))
	if p := openBytes(t, file); p.Width != plain.Height || p.turn != turns[6] {
		t.Errorf("WebP is not turned: %d by %d", p.Width, p.Height)
	}
}

// A thumbnail is the mean of what it covers, of the part that is shown.
func TestThumbnailPixels(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 256, 64))
	for y := range 64 {
		for x := range 256 {
			img.Set(x, y, color.NRGBA{byte(255 * (x & 1)), 200, byte(x), 255})
		}
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		t.Fatal(err)
	}
	got := thumbnail(t, buf.Bytes(), Request{32, 32, Crop, false})
	for x := range 32 {
		r, g, b, _ := got.At(x, 16).RGBA()
		if want := 96 + 2*x; math.Abs(float64(int(b>>8)-want)) > 6 || r>>8 < 120 || r>>8 > 136 || g>>8 < 195 || g>>8 > 205 {
			t.Errorf("pixel %d: %d %d %d, want 128 200 %d", x, r>>8, g>>8, b>>8, want)
		}
	}
	img.Set(10, 10, color.NRGBA{0, 0, 0, 0})
	buf.Reset()
	if err := png.Encode(&buf, img); err != nil {
		t.Fatal(err)
	}
	if _, ok := thumbnail(t, buf.Bytes(), Request{60, 15, Scale, false}).(*image.NRGBA); !ok {
		t.Error("what can be seen through does not stay so")
	}
}

// A GIF's first frame, at its place on the screen, is what is shown.
func TestGIFFirstFrame(t *testing.T) {
	palette := color.Palette{color.Transparent, color.NRGBA{255, 0, 0, 255}, color.NRGBA{0, 255, 0, 255}}
	frame := func(r image.Rectangle, c byte) *image.Paletted {
		p := image.NewPaletted(r, palette)
		for i := range p.Pix {
			p.Pix[i] = c
		}
		return p
	}
	var buf bytes.Buffer
	err := gif.EncodeAll(&buf, &gif.GIF{
		Image:  []*image.Paletted{frame(image.Rect(20, 10, 60, 40), 1), frame(image.Rect(0, 0, 100, 50), 2)},
		Delay:  []int{5, 5},
		Config: image.Config{Width: 100, Height: 50, ColorModel: palette},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := thumbnail(t, buf.Bytes(), Request{400, 400, Scale, false})
	if size := got.Bounds().Size(); size != image.Pt(100, 50) {
		t.Errorf("a still of %v", size)
	}
	if _, _, _, a := got.At(5, 5).RGBA(); a != 0 {
		t.Error("beside the frame the screen is not transparent")
	}
	if r, g, _, a := got.At(30, 20).RGBA(); r != 0xFFFF || g != 0 || a != 0xFFFF {
		t.Error("the frame is not red")
	}
	p := openBytes(t, buf.Bytes())
	if plan, err := p.Plan(Request{400, 400, Scale, true}); err != nil || !plan.Whole {
		t.Errorf("an animation that is wanted: %+v, %v", plan, err)
	}
}

// What is no picture, what is broken and what is too much are told apart.
func TestRefused(t *testing.T) {
	header := func(width, height uint32, depth, colour, interlace byte) []byte {
		b := append([]byte(pngSignature), 0, 0, 0, 13)
		b = append(b, "IHDR"...)
		b = binary.BigEndian.AppendUint32(b, width)
		b = binary.BigEndian.AppendUint32(b, height)
		b = append(b, depth, colour, 0, 0, interlace, 0, 0, 0, 0)
		return append(b, "\x00\x00\x00\x00IDAT\x00\x00\x00\x00"...)
	}
	sof := func(marker byte, width, height uint16) []byte {
		file := encodeJPEG(t, image.NewGray(image.Rect(0, 0, 8, 8)))
		at := bytes.Index(file, []byte{0xFF, markerSOF0})
		if marker == markerSOF2 {
			file = readFixture(t, "420-progressive.jpg")
			at = bytes.Index(file, []byte{0xFF, markerSOF2})
		}
		file[at+1] = marker
		binary.BigEndian.PutUint16(file[at+5:], height)
		binary.BigEndian.PutUint16(file[at+7:], width)
		return file
	}
	photo := encodeJPEG(t, marked(64, 64))
	gif89 := []byte("GIF89a\xff\xff\xff\xff\x00\x00\x00")
	tests := []struct {
		name string
		data []byte
		want error
	}{
		{"empty", nil, ErrFormat},
		{"text", []byte("just text, and a fair amount of it"), ErrFormat},
		{"SVG", []byte("<svg xmlns='http://www.w3.org/2000/svg'/>"), ErrFormat},
		{"random", bytes.Repeat([]byte{0x9A, 0x11, 0xFF}, 100), ErrFormat},
		{"JPEG cut off", photo[:50], ErrBroken},
		{"JPEG cut off in the scan", photo[:len(photo)-20], ErrBroken},
		{"JPEG of arithmetic codes", sof(0xC9, 8, 8), ErrFormat},
		{"JPEG lossless", sof(0xC3, 8, 8), ErrFormat},
		{"JPEG of no height", sof(markerSOF0, 8, 0), ErrBroken},
		{"JPEG bomb", sof(markerSOF0, 65535, 65535), ErrTooLarge},
		{"progressive JPEG bomb", sof(markerSOF2, 30000, 3300), ErrTooLarge},
		{"PNG bomb", header(100_000, 100_000, 8, pngRGBA, 0), ErrTooLarge},
		{"PNG bomb, square", header(20_000, 20_000, 1, pngGray, 0), ErrTooLarge},
		{"interlaced PNG bomb", header(9000, 9000, 16, pngRGBA, 1), ErrTooLarge},
		{"PNG of nothing", header(0, 5, 8, pngRGB, 0), ErrBroken},
		{"PNG without pixels", header(9, 5, 8, pngRGB, 0), ErrBroken},
		{"PNG without palette", header(9, 5, 8, pngPalette, 0), ErrBroken},
		{"PNG of a wrong depth", header(9, 5, 4, pngRGB, 0), ErrBroken},
		{"GIF bomb", gif89, ErrTooLarge},
		{"GIF cut off", gif89[:7], ErrBroken},
		{"WebP of nothing", webpFileOf(), ErrBroken},
		{"WebP bomb", webpFileOf(webpChunk("VP8L", []byte{0x2F, 0xFF, 0xFF, 0xFF, 0x0F})), ErrTooLarge},
		{"large WebP", webpFileOf(webpChunk("VP8L", []byte{0x2F, 0xFF, 0xCF, 0xFF, 0x03, 0})), ErrTooLarge},
		{"WebP cut off", webpFileOf(webpChunk("VP8L", []byte{0x2F, 0x27, 0xC0, 9, 0, 0})), ErrBroken},
	}
	for _, tt := range tests {
		err := tryThumbnail(tt.data, Request{4, 4, Crop, false})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func tryThumbnail(data []byte, req Request) error {
	p, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	plan, err := p.Plan(req)
	if err != nil || plan.Whole {
		return err
	}
	_, err = p.Thumbnail(context.Background(), plan, io.Discard)
	return err
}

// Who gives up gets an answer before the picture is through.
func TestThumbnailEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range []string{"420.jpg", "420-progressive.jpg", "source.png", "lossless.webp"} {
		p := openBytes(t, readFixture(t, name))
		plan, err := p.Plan(Request{20, 20, Crop, false})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Thumbnail(ctx, plan, io.Discard); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A thumbnail of whatever comes ends without panic, and with an error or a
// picture of the size that was planned.
func FuzzThumbnail(f *testing.F) {
	for _, name := range fixtures(f, "*.*") {
		f.Add(readFixture(f, name), uint16(20), uint16(16), true)
	}
	f.Add(withEXIF(encodeJPEG(f, marked(30, 20)), exif(binary.LittleEndian, "II*\x00", 6)), uint16(8), uint16(8), false)
	f.Fuzz(func(t *testing.T, data []byte, width, height uint16, crop bool) {
		req := Request{Width: int(width), Height: int(height), Method: Scale}
		if crop {
			req.Method = Crop
		}
		p, err := Open(bytes.NewReader(data), int64(len(data)))
		if err != nil || p.Width*p.Height > 1<<20 {
			return
		}
		plan, err := p.Plan(req)
		if err != nil || plan.Whole {
			return
		}
		var out bytes.Buffer
		if _, err := p.Thumbnail(t.Context(), plan, &out); err != nil {
			return
		}
		config, _, err := image.DecodeConfig(&out)
		if err != nil || config.Width != plan.Width || config.Height != plan.Height {
			t.Fatal(fmt.Errorf("%d by %d, planned %d by %d: %w", config.Width, config.Height, plan.Width, plan.Height, err))
		}
	})
}
