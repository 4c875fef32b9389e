package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hearth/server/api"
	"hearth/server/media/picture"
	"hearth/state/matrix"
	"hearth/store"
	"hearth/store/blob"
)

const testServer matrix.ServerName = "hearth.test"

// open returns a repository over a fresh store with one account, and checks the
// store when the test ends.
func open(t *testing.T, config Config) (*Repository, store.UserNum) {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(dir, testServer, store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := st.Check(context.Background(), func(fault string) { t.Errorf("check: %s", fault) })
		if err := errors.Join(err, st.Close()); err != nil {
			t.Error(err)
		}
	})
	var user store.UserNum
	err = st.Update(t.Context(), func(tx *store.Tx) (err error) {
		user, err = tx.CreateAccount("@alice:hearth.test", store.Account{Created: time.Now()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return New(st, config), user
}

// upload stores a file.
func upload(t *testing.T, m *Repository, user store.UserNum, mediaType, name string, content []byte) store.MediaID {
	t.Helper()
	id, err := m.Upload(t.Context(), Upload{User: user, Type: mediaType, Name: name, Body: bytes.NewReader(content), Length: int64(len(content))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.ParseMediaID(string(id)); err != nil {
		t.Fatalf("ID %q: %v", id, err)
	}
	return id
}

// get downloads a file with request headers in pairs.
func get(m *Repository, id store.MediaID, name string, header ...string) (*httptest.ResponseRecorder, error) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	return w, m.Download(w, r, Want{Origin: testServer, ID: id}, name)
}

// blobs counts the files on the disk.
func blobs(t *testing.T, m *Repository) (n int) {
	t.Helper()
	if err := m.blobs.Walk(func(blob.Stat) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUploadAndDownload(t *testing.T) {
	m, user := open(t, Config{})
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	id := upload(t, m, user, "text/plain; charset=utf-8", "notes.txt", content)
	if other := upload(t, m, user, "text/html", "", content); other == id {
		t.Error("an ID is given twice")
	}
	if n := blobs(t, m); n != 1 {
		t.Errorf("equal content takes %d files", n)
	}

	w, err := get(m, id, "")
	if err != nil || w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), content) {
		t.Fatalf("status %d, %d bytes, %v", w.Code, w.Body.Len(), err)
	}
	etag := w.Header().Get("ETag")
	for name, want := range map[string]string{
		"Content-Type":                 "text/plain; charset=utf-8",
		"Content-Length":               "100000",
		"Content-Disposition":          "inline; filename=notes.txt",
		"Cross-Origin-Resource-Policy": "cross-origin",
		"X-Content-Type-Options":       "nosniff",
		"Accept-Ranges":                "bytes",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "sandbox; default-src 'none';") {
		t.Errorf("Content-Security-Policy: %q", csp)
	}
	if cache := w.Header().Get("Cache-Control"); !strings.Contains(cache, "immutable") || !strings.Contains(cache, "private") {
		t.Errorf("Cache-Control: %q", cache)
	}
	if w, err = get(m, id, "", "Range", "bytes=10-14"); err != nil || w.Code != http.StatusPartialContent || w.Body.String() != "01234" {
		t.Errorf("a range: status %d, %q, %v", w.Code, w.Body, err)
	}
	w, err = get(m, id, "", "Range", "bytes=100000-")
	if e := api.AsError(err); e.Status != http.StatusRequestedRangeNotSatisfiable || e.Code != "M_INVALID_PARAM" {
		t.Errorf("a range beyond the end: %v", err)
	}
	if w.Body.Len() != 0 || len(w.Header()["Etag"]) != 0 || w.Header().Get("Content-Range") != "bytes */100000" {
		t.Errorf("a range beyond the end: %v %q", w.Header(), w.Body)
	}
	if w, err = get(m, id, "", "Range", "bytes=0-1,5-6"); err != nil || w.Code != http.StatusPartialContent {
		t.Errorf("two ranges: status %d, %v", w.Code, err)
	}
	if w, err = get(m, id, "", "If-None-Match", etag); err != nil || w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("what is known: status %d, %v", w.Code, err)
	}
	if w, err = get(m, "unknown", ""); !errors.Is(err, api.ErrNotFound) || len(w.Header()) != 0 {
		t.Errorf("an unknown file: %v, %v", err, w.Header())
	}
}

func TestDisposition(t *testing.T) {
	m, user := open(t, Config{})
	for _, tt := range []struct{ mediaType, name, override, served, disposition, filename string }{
		{"image/png", "a.png", "", "image/png", "inline", "a.png"},
		{"IMAGE/PNG", "a.png", "", "IMAGE/PNG", "inline", "a.png"},
		{"image/png", "", "", "image/png", "inline", ""},
		{"image/png", "a.png", "other name;.png", "image/png", "inline", "other name;.png"},
		{"image/svg+xml", "a.svg", "", "image/svg+xml", "attachment", "a.svg"},
		{"text/html", "a.html", "", "text/html", "attachment", "a.html"},
		{"application/pdf", "", "", "application/pdf", "attachment", ""},
		{"", "secret", "", "application/octet-stream", "attachment", "secret"},
		{"no type", "a", "", "application/octet-stream", "attachment", "a"},
		{"text/plain\r\nX-Evil: 1", "a", "", "application/octet-stream", "attachment", "a"},
		{"text/" + strings.Repeat("x", 300), "a", "", "application/octet-stream", "attachment", "a"},
		{"audio/ogg; codecs=opus", "voice.ogg", "", "audio/ogg; codecs=opus", "inline", "voice.ogg"},
		{"image/png", "🐔 Höhne \"x\".png", "", "image/png", "inline", "🐔 Höhne \"x\".png"},
		{"image/png", "evil\r\nX-Evil: 1", "", "image/png", "inline", "evil\r\nX-Evil: 1"},
		{"image/png", "../../etc/passwd", "", "image/png", "inline", "../../etc/passwd"},
	} {
		id := upload(t, m, user, tt.mediaType, tt.name, []byte("content"))
		w, err := get(m, id, tt.override)
		if err != nil {
			t.Fatal(err)
		}
		header := w.Header().Get("Content-Disposition")
		kind, params, err := mime.ParseMediaType(header)
		if err != nil || kind != tt.disposition || params["filename"] != tt.filename || strings.ContainsAny(header, "\r\n") {
			t.Errorf("%q %q: %q, %v", tt.mediaType, tt.name, header, err)
		}
		if got := w.Header().Get("Content-Type"); got != tt.served {
			t.Errorf("%q is served as %q", tt.mediaType, got)
		}
	}
}

// failing is a body that ends with an error.
type failing struct{ err error }

func (f failing) Read(p []byte) (int, error) { return len(p), f.err }

func TestUploadRefused(t *testing.T) {
	const limit = 1000
	m, user := open(t, Config{MaxUpload: limit})
	body := func(n int) io.Reader { return bytes.NewReader(make([]byte, n)) }
	tests := []struct {
		name string
		up   Upload
		want *api.Error
	}{
		{"announced", Upload{Body: body(1001), Length: 1001}, api.ErrTooLarge},
		{"not announced", Upload{Body: body(1001), Length: -1}, api.ErrTooLarge},
		{"endless", Upload{Body: failing{}, Length: -1}, api.ErrTooLarge},
		{"long name", Upload{Body: body(1), Name: strings.Repeat("x", 1025)}, api.ErrInvalidParam},
		{"no text", Upload{Body: body(1), Name: "\xFF"}, api.ErrInvalidParam},
		{"cut off", Upload{Body: io.MultiReader(body(10), failing{io.ErrUnexpectedEOF}), Length: 50}, api.ErrUnknown},
	}
	for _, tt := range tests {
		tt.up.User = user
		if _, err := m.Upload(t.Context(), tt.up); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if n := blobs(t, m); n != 0 {
		t.Errorf("refused uploads left %d files", n)
	}
	left, err := os.ReadDir(filepath.Join(m.store.Dir(), "media", "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("%d temporary files are left, %v", len(left), err)
	}
	upload(t, m, user, "", "", make([]byte, limit))
}

// picturePNG is a picture that is not of one colour.
func picturePNG(t *testing.T, width, height int) []byte {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			img.Set(x, y, color.NRGBA{uint8(x), uint8(y), uint8(x * y), 255})
		}
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func getThumbnail(m *Repository, id store.MediaID, req picture.Request) (*httptest.ResponseRecorder, error) {
	w := httptest.NewRecorder()
	return w, m.Thumbnail(w, httptest.NewRequest(http.MethodGet, "/", nil), Want{Origin: testServer, ID: id}, req)
}

func TestThumbnail(t *testing.T) {
	made := 0
	m, user := open(t, Config{Budget: func(_ context.Context, n int64) (func(), error) {
		if n <= 0 || n > picture.MaxWeight {
			t.Errorf("a thumbnail of %d bytes", n)
		}
		made++
		return func() {}, nil
	}})
	id := upload(t, m, user, "image/png", "a.png", picturePNG(t, 400, 300))
	twin := upload(t, m, user, "application/octet-stream", "b", picturePNG(t, 400, 300))
	for _, file := range []store.MediaID{id, id, twin} {
		w, err := getThumbnail(m, file, picture.Request{Width: 90, Height: 90, Method: picture.Crop})
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(w.Body)
		if err != nil || img.Bounds().Size() != image.Pt(96, 96) {
			t.Errorf("a thumbnail of %v, %v", img.Bounds(), err)
		}
		if got := w.Header().Get("Content-Disposition"); got != "inline; filename=thumbnail.png" {
			t.Errorf("Content-Disposition: %q", got)
		}
		if w.Header().Get("Content-Type") != "image/png" || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("headers %v", w.Header())
		}
	}
	if made != 1 {
		t.Errorf("a thumbnail was made %d times", made)
	}
	w, err := getThumbnail(m, twin, picture.Request{Width: 192, Height: 192, Method: picture.Crop})
	if err != nil || w.Header().Get("Content-Type") != "image/jpeg" || w.Header().Get("Content-Disposition") != "inline; filename=thumbnail.jpg" {
		t.Errorf("a larger thumbnail: %v, %v", w.Header(), err)
	}
	if _, err := jpeg.Decode(w.Body); err != nil {
		t.Errorf("a larger thumbnail: %v", err)
	}
	w, err = getThumbnail(m, twin, picture.Request{Width: 800, Height: 600, Method: picture.Scale})
	if err != nil || w.Header().Get("Content-Type") != "image/png" || w.Header().Get("Content-Disposition") != "inline; filename=thumbnail.png" {
		t.Errorf("a small picture: %v, %v", w.Header(), err)
	}
	for _, file := range []store.MediaID{id, twin} {
		if err := m.Delete(t.Context(), testServer, file); err != nil {
			t.Fatal(err)
		}
	}
	if n := blobs(t, m); n != 0 {
		t.Errorf("%d files are left of what was deleted", n)
	}
}

func TestThumbnailRefused(t *testing.T) {
	m, user := open(t, Config{})
	whole := picturePNG(t, 400, 300)
	bomb := bytes.Clone(whole)
	copy(bomb[16:24], []byte{0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF})
	tests := []struct {
		name    string
		content []byte
		status  int
		code    string
	}{
		{"text", []byte("hello, this is no picture"), http.StatusBadRequest, "M_UNKNOWN"},
		{"bomb", bomb, http.StatusRequestEntityTooLarge, "M_TOO_LARGE"},
		{"cut off", whole[:len(whole)/2], http.StatusBadRequest, "M_UNKNOWN"},
		{"cut off, again", whole[:len(whole)/2], http.StatusBadRequest, "M_UNKNOWN"},
	}
	for _, tt := range tests {
		id := upload(t, m, user, "image/png", "", tt.content)
		_, err := getThumbnail(m, id, picture.Request{Width: 32, Height: 32, Method: picture.Crop})
		var e *api.Error
		if !errors.As(err, &e) || e.Status != tt.status || e.Code != tt.code {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := getThumbnail(m, "unknown", picture.Request{Width: 32, Height: 32}); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("an unknown file: %v", err)
	}
}

// However many ask at once, one thumbnail is made at a time, each of them once.
func TestThumbnailTurns(t *testing.T) {
	var mu sync.Mutex
	now, most, made := 0, 0, 0
	m, user := open(t, Config{Budget: func(context.Context, int64) (func(), error) {
		mu.Lock()
		defer mu.Unlock()
		now++
		made++
		most = max(most, now)
		return func() { mu.Lock(); now--; mu.Unlock() }, nil
	}})
	var ids []store.MediaID
	for i := range 3 {
		ids = append(ids, upload(t, m, user, "image/png", "", picturePNG(t, 200+i, 200)))
	}
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			if _, err := getThumbnail(m, ids[i%3], picture.Request{Width: 32, Height: 32, Method: picture.Crop}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most != 1 || made != 3 {
		t.Errorf("%d thumbnails were made, %d at once", made, most)
	}
	m.waiting.TryAcquire(maxWaiting)
	_, err := getThumbnail(m, ids[0], picture.Request{Width: 64, Height: 64, Method: picture.Crop})
	if !errors.Is(err, api.ErrLimitExceeded) {
		t.Errorf("when too many wait: %v", err)
	}
	m.waiting.Release(maxWaiting)
	m.config.Budget = func(context.Context, int64) (func(), error) { return nil, api.ErrLimitExceeded }
	for range 2 {
		_, err = getThumbnail(m, ids[0], picture.Request{Width: 64, Height: 64, Method: picture.Crop})
		if !errors.Is(err, api.ErrLimitExceeded) {
			t.Errorf("when there is no memory: %v", err)
		}
	}
}

// A sweep removes old blobs that nothing refers to, and nothing else.
func TestSweep(t *testing.T) {
	m, user := open(t, Config{})
	id := upload(t, m, user, "image/png", "", picturePNG(t, 100, 100))
	if _, err := getThumbnail(m, id, picture.Request{Width: 32, Height: 32, Method: picture.Crop}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // uploads whose records a crash has taken
		w, err := m.blobs.Create(100)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(w, "lost %d", i)
		if _, _, err := w.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		later         time.Duration
		removed, left int
	}{{0, 0, 5}, {2 * time.Hour, 3, 2}, {2 * time.Hour, 0, 2}} {
		m.now = func() time.Time { return time.Now().Add(step.later) }
		removed, err := m.sweep(t.Context())
		if left := blobs(t, m); err != nil || removed != step.removed || left != step.left {
			t.Errorf("after %v: %d removed, %d left, %v", step.later, removed, left, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

// Uploads and deletions of the same content at once never leave a record
// without its bytes.
func TestUploadWhileDeleting(t *testing.T) {
	m, user := open(t, Config{})
	content := []byte("the same for all")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 15 {
				id, err := m.Upload(t.Context(), Upload{User: user, Body: bytes.NewReader(content)})
				if err != nil {
					t.Error(err)
					return
				}
				if w, err := get(m, id, ""); err != nil || !bytes.Equal(w.Body.Bytes(), content) {
					t.Errorf("%q, %v", w.Body, err)
				}
				if err := m.Delete(t.Context(), testServer, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := blobs(t, m); n != 0 {
		t.Errorf("%d files are left", n)
	}
}
