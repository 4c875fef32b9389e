package client

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// upload sends a file and returns the path of its URI: /server/ID.
func (s *testServer) upload(t *testing.T, token, query, mediaType string, content []byte) string {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/_matrix/media/v3/upload"+query, bytes.NewReader(content))
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", mediaType)
	w := httptest.NewRecorder()
	s.router.ServeHTTP(w, r)
	var answer uploadContentResponse
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("upload: %d %s", w.Code, w.Body)
	}
	path, found := strings.CutPrefix(answer.ContentURI, "mxc:/")
	if !found || !strings.HasPrefix(path, "/"+string(testServerName)+"/") {
		t.Fatalf("content_uri %q", answer.ContentURI)
	}
	return path
}

func TestContentRepository(t *testing.T) {
	s := newTestServer(t, Config{LegacyMedia: true})
	token := s.account(t, "alice", "her-password")
	img := image.NewNRGBA(image.Rect(0, 0, 200, 100))
	for i := range img.Pix {
		img.Pix[i] = byte(i * i >> 8)
	}
	img.Set(0, 0, color.Transparent)
	var file bytes.Buffer
	if err := png.Encode(&file, img); err != nil {
		t.Fatal(err)
	}
	path := s.upload(t, token, "?filename=cat%20%F0%9F%90%88.png", "image/png", file.Bytes())
	const authed, legacy = "/_matrix/client/v1/media", "/_matrix/media/v3"
	const renamed = "inline; filename=other.png"
	for _, tt := range []struct {
		path, token string
		status      int
		code        string // of the error
		disposition string
	}{
		{authed + "/download" + path, token, 200, "", "inline; filename*=utf-8''cat%20%F0%9F%90%88.png"},
		{authed + "/download" + path + "/other.png", token, 200, "", renamed},
		{authed + "/download" + path, "", 401, "M_MISSING_TOKEN", ""},
		{authed + "/download" + path, "wrong", 401, "M_UNKNOWN_TOKEN", ""},
		{authed + "/download" + path + "x", token, 404, "M_NOT_FOUND", ""},
		{authed + "/download/elsewhere.example/abc", token, 404, "M_NOT_FOUND", ""},
		{authed + "/download/hearth.test/..", token, 400, "M_INVALID_PARAM", ""},
		{authed + "/download/hearth.test/%2e%2e%2fhearth.db", token, 400, "M_INVALID_PARAM", ""},
		{authed + "/download/..%2f../abc", token, 400, "M_INVALID_PARAM", ""},
		{legacy + "/download" + path, "", 200, "", "inline; filename*=utf-8''cat%20%F0%9F%90%88.png"},
		{legacy + "/download" + path + "/other.png?allow_remote=false", "", 200, "", renamed},
		{"/_matrix/media/r0/download" + path, "", 200, "", "inline; filename*=utf-8''cat%20%F0%9F%90%88.png"},
		{authed + "/thumbnail" + path + "?width=32&height=32&method=crop", token, 200, "", "inline; filename=thumbnail.png"},
		{authed + "/thumbnail" + path + "?width=64&height=32", token, 200, "", "inline; filename=thumbnail.png"},
		{authed + "/thumbnail" + path + "?width=640&height=480&animated=true", token, 200, "", "inline; filename=thumbnail.png"},
		{authed + "/thumbnail" + path + "?width=32&height=32&method=crop", "", 401, "M_MISSING_TOKEN", ""},
		{authed + "/thumbnail" + path, "", 401, "M_MISSING_TOKEN", ""},
		{authed + "/thumbnail" + path + "?width=32", token, 400, "M_MISSING_PARAM", ""},
		{authed + "/thumbnail" + path + "?width=0&height=32", token, 400, "M_INVALID_PARAM", ""},
		{authed + "/thumbnail" + path + "?width=-5&height=32", token, 400, "M_INVALID_PARAM", ""},
		{authed + "/thumbnail" + path + "?width=9999999999&height=32", token, 400, "M_INVALID_PARAM", ""},
		{authed + "/thumbnail" + path + "?width=32&height=32&method=stretch", token, 400, "M_INVALID_PARAM", ""},
		{legacy + "/thumbnail" + path + "?width=32&height=32&method=scale", "", 200, "", "inline; filename=thumbnail.png"},
		{authed + "/config", token, 200, "", ""},
		{legacy + "/config", token, 200, "", ""},
		{legacy + "/config", "", 401, "M_MISSING_TOKEN", ""},
	} {
		w := s.do(http.MethodGet, tt.path, tt.token, "")
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.code) {
			t.Errorf("%s: %d %.200q", tt.path, w.Code, w.Body)
		}
		if got := w.Header().Get("Content-Disposition"); got != tt.disposition {
			t.Errorf("%s: Content-Disposition %q, want %q", tt.path, got, tt.disposition)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: browsers may not read it", tt.path)
		}
	}
	if w := s.do(http.MethodGet, authed+"/download"+path, token, ""); !bytes.Equal(w.Body.Bytes(), file.Bytes()) {
		t.Error("the file is not what was uploaded")
	}
	if w := s.do(http.MethodGet, authed+"/config", token, ""); w.Body.String() != `{"m.upload.size":52428800}` {
		t.Errorf("config %s", w.Body)
	}
	if w := s.do(http.MethodPost, "/_matrix/media/v3/upload", "", "x"); w.Code != http.StatusUnauthorized {
		t.Errorf("upload without token: %d", w.Code)
	}
}

// Without --legacy-media, nobody gets a file without a token.
func TestFrozenMedia(t *testing.T) {
	s := newTestServer(t, Config{})
	token := s.account(t, "alice", "her-password")
	path := s.upload(t, token, "", "text/plain", []byte("secret"))
	for _, p := range []string{"/download" + path, "/download" + path + "/name", "/thumbnail" + path + "?width=1&height=1"} {
		w := s.do(http.MethodGet, "/_matrix/media/v3"+p, "", "")
		if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "M_NOT_FOUND") {
			t.Errorf("%s: %d %s", p, w.Code, w.Body)
		}
	}
}
