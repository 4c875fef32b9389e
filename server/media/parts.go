package media

import (
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"time"

	"hearth/server/media/picture"
	"hearth/store"
)

// DownloadParts answers another server with a file of ours, as two parts: JSON that
// says nothing yet, and the file. The errors are those of [Repository.Download].
//
// Spec: SS GET /_matrix/federation/v1/media/download/{mediaId}.
func (m *Repository) DownloadParts(w http.ResponseWriter, r *http.Request, id store.MediaID, wait time.Duration) error {
	found, err := m.await(r, Want{Origin: m.store.Server(), ID: id, Wait: wait})
	if err != nil {
		return err
	}
	return m.serveParts(w, servedFile(found, ""))
}

// ThumbnailParts is [Repository.Thumbnail] for another server and a file of ours, in
// the form of [Repository.DownloadParts].
//
// Spec: SS GET /_matrix/federation/v1/media/thumbnail/{mediaId}.
func (m *Repository) ThumbnailParts(w http.ResponseWriter, r *http.Request, id store.MediaID, req picture.Request, wait time.Duration) error {
	s, err := m.smaller(r, Want{Origin: m.store.Server(), ID: id, Wait: wait}, req)
	if err != nil {
		return err
	}
	return m.serveParts(w, s)
}

// serveParts answers with a blob as the second of two parts.
func (m *Repository) serveParts(w http.ResponseWriter, s served) error {
	f, err := m.open(s.content)
	if err != nil {
		return err
	}
	defer f.Close()
	parts := multipart.NewWriter(w)
	w.Header().Set("Content-Type", mime.FormatMediaType("multipart/mixed", map[string]string{"boundary": parts.Boundary()}))
	about, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	if err == nil {
		_, err = io.WriteString(about, "{}")
	}
	if err != nil {
		return fmt.Errorf("send a file: %w", err)
	}
	file, err := parts.CreatePart(textproto.MIMEHeader{
		"Content-Type":        {s.mediaType},
		"Content-Disposition": {disposition(s.mediaType, s.name)},
	})
	if err == nil {
		_, err = io.Copy(file, f)
	}
	if err == nil {
		err = parts.Close()
	}
	if err != nil {
		return fmt.Errorf("send a file: %w", err)
	}
	return nil
}
