package media

import (
	"errors"
	"mime"
	"net/http"
	"os"
	"time"

	"hearth/server/api"
	"hearth/store"
	"hearth/store/blob"
)

// inlineTypes may be shown by a browser that is asked to: "These types are
// unlikely to cause Cross-Site Scripting issues when a Content-Type header is
// provided".
//
// Spec: CS Content repository, Serving inline content.
var inlineTypes = map[string]bool{
	"text/css": true, "text/plain": true, "text/csv": true,
	"application/json": true, "application/ld+json": true,
	"image/jpeg": true, "image/gif": true, "image/png": true, "image/apng": true, "image/webp": true, "image/avif": true,
	"video/mp4": true, "video/webm": true, "video/ogg": true, "video/quicktime": true,
	"audio/mp4": true, "audio/webm": true, "audio/aac": true, "audio/mpeg": true, "audio/ogg": true,
	"audio/wave": true, "audio/wav": true, "audio/x-wav": true, "audio/x-pn-wav": true,
	"audio/flac": true, "audio/x-flac": true,
}

// fileHeaders go with every file. The first is the policy that the specification
// recommends. A file never changes, so whoever has it may keep it; but nobody in
// between may, as not everybody may have it.
//
// Spec: CS Content repository.
var fileHeaders = map[string]string{
	"Content-Security-Policy": "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; " +
		"style-src 'unsafe-inline'; object-src 'self';",
	"Cross-Origin-Resource-Policy": "cross-origin",
	"X-Content-Type-Options":       "nosniff",
	"Cache-Control":                "private, max-age=31536000, immutable",
}

// Download answers with a file, or the part of it that the request's Range header
// asks for. name replaces the name that the file was uploaded with, unless it is
// empty. A file that is to come is waited for, and one of another server fetched. The
// error is M_NOT_FOUND if there is no such file, M_NOT_YET_UPLOADED if it did not come
// in time, and of the status 502 or 504 where another server is at fault.
//
// Spec: CS GET /_matrix/client/v1/media/download/{serverName}/{mediaId}.
func (m *Repository) Download(w http.ResponseWriter, r *http.Request, want Want, name string) error {
	found, err := m.await(r, want)
	if err != nil {
		return err
	}
	return m.serve(w, r, servedFile(found, name))
}

// served is a blob and what is told about it.
type served struct {
	content   blob.Hash
	created   time.Time
	mediaType string
	name      string // empty: none is told
}

// servedFile is a file, under another name unless that is empty.
func servedFile(found store.Media, name string) served {
	if name == "" {
		name = found.Name
	}
	return served{content: found.Content, created: found.Created, mediaType: found.Type, name: name}
}

// serve answers with a blob.
func (m *Repository) serve(w http.ResponseWriter, r *http.Request, s served) error {
	f, err := m.open(s.content)
	if err != nil {
		return err
	}
	defer f.Close()
	h := w.Header()
	for name, value := range fileHeaders {
		h.Set(name, value)
	}
	h.Set("Content-Type", s.mediaType)
	h.Set("Content-Disposition", disposition(s.mediaType, s.name))
	h.Set("ETag", `"`+s.content.String()+`"`)
	if r.Header.Get("Range") == "" {
		http.ServeContent(w, r, "", s.created, f)
		return nil
	}
	ranged := &rangeWriter{ResponseWriter: w}
	http.ServeContent(ranged, r, "", s.created, f)
	if !ranged.refused {
		return nil
	}
	for name := range fileHeaders {
		h.Del(name)
	}
	for _, name := range []string{"Content-Disposition", "ETag", "Last-Modified"} {
		h.Del(name)
	}
	return errRange
}

// open opens a blob that a record refers to.
func (m *Repository) open(h blob.Hash) (*os.File, error) {
	f, err := m.blobs.Open(h)
	if errors.Is(err, blob.ErrNotFound) {
		m.log.Error("the bytes of a file are missing", "err", err)
		return nil, api.ErrNotFound.Because("The file is lost")
	}
	return f, err
}

// disposition is the Content-Disposition of a file: inline for types that can do
// no harm, and the name, in the form of RFC 8187 where it is not plain ASCII.
//
// "MUST be one of inline or attachment, and SHOULD contain a file name."
func disposition(mediaType, name string) string {
	kind := "attachment"
	if base, _, err := mime.ParseMediaType(mediaType); err == nil && inlineTypes[base] {
		kind = "inline"
	}
	if name == "" {
		return kind
	}
	return mime.FormatMediaType(kind, map[string]string{"filename": name})
}
