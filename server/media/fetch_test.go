package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hearth/server/api"
	"hearth/server/media/picture"
	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
)

const far matrix.ServerName = "far.test"

// elsewhere is another server with files.
type elsewhere struct {
	err   error // of every request
	gate  chan struct{}
	asked atomic.Int32

	mu    sync.Mutex // guards files
	files map[store.MediaID]remote.File
}

func (e *elsewhere) fetch(ctx context.Context, origin matrix.ServerName, id store.MediaID, q remote.MediaQuery) (*remote.File, error) {
	e.asked.Add(1)
	if e.gate != nil {
		select {
		case <-e.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	file, known := e.files[id]
	switch {
	case e.err != nil:
		return nil, e.err
	case !known:
		return nil, fmt.Errorf("GET: %w", &remote.Error{Server: origin, Status: http.StatusNotFound, Code: "M_NOT_FOUND"})
	}
	content, err := io.ReadAll(file.Body)
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > q.MaxBytes {
		return &remote.File{Body: io.NopCloser(broken{remote.ErrFileTooLarge})}, nil
	}
	file.Body = io.NopCloser(bytes.NewReader(content))
	e.files[id] = remote.File{Type: file.Type, Name: file.Name, Body: io.NopCloser(bytes.NewReader(content))}
	return &file, nil
}

type broken struct{ err error }

func (f broken) Read([]byte) (int, error) { return 0, f.err }

func (e *elsewhere) add(id store.MediaID, mediaType, name, content string) {
	if e.files == nil {
		e.files = make(map[store.MediaID]remote.File)
	}
	e.files[id] = remote.File{Type: mediaType, Name: name, Body: io.NopCloser(strings.NewReader(content))}
}

// getFar downloads a file of the other server.
func getFar(m *Repository, id store.MediaID, hereOnly bool) (*httptest.ResponseRecorder, error) {
	w := httptest.NewRecorder()
	return w, m.Download(w, httptest.NewRequest(http.MethodGet, "/", nil), Want{Origin: far, ID: id, HereOnly: hereOnly}, "")
}

// A file is fetched once, whoever asks for it, and what its server says of it is made
// safe.
func TestFetch(t *testing.T) {
	e := &elsewhere{gate: make(chan struct{})}
	e.add("page", "text/html", "../../etc/\u202ehosts\x00", "<script>")
	m, _ := open(t, Config{Fetch: e.fetch})
	if _, err := getFar(m, "page", true); !errors.Is(err, api.ErrNotFound) || e.asked.Load() != 0 {
		t.Errorf("not to be fetched: %v", err)
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			w, err := getFar(m, "page", false)
			h := w.Header()
			if err != nil || w.Body.String() != "<script>" || h.Get("Content-Type") != "text/html" ||
				h.Get("Content-Disposition") != "attachment; filename=hosts" {
				t.Errorf("%q %v, %v", w.Body, h, err)
			}
		})
	}
	close(e.gate)
	group.Wait()
	if _, err := getFar(m, "page", true); err != nil || e.asked.Load() != 1 {
		t.Errorf("again: %v, asked %d times", err, e.asked.Load())
	}
	e.add("odd", "no type\r\nX-Evil: 1", "", "odd")
	if w, err := getFar(m, "odd", false); err != nil || w.Header().Get("Content-Type") != unknownType || w.Header().Get("X-Evil") != "" {
		t.Errorf("an odd type: %v, %v", w.Header(), err)
	}
}

// Thumbnails of other servers' pictures are made here.
func TestFetchedThumbnail(t *testing.T) {
	e := &elsewhere{}
	e.add("picture", "image/png", "", string(picturePNG(t, 300, 200)))
	m, _ := open(t, Config{Fetch: e.fetch})
	w := httptest.NewRecorder()
	err := m.Thumbnail(w, httptest.NewRequest(http.MethodGet, "/", nil), Want{Origin: far, ID: "picture"}, picture.Request{Width: 30, Height: 20})
	if err != nil || w.Header().Get("Content-Type") == "" || w.Body.Len() == 0 {
		t.Errorf("%v %v", w.Header(), err)
	}
	e.add("text", "text/plain", "", "no picture")
	err = m.Thumbnail(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), Want{Origin: far, ID: "text"}, picture.Request{Width: 30, Height: 20})
	if apiErr := new(api.Error); !errors.As(err, &apiErr) || apiErr.Status != http.StatusBadRequest {
		t.Errorf("a thumbnail of text: %v", err)
	}
}

