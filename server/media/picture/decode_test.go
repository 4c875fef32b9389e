package picture

import (
	"bytes"
	"context"
	"encoding/binary"
	"image"
	"image/color"
	"image/draw"
	_ "image/gif"
	_ "image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "golang.org/x/image/webp"
)

// openBytes opens a picture that lies in memory.
func openBytes(t testing.TB, data []byte) *Picture {
	t.Helper()
	p, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// readRows decodes a picture as it is stored.
func readRows(t testing.TB, p *Picture, n eighths) *image.RGBA {
	t.Helper()
	in, err := p.stored.decode(context.Background(), n)
	if err != nil {
		t.Fatal(err)
	}
	img := image.NewRGBA(image.Rect(0, 0, in.width, in.height))
	for y := range in.height {
		if err := in.next(img.Pix[y*img.Stride : (y+1)*img.Stride]); err != nil {
			t.Fatalf("row %d: %v", y, err)
		}
	}
	return img
}

// difference is the mean and the largest difference of the colours of two
// pictures of one size.
func difference(t testing.TB, got *image.RGBA, want image.Image) (mean float64, worst int) {
	t.Helper()
	if got.Rect.Size() != want.Bounds().Size() {
		t.Fatalf("size %v, want %v", got.Rect.Size(), want.Bounds().Size())
	}
	sum, corner := 0, want.Bounds().Min
	for y := range got.Rect.Dy() {
		for x := range got.Rect.Dx() {
			g, w := got.RGBAAt(x, y), color.RGBAModel.Convert(want.At(corner.X+x, corner.Y+y)).(color.RGBA)
			for _, d := range []int{int(g.R) - int(w.R), int(g.G) - int(w.G), int(g.B) - int(w.B), int(g.A) - int(w.A)} {
				sum, worst = sum+max(d, -d), max(worst, d, -d)
			}
		}
	}
	return float64(sum) / float64(len(got.Pix)), worst
}

func readFixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// fixtures lists the pictures in testdata.
func fixtures(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(paths) == 0 {
		t.Fatal("no fixtures", err)
	}
	var names []string
	for _, p := range paths {
		if strings.Contains(p, ".") {
			names = append(names, filepath.Base(p))
		}
	}
	return names
}

// Whatever other decoders make of a picture, ours make of it. JPEG decoders may
// round differently; multiplied alpha may be one off.
func TestDecodersAgree(t *testing.T) {
	for _, name := range fixtures(t, "*.*") {
		if name == "animated-lossy.webp" || name == "restart-progressive.jpg" {
			continue // the other decoders here do not read them
		}
		t.Run(name, func(t *testing.T) {
			data := readFixture(t, name)
			want, _, err := image.Decode(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			allowed := 1
			if strings.HasSuffix(name, ".jpg") {
				allowed = 4
			}
			mean, worst := difference(t, readRows(t, openBytes(t, data), 8), want)
			if worst > allowed || mean > 0.3 {
				t.Errorf("differs by %.3f in the mean, %d at worst", mean, worst)
			}
		})
	}
}

// A JPEG picture decoded smaller is what the full picture is when it is made
// smaller, but for what a cosine transform cuts off and colours that are coded
// more coarsely than light.
func TestReducedJPEG(t *testing.T) {
	smooth := image.NewNRGBA(image.Rect(0, 0, 160, 96))
	for y := range 96 {
		for x := range 160 {
			smooth.Set(x, y, color.NRGBA{byte(128 + 50*math.Sin(float64(x)/30)), byte(y + x/2), byte(100 + y/2), 255})
		}
	}
	if mean := reducedDifference(t, encodeJPEG(t, smooth)); mean > 2 {
		t.Errorf("a smooth picture differs by %.2f in the mean", mean)
	}
	for _, name := range fixtures(t, "*.jpg") {
		if mean := reducedDifference(t, readFixture(t, name)); mean > 20 {
			t.Errorf("%s differs by %.2f in the mean", name, mean)
		}
	}
}

// reducedDifference is the largest mean difference of a picture decoded smaller
// and made smaller.
func reducedDifference(t *testing.T, file []byte) (most float64) {
	full := readRows(t, openBytes(t, file), 8)
	for _, n := range []eighths{1, 2, 4} {
		small := readRows(t, openBytes(t, file), n)
		// Compare where the reduced pixels are whole.
		width, height := full.Rect.Dx()*int(n)/8, full.Rect.Dy()*int(n)/8
		part := image.Rect(0, 0, width*8/int(n), height*8/int(n))
		want := image.NewRGBA(image.Rect(0, 0, width, height))
		y := 0
		in := &rows{width: full.Rect.Dx(), height: full.Rect.Dy(), next: func(row []byte) error {
			copy(row, full.Pix[y*full.Stride:])
			y++
			return nil
		}}
		err := shrink(t.Context(), in, part, width, height, func(y int, row []byte) { copy(want.Pix[y*want.Stride:], row) })
		if err != nil {
			t.Fatal(err)
		}
		mean, _ := difference(t, crop(small, want.Rect), want)
		most = max(most, mean)
	}
	return most
}

// crop copies a part of a picture.
func crop(img *image.RGBA, r image.Rectangle) *image.RGBA {
	part := image.NewRGBA(r.Sub(r.Min))
	draw.Draw(part, part.Rect, img, r.Min, draw.Src)
	return part
}

// How a picture is cut into scans and intervals does not change it.
func TestScansDoNotMatter(t *testing.T) {
	want := readRows(t, openBytes(t, readFixture(t, "420.jpg")), 8)
	for _, name := range []string{"420-progressive.jpg", "components.jpg", "restart.jpg", "restart-progressive.jpg"} {
		if _, worst := difference(t, readRows(t, openBytes(t, readFixture(t, name)), 8), want); worst != 0 {
			t.Errorf("%s differs by %d", name, worst)
		}
	}
}

// The source of all fixtures is known, and so it is the same picture in all
// formats, animations included.
func TestFixturesShowTheSource(t *testing.T) {
	source := readRows(t, openBytes(t, readFixture(t, "source.png")), 8)
	for name, allowed := range map[string]float64{
		"444.jpg": 12, "420-progressive.jpg": 14, "rgb.jpg": 14, "cmyk.jpg": 14, "components.jpg": 14, "lossy.webp": 14,
		"lossless.webp": 0, "animated-lossy.webp": 25, "interlaced.gif": 30,
	} {
		if mean, _ := difference(t, readRows(t, openBytes(t, readFixture(t, name)), 8), source); mean > allowed {
			t.Errorf("%s differs from the source by %.2f in the mean", name, mean)
		}
	}
}

// webpChunk is a chunk of a WebP file.
func webpChunk(kind string, data []byte) []byte {
	c := binary.LittleEndian.AppendUint32([]byte(kind), uint32(len(data)))
	c = append(c, data...)
	return append(c, make([]byte, len(data)&1)...)
}

func webpFileOf(chunks ...[]byte) []byte {
	body := append([]byte("WEBP"), bytes.Join(chunks, nil)...)
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...)
}

// The first frame of an animation stands where its header says, on a canvas that
// can be seen through.
func TestAnimatedWebPFrame(t *testing.T) {
	still := readFixture(t, "lossless.webp")[12:]
	source := readRows(t, openBytes(t, readFixture(t, "source.png")), 8)
	width, height := source.Rect.Dx(), source.Rect.Dy()
	const x, y = 6, 4
	frame := append([]byte{x / 2, 0, 0, y / 2, 0, 0, byte(width - 1), 0, 0, byte(height - 1), 0, 0, 1, 0, 0, 0}, still...)
	canvas := []byte{1<<1 | 1<<4, 0, 0, 0, byte(width + 9), 0, 0, byte(height + 9), 0, 0}
	data := webpFileOf(webpChunk("VP8X", canvas), webpChunk("ANIM", make([]byte, 6)), webpChunk("ANMF", frame), webpChunk("ANMF", frame))
	p := openBytes(t, data)
	if !p.Animated || p.Width != width+10 || p.Height != height+10 {
		t.Fatalf("%+v", p)
	}
	got := readRows(t, p, 8)
	if c := got.RGBAAt(x-1, y); c != (color.RGBA{}) {
		t.Errorf("beside the frame: %v", c)
	}
	if _, worst := difference(t, crop(got, source.Rect.Add(image.Pt(x, y))), source); worst != 0 {
		t.Errorf("the frame differs by %d", worst)
	}
	canvas[4] = byte(width) // one pixel less than it takes
	data = webpFileOf(webpChunk("VP8X", canvas), webpChunk("ANMF", frame))
	if _, err := Open(bytes.NewReader(data), int64(len(data))); err == nil {
		t.Error("a frame beyond the canvas is taken")
	}
}

func TestUnfilterAlpha(t *testing.T) {
	const width = 3
	want := []byte{10, 20, 40, 250, 5, 7, 9, 100, 200}
	at := func(i int) int { return int(want[i]) }
	for filter, predict := range []func(i int) int{
		func(int) int { return 0 },
		func(i int) int { return at(i - 1) },
		func(i int) int { return at(i - width) },
		func(i int) int { return max(0, min(255, at(i-1)+at(i-width)-at(i-width-1))) },
	} {
		alpha := make([]byte, len(want))
		for i := range want {
			p := 0
			switch {
			case filter == 0 || i == 0:
			case i < width:
				p = at(i - 1)
			case i%width == 0:
				p = at(i - width)
			default:
				p = predict(i)
			}
			alpha[i] = byte(at(i) - p)
		}
		if unfilterAlpha(alpha, width, byte(filter)); !bytes.Equal(alpha, want) {
			t.Errorf("filter %d: %v, want %v", filter, alpha, want)
		}
	}
}

// Every colour type and depth of PNG that the encoder can write, and those it
// cannot by hand, with every filter.
func TestPNGKinds(t *testing.T) {
	rect := image.Rect(0, 0, 21, 13)
	draw := func(set func(x, y int, c color.Color)) {
		for y := range rect.Max.Y {
			for x := range rect.Max.X {
				set(x, y, color.NRGBA64{uint16(x * 3000), uint16(y * 5000), uint16(x * y * 100), uint16(65535 - x*2500)})
			}
		}
	}
	gray, gray16 := image.NewGray(rect), image.NewGray16(rect)
	rgba, rgba64, nrgba, nrgba64 := image.NewRGBA(rect), image.NewRGBA64(rect), image.NewNRGBA(rect), image.NewNRGBA64(rect)
	images := map[string]image.Image{"gray": gray, "gray16": gray16, "rgba": rgba, "rgba64": rgba64, "nrgba": nrgba, "nrgba64": nrgba64}
	for _, set := range []func(x, y int, c color.Color){gray.Set, gray16.Set, rgba.Set, rgba64.Set, nrgba.Set, nrgba64.Set} {
		draw(set)
	}
	opaque := image.NewNRGBA64(rect)
	draw(func(x, y int, c color.Color) {
		n := c.(color.NRGBA64)
		n.A = 65535
		opaque.Set(x, y, n)
	})
	images["rgb16"] = opaque
	for _, colours := range []int{2, 4, 16, 256} {
		var palette color.Palette
		for i := range colours {
			palette = append(palette, color.NRGBA{byte(i * 250 / colours), byte(i * 90), byte(255 - i), byte(255 - i%3*60)})
		}
		p := image.NewPaletted(rect, palette)
		for i := range p.Pix {
			p.Pix[i] = byte(i % colours)
		}
		images["palette"+string(rune('a'+colours%26))] = p
	}
	for name, img := range images {
		var buf bytes.Buffer
		if err := png.Encode(&buf, img); err != nil {
			t.Fatal(err)
		}
		if mean, worst := difference(t, readRows(t, openBytes(t, buf.Bytes()), 8), img); worst > 1 || mean > 0.5 {
			t.Errorf("%s differs by %.3f in the mean, %d at worst", name, mean, worst)
		}
	}
}
