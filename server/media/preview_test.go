package media

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/store"
)

// website is a site whose pages are made for previews.
type website struct {
	*httptest.Server
	asked    atomic.Int32
	language atomic.Value
}

func newWebsite(t *testing.T) *website {
	var file bytes.Buffer
	if err := png.Encode(&file, image.NewGray(image.Rect(0, 0, 30, 20))); err != nil {
		t.Fatal(err)
	}
	s := new(website)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.language.Store(r.Header.Get("Accept-Language"))
		html := func(body string) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(w, body)
		}
		switch r.URL.Path {
		case "/page":
			html(`<title>old</title><meta property="og:title" content="New"><meta property="og:image" content="img.png">
				<meta property="og:image:width" content="9999"><meta property="og:type" content="article">`)
		case "/moved":
			http.Redirect(w, r, "/page", http.StatusFound)
		case "/img.png", "/disguised":
			w.Header().Set("Content-Type", "image/png")
			if r.URL.Path == "/disguised" {
				fmt.Fprint(w, "<script>")
				return
			}
			_, _ = w.Write(file.Bytes())
		case "/fake":
			html(`<title>Fake</title><meta property="og:image" content="/disguised">`)
		case "/file":
			html(`<title>File</title><meta property="og:image" content="file:///etc/passwd">`)
		case "/slow":
			time.Sleep(200 * time.Millisecond)
			html("<title>Slow</title>")
		case "/endless":
			w.Header().Set("Content-Type", "text/html")
			for range 400 {
				if _, err := w.Write(bytes.Repeat([]byte("<p>xxxx"), 4096)); err != nil {
					return
				}
			}
		case "/text":
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, "<title>no page</title>")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// previewer returns a repository that makes previews of local sites.
func previewer(t *testing.T) *Repository {
	m, _ := open(t, Config{Previews: remote.NewDialer(true).Client(remote.ClientConfig{Redirects: PreviewRedirects})})
	return m
}

func preview(t *testing.T, m *Repository, url string) map[string]any {
	t.Helper()
	content, err := m.Preview(t.Context(), url, "de")
	var p map[string]any
	if err := errors.Join(err, json.Unmarshal(content, &p)); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return p
}

func TestPreview(t *testing.T) {
	m, site := previewer(t), newWebsite(t)
	for _, at := range []string{"/page", "/moved"} {
		p := preview(t, m, site.URL+at+"#part")
		uri, _ := p["og:image"].(string)
		id, isOurs := strings.CutPrefix(uri, "mxc://hearth.test/")
		if !isOurs || p["og:title"] != "New" || p["og:type"] != "article" || p["og:image:type"] != "image/png" ||
			p["og:image:width"] != 30.0 || p["og:image:height"] != 20.0 || p["matrix:image:size"] == nil {
			t.Errorf("%s: %v", at, p)
		}
		if w, err := get(m, store.MediaID(id), ""); err != nil || w.Header().Get("Content-Type") != "image/png" {
			t.Errorf("the image: %v %v", w.Header(), err)
		}
	}
	if asked := site.asked.Load(); asked != 5 {
		t.Errorf("%d requests", asked)
	}
	for _, tt := range []struct {
		at, title string
		image     bool
	}{
		{"/img.png", "img.png", true},
		{"/fake", "Fake", false},
		{"/file", "File", false},
		{"/text", "", false},
		{"/endless", "", false},
	} {
		p := preview(t, m, site.URL+tt.at)
		if title, _ := p["og:title"].(string); title != tt.title || (p["og:image"] != nil) != tt.image {
			t.Errorf("%s: %v", tt.at, p)
		}
	}
	if n := blobs(t, m); n != 1 {
		t.Errorf("%d files, but one picture", n)
	}
	if site.language.Load() != "de" {
		t.Errorf("Accept-Language %q", site.language.Load())
	}
}

// A preview is fetched once for all who ask, and again when its time is over.
func TestPreviewIsKept(t *testing.T) {
	m, site := previewer(t), newWebsite(t)
	now := time.Now()
	m.now = func() time.Time { return now }
	var wait sync.WaitGroup
	for range 5 {
		wait.Go(func() {
			if p := preview(t, m, site.URL+"/slow"); p["og:title"] != "Slow" {
				t.Errorf("%v", p)
			}
		})
	}
	wait.Wait()
	preview(t, m, site.URL+"/slow")
	if asked := site.asked.Load(); asked != 1 {
		t.Errorf("%d requests for one preview", asked)
	}
	now = now.Add(previewLife)
	preview(t, m, site.URL+"/slow")
	if asked := site.asked.Load(); asked != 2 {
		t.Errorf("%d requests after an hour", asked)
	}
	preview(t, m, site.URL+"/page")
	now = now.Add(2 * previewLife)
	if err := m.sweepPreviews(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := blobs(t, m); n != 0 {
		t.Errorf("%d files are left of old previews", n)
	}
}

func TestPreviewRefuses(t *testing.T) {
	site := newWebsite(t)
	careful, _ := open(t, Config{Previews: remote.NewDialer(false).Client(remote.ClientConfig{Redirects: PreviewRedirects})})
	off, _ := open(t, Config{})
	m := previewer(t)
	for _, tt := range []struct {
		m      *Repository
		url    string
		status int
		code   error
	}{
		{off, site.URL + "/page", 404, api.ErrUnrecognized},
		{careful, site.URL + "/page", 403, api.ErrForbidden},
		{m, "", 400, api.ErrMissingParam},
		{m, "/page", 400, api.ErrInvalidParam},
		{m, "ftp://example.org/", 400, api.ErrInvalidParam},
		{m, "file:///etc/passwd", 400, api.ErrInvalidParam},
		{m, "http://user:password@example.org/", 400, api.ErrInvalidParam},
		{m, "https://example.org/" + strings.Repeat("x", maxPreviewURL), 400, api.ErrInvalidParam},
		{m, site.URL + "/missing", 502, api.ErrUnknown},
		{m, "http://127.0.0.1:1/", 502, api.ErrUnknown},
	} {
		_, err := tt.m.Preview(t.Context(), tt.url, "")
		if !errors.Is(err, tt.code) || api.AsError(err).Status != tt.status {
			t.Errorf("%.60s: %v, want %d %v", tt.url, err, tt.status, tt.code)
		}
	}
}
