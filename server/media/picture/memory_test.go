package picture

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// photo is a picture of width by height that does not compress to nothing. It is
// drawn as it is read, so that a test needs no memory for it.
type photo struct {
	width, height int
	alpha         uint8
}

func (p photo) Bounds() image.Rectangle { return image.Rect(0, 0, p.width, p.height) }
func (p photo) ColorModel() color.Model { return color.NRGBAModel }
func (p photo) At(x, y int) color.Color {
	n := uint32(x*7919+y*104729) * 2654435761 >> 28
	return color.NRGBA{uint8(x>>4) + uint8(n), uint8(y>>4) + uint8(n), uint8((x + y) >> 5), p.alpha}
}

// writeFile encodes a picture to a file and opens that.
func writeFile(t testing.TB, name string, encode func(io.Writer) error) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := encode(f); err != nil {
		t.Fatal(err)
	}
	return f
}

func openFile(t testing.TB, f *os.File) *Picture {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func encodePNG(img image.Image) func(io.Writer) error {
	return func(w io.Writer) error { return (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(w, img) }
}

// A picture takes no more memory than its plan says, even if nothing that it
// has used is given back before it is done.
func TestWeightHolds(t *testing.T) {
	check := func(name string, p *Picture, req Request) {
		plan, err := p.Plan(req)
		if err != nil || plan.Whole {
			t.Errorf("%s: %+v, %v", name, plan, err)
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := p.Thumbnail(context.Background(), plan, io.Discard); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		used := int64(after.TotalAlloc - before.TotalAlloc)
		t.Logf("%-30s %4d by %-4d at %d/8: %9d bytes of %9d", name, plan.Width, plan.Height, plan.reduce, used, plan.Weight)
		if used > plan.Weight || plan.Weight > MaxWeight {
			t.Errorf("%s: %d bytes instead of %d", name, used, plan.Weight)
		}
	}
	for _, name := range fixtures(t, "*.*") {
		check(name, openBytes(t, readFixture(t, name)), Request{30, 30, Crop, false})
	}
	large := writeFile(t, "large.png", encodePNG(photo{3000, 1000, 255}))
	check("3 MP PNG", openFile(t, large), Request{640, 480, Crop, false})
	var jpg bytes.Buffer
	jpg.Write(encodeJPEG(t, photo{2000, 1500, 255}))
	for _, size := range []int{32, 320, 800, 1200} {
		check("3 MP JPEG", openBytes(t, jpg.Bytes()), Request{size, size, Crop, false})
	}
}

// BenchmarkThumbnail12MP makes a thumbnail of 800 by 600 pixels from a picture of
// 12 megapixels. It reports by how much the process has grown at most, peak-MB of
// resident memory; the heap cannot grow by more than the B/op that it allocates.
func BenchmarkThumbnail12MP(b *testing.B) {
	files := map[string]*os.File{
		"JPEG": writeFile(b, "photo.jpg", func(w io.Writer) error {
			_, err := w.Write(encodeJPEG(b, photo{4000, 3000, 255}))
			return err
		}),
		"PNG":      writeFile(b, "photo.png", encodePNG(photo{4000, 3000, 255})),
		"PNGAlpha": writeFile(b, "alpha.png", encodePNG(photo{4000, 3000, 200})),
	}
	for _, name := range []string{"JPEG", "PNG", "PNGAlpha"} {
		b.Run(name, func(b *testing.B) { benchmarkThumbnail(b, files[name]) })
	}
}

func benchmarkThumbnail(b *testing.B, f *os.File) {
	debug.FreeOSMemory()
	resident := status(b, "VmRSS:")
	os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // the peak counts from here on
	b.ReportAllocs()
	for b.Loop() {
		p := openFile(b, f)
		plan, err := p.Plan(Request{800, 600, Scale, false})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Thumbnail(b.Context(), plan, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(status(b, "VmHWM:")-resident)/1e3, "peak-MB")
}

// status reads a figure of /proc/self/status, in kilobytes; 0 where there is none.
func status(b *testing.B, name string) int {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), name)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		b.Fatal(err)
	}
	return n
}