// What another server does wrong is its fault, and nothing of it stays.
func TestFetchErrors(t *testing.T) {
	e := &elsewhere{}
	e.add("large", "", "", strings.Repeat("x", 101))
	m, _ := open(t, Config{Fetch: e.fetch, MaxFetched: 100})
	refusal := func(status int, code string) error {
		return fmt.Errorf("GET: %w", &remote.Error{Server: far, Status: status, Code: code})
	}
	for _, tt := range []struct {
		name   string
		id     store.MediaID
		err    error
		status int
		code   string
	}{
		{"too large", "large", nil, 502, "M_TOO_LARGE"},
		{"none", "none", nil, 404, "M_NOT_FOUND"},
		{"gone", "x", fmt.Errorf("GET: %w", remote.ErrUnreachable), 502, "M_UNKNOWN"},
		{"slow", "x", fmt.Errorf("GET: %w: %w", remote.ErrUnreachable, context.DeadlineExceeded), 504, "M_UNKNOWN"},
		{"to come", "x", refusal(504, "M_NOT_YET_UPLOADED"), 504, "M_NOT_YET_UPLOADED"},
		{"too large there", "x", refusal(502, "M_TOO_LARGE"), 502, "M_TOO_LARGE"},
		{"overloaded", "x", refusal(429, "M_LIMIT_EXCEEDED"), 429, "M_LIMIT_EXCEEDED"},
		{"broken", "x", refusal(500, ""), 502, "M_UNKNOWN"},
		{"we may not", "x", refusal(403, "M_FORBIDDEN"), 502, "M_UNKNOWN"},
		{"our token", "x", refusal(401, "M_UNKNOWN_TOKEN"), 502, "M_UNKNOWN"},
	} {
		e.err = tt.err
		_, err := getFar(m, tt.id, false)
		if got := new(api.Error); !errors.As(err, &got) || got.Status != tt.status || got.Code != tt.code {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if n := blobs(t, m); n != 0 {
		t.Errorf("%d files stay", n)
	}
	plain, _ := open(t, Config{})
	if _, err := getFar(plain, "x", false); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("without federation: %v", err)
	}
}

// Files of others go when there are too many, those first that were not used for the
// longest time.
func TestFetchedQuota(t *testing.T) {
	e := &elsewhere{}
	m, user := open(t, Config{Fetch: e.fetch, FetchedQuota: 1000})
	now := time.Unix(1_790_000_000, 0)
	m.now = func() time.Time { return now }
	own := upload(t, m, user, "text/plain", "", bytes.Repeat([]byte("o"), 2000))
	for i := range 20 {
		id := store.MediaID(fmt.Sprint("f", i))
		e.add(id, "text/plain", "", fmt.Sprintf("%0100d", i))
		now = now.Add(2 * usedEvery)
		for _, used := range []store.MediaID{id, "f0"} {
			if _, err := getFar(m, used, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	if asked := e.asked.Load(); asked != 20 {
		t.Errorf("asked %d times for 20 files", asked)
	}
	var here []store.MediaID
	for i := range 20 {
		id := store.MediaID(fmt.Sprint("f", i))
		if _, err := getFar(m, id, true); err == nil {
			here = append(here, id)
		}
	}
	if n := blobs(t, m); n != len(here)+1 || len(here) < 9 || len(here) > 10 {
		t.Errorf("%d files on disk, %v of the other server", n, here)
	}
	if here[0] != "f0" || here[len(here)-1] != "f19" || here[1] < "f1" {
		t.Errorf("there are %v", here)
	}
	if _, err := get(m, own, ""); err != nil {
		t.Errorf("our own: %v", err)
	}
}

// One server cannot take all turns, however slow it is.
func TestSlowServersLeaveTurns(t *testing.T) {
	slow := &elsewhere{gate: make(chan struct{})}
	quick := &elsewhere{}
	for i := range 30 {
		slow.add(store.MediaID(fmt.Sprint("f", i)), "", "", "slow")
	}
	quick.add("q", "", "", "quick")
	m, _ := open(t, Config{Fetch: func(ctx context.Context, origin matrix.ServerName, id store.MediaID, q remote.MediaQuery) (*remote.File, error) {
		if origin == far {
			return slow.fetch(ctx, origin, id, q)
		}
		return quick.fetch(ctx, origin, id, q)
	}})
	var group sync.WaitGroup
	for i := range 30 {
		group.Go(func() {
			if _, err := getFar(m, store.MediaID(fmt.Sprint("f", i)), false); err != nil {
				t.Error(err)
			}
		})
	}
	for slow.asked.Load() < maxFetchingFrom {
		time.Sleep(time.Millisecond)
	}
	w := httptest.NewRecorder()
	err := m.Download(w, httptest.NewRequest(http.MethodGet, "/", nil), Want{Origin: "quick.test", ID: "q"}, "")
	if err != nil || w.Body.String() != "quick" || slow.asked.Load() != maxFetchingFrom {
		t.Errorf("%q, %v; %d of the slow server are fetched", w.Body, err, slow.asked.Load())
	}
	close(slow.gate)
	group.Wait()
	if len(m.fetching.lanes.lanes) != 0 {
		t.Errorf("%d lanes are left", len(m.fetching.lanes.lanes))
	}
}

// Who waits for a file that takes long is told so before clients give up, and the file
// comes all the same.
func TestFetchInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &elsewhere{gate: make(chan struct{})}
		slow.add("f", "", "", "slow")
		m, _ := open(t, Config{Fetch: slow.fetch})
		began := time.Now()
		_, err := getFar(m, "f", false)
		is, ok := errors.AsType[*api.Error](err)
		if took := time.Since(began); took > time.Minute || !ok || is.Status != http.StatusGatewayTimeout {
			t.Errorf("after %v: %v", took, err)
		}
		close(slow.gate)
		if w, err := getFar(m, "f", false); err != nil || w.Body.String() != "slow" || slow.asked.Load() != 1 {
			t.Errorf("%q, %v, fetched %d times", w.Body, err, slow.asked.Load())
		}
	})
}

// Another server gets a file of ours as two parts.
func TestParts(t *testing.T) {
	m, user := open(t, Config{})
	content := picturePNG(t, 300, 200)
	id := upload(t, m, user, "image/png", "é.png", content)
	read := func(w *httptest.ResponseRecorder) (headers http.Header, body []byte) {
		kind, params, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
		if err != nil || kind != "multipart/mixed" {
			t.Fatalf("type %s, %v", kind, err)
		}
		parts := multipart.NewReader(w.Body, params["boundary"])
		for i := range 2 {
			part, err := parts.NextRawPart()
			if err != nil {
				t.Fatal(err)
			}
			headers = http.Header(part.Header)
			if body, err = io.ReadAll(part); err != nil {
				t.Fatal(err)
			}
			if i == 0 && (string(body) != "{}" || headers.Get("Content-Type") != "application/json") {
				t.Errorf("the first part: %v %s", headers, body)
			}
		}
		if _, err := parts.NextRawPart(); err != io.EOF {
			t.Errorf("after two parts: %v", err)
		}
		return headers, body
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	w := httptest.NewRecorder()
	if err := m.DownloadParts(w, r, id, 0); err != nil {
		t.Fatal(err)
	}
	if h, body := read(w); !bytes.Equal(body, content) || h.Get("Content-Type") != "image/png" ||
		h.Get("Content-Disposition") != "inline; filename*=utf-8''%C3%A9.png" {
		t.Errorf("the file: %v, %d bytes", h, len(body))
	}
	w = httptest.NewRecorder()
	if err := m.ThumbnailParts(w, r, id, picture.Request{Width: 30, Height: 20}, 0); err != nil {
		t.Fatal(err)
	}
	if h, body := read(w); len(body) == 0 || len(body) >= len(content) || !strings.HasPrefix(h.Get("Content-Type"), "image/") {
		t.Errorf("the thumbnail: %v, %d bytes", h, len(body))
	}
	if err := m.DownloadParts(httptest.NewRecorder(), r, "none", 0); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("no file: %v", err)
	}
}
