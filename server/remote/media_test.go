package remote

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const partsType = `multipart/mixed; boundary=b`

// parts is an answer with a file.
func parts(headers, body string) string {
	return "--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n" + headers + "\r\n" + body + "\r\n--b--\r\n"
}

// A file comes as two parts, from where the second part says that it is, or as the
// old endpoint gave it.
func TestMedia(t *testing.T) {
	i := newInternet(t)
	i.addrs["far.example"] = []string{"10.0.0.1"}
	i.addrs["cdn.example"] = []string{"10.0.0.2"}
	n := openNetwork(t, i, t.TempDir(), nil)
	var answer, contentType, oldAnswer string
	var status, oldStatus int
	var paths []string
	i.serve("10.0.0.1:1", "far.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.RequestURI())
		if strings.HasPrefix(r.URL.Path, "/_matrix/media/") {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Disposition", `attachment; filename*=utf-8''%C3%A9`)
			w.WriteHeader(oldStatus)
			_, _ = io.WriteString(w, oldAnswer)
			return
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	var auth string
	i.serve("10.0.0.2:443", "cdn.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth += r.Header.Get("Authorization")
		switch r.URL.Path {
		case "/on":
			http.Redirect(w, r, "https://cdn.example/file", http.StatusFound)
		case "/file":
			w.Header().Set("Content-Type", "image/gif")
			_, _ = io.WriteString(w, "from afar")
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	for _, tt := range []struct {
		name      string
		status    int
		mediaType string
		answer    string
		oldStatus int
		want      string // "type name bytes", or "" for an error
		err       error
	}{
		{"two parts", 200, partsType, parts("Content-Type: image/png\r\nContent-Disposition: inline; filename=a.png\r\n", "bytes"), 0, "image/png a.png bytes", nil},
		{"no headers", 200, partsType, parts("", "bytes"), 0, "  bytes", nil},
		{"empty", 200, partsType, parts("Content-Type: a/b\r\n", ""), 0, "a/b  ", nil},
		{"just small enough", 200, partsType, parts("", strings.Repeat("x", 100)), 0, "  " + strings.Repeat("x", 100), nil},
		{"too large", 200, partsType, parts("", strings.Repeat("x", 101)), 0, "", ErrFileTooLarge},
		{"far too large", 200, partsType, parts("", strings.Repeat("x", 1<<20)), 0, "", ErrFileTooLarge},
		{"cut off", 200, partsType, strings.TrimSuffix(parts("", "bytes"), "\r\n--b--\r\n"), 0, "", ErrUnreachable},
		{"one part", 200, partsType, "--b\r\n\r\n{}\r\n--b--\r\n", 0, "", ErrUnreachable},
		{"no parts", 200, partsType, "--b--\r\n", 0, "", ErrUnreachable},
		{"another type", 200, "text/plain", parts("", "bytes"), 0, "", ErrUnreachable},
		{"no boundary", 200, "multipart/mixed", parts("", "bytes"), 0, "", ErrUnreachable},
		{"a long preamble", 200, partsType, strings.Repeat("x", maxPartsHead) + "\r\n" + parts("", "bytes"), 0, "", ErrUnreachable},
		{"a long first part", 200, partsType, "--b\r\n\r\n" + strings.Repeat("x\n", maxPartsHead) + parts("", "bytes"), 0, "", ErrUnreachable},
		{"long headers", 200, partsType, parts("X: "+strings.Repeat("x", maxPartsHead)+"\r\n", "bytes"), 0, "", ErrUnreachable},
		{"elsewhere", 200, partsType, parts("Location: https://cdn.example/file\r\n", ""), 0, "image/gif  from afar", nil},
		{"sent on from there", 200, partsType, parts("Location: https://cdn.example/on\r\n", ""), 0, "", ErrUnreachable},
		{"gone there", 200, partsType, parts("Location: https://cdn.example/gone\r\n", ""), 0, "", ErrUnreachable},
		{"in the clear", 200, partsType, parts("Location: http://cdn.example/file\r\n", ""), 0, "", ErrUnreachable},
		{"nowhere", 200, partsType, parts("Location: file:///etc/passwd\r\n", ""), 0, "", ErrUnreachable},
		{"an old server", 404, "", `{"errcode":"M_UNRECOGNIZED"}`, 200, "text/plain é old", nil},
		{"an older server", 404, "", `not found`, 200, "text/plain é old", nil},
		{"an old server without it", 404, "", `{"errcode":"M_UNRECOGNIZED"}`, 404, "", (*Error)(nil)},
		{"no such file", 404, "", `{"errcode":"M_NOT_FOUND"}`, 200, "", (*Error)(nil)},
	} {
		status, contentType, answer, oldStatus, oldAnswer, paths = tt.status, tt.mediaType, tt.answer, tt.oldStatus, "old", nil
		n.Heard(far)
		file, err := n.Media(t.Context(), far, "a-b_c", MediaQuery{MaxBytes: 100, Wait: 3 * time.Second})
		var got string
		if err == nil {
			var content []byte
			if content, err = io.ReadAll(file.Body); err == nil {
				got = fmt.Sprintf("%s %s %s", file.Type, file.Name, content)
			}
			err = errors.Join(err, file.Body.Close())
		}
		_, wantAnswer := tt.err.(*Error)
		switch answered := (*Error)(nil); {
		case got != tt.want, (err == nil) != (tt.want != ""):
			t.Errorf("%s: %.60q, %v; want %q", tt.name, got, err, tt.want)
		case wantAnswer && !errors.As(err, &answered), tt.err != nil && !wantAnswer && !errors.Is(err, tt.err):
			t.Errorf("%s: error %v", tt.name, err)
		case paths[0] != "/_matrix/federation/v1/media/download/a-b_c?timeout_ms=3000",
			len(paths) > 1 && paths[1] != "/_matrix/media/v3/download/far.example:1/a-b_c?allow_remote=false&timeout_ms=3000",
			(len(paths) > 1) != (tt.oldStatus != 0 && tt.name != "no such file"):
			t.Errorf("%s: asked for %q", tt.name, paths)
		}
	}
	if auth != "" {
		t.Errorf("another web server is told who asks: %s", auth)
	}
}

func FuzzSecondPart(f *testing.F) {
	f.Add(partsType, []byte(parts("Content-Type: a/b\r\nLocation: https://x/\r\n", "bytes")))
	f.Add(`multipart/mixed; boundary="a b"`, []byte("--a b\n\n{}\n--a b\n\nx\n--a b--"))
	f.Fuzz(func(t *testing.T, mediaType string, body []byte) {
		header, part, err := secondPart(mediaType, strings.NewReader(string(body)))
		if err != nil {
			return
		}
		file := newFile(header, part, io.NopCloser(nil), 64)
		if content, err := io.ReadAll(file.Body); err == nil && len(content) > 64 {
			t.Errorf("%d bytes", len(content))
		}
	})
}

// FuzzMediaLocation has a server say that a file is anywhere: one request is made at
// most, by https and to a port of that name, and tells nothing of who asks.
func FuzzMediaLocation(f *testing.F) {
	for _, location := range []string{
		"https://cdn.example/file", "https://cdn.example/on", "HTTPS://CDN.example:443/", "//cdn.example/file", "/file", "https:cdn.example", "https://user:secret@cdn.example/file",
		"https://far.example:1/_matrix/federation/v1/media/download/a", "file:///etc/passwd", "http://cdn.example/", "https://127.0.0.1:1/", "https://[::1%25lo]:1/",
		"https://cdn.example:99999/", "https://cdn.example/\r\nX: y", "https://cdn.example/?a#b", "https://c\x00dn.example/", "https://cdn.example:/",
	} {
		f.Add(location)
	}
	i := newInternet(f)
	i.addrs["cdn.example"] = []string{"10.0.0.2"}
	var asked []string
	i.serve("10.0.0.2:443", "cdn.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+r.Header.Get("Authorization")+r.Header.Get("Referer"))
		if strings.Contains(r.URL.Path, "on") {
			http.Redirect(w, r, "https://cdn.example/file", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 65))
	}))
	n := openNetwork(f, i, f.TempDir(), nil)
	f.Fuzz(func(t *testing.T, location string) {
		asked = nil
		i.taken()
		file, err := n.redirected(t.Context(), location, MediaQuery{MaxBytes: 64})
		if dialed := i.taken(); len(dialed) > 1 || len(asked) > 1 || len(asked) == 1 && asked[0] != "GET" || len(dialed) > 0 && !strings.HasPrefix(strings.ToLower(location), "https://") {
			t.Errorf("%q leads to %v, asked %q", location, dialed, asked)
		}
		if err != nil {
			if !errors.Is(err, ErrUnreachable) {
				t.Errorf("%q: %v", location, err)
			}
			return
		}
		if content, err := io.ReadAll(file.Body); !errors.Is(err, ErrFileTooLarge) {
			t.Errorf("%q: %d bytes, %v", location, len(content), err)
		}
		if err := file.Body.Close(); err != nil {
			t.Error(err)
		}
	})
}
