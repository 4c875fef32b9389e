package media

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"unicode/utf8"

	"hearth/server/api"
	"hearth/store"
	"hearth/store/blob"
)

// An Upload is a file that a user sends.
type Upload struct {
	User   store.UserNum
	Type   string // media type as the client gave it; empty: none
	Name   string // file name; empty: none
	Body   io.Reader
	Length int64 // bytes that were announced; -1: nobody knows
}

const (
	// maxName is the most bytes of a file name.
	maxName = 1024
	// maxType is the most bytes of a media type.
	maxType = 255
	// unknownType is the media type of a file that has none.
	unknownType = "application/octet-stream"
)

// Upload stores a file and returns its ID. The error is M_TOO_LARGE above the
// limit, M_INVALID_PARAM for a name that is too long or no text, and
// M_RESOURCE_LIMIT_EXCEEDED when the disk is full; nothing is stored then.
//
// Spec: CS POST /_matrix/media/v3/upload.
func (m *Repository) Upload(ctx context.Context, up Upload) (store.MediaID, error) {
	id := newMediaID()
	return id, m.keep(ctx, up, id, func(*store.Tx) error { return nil })
}

// keep stores a file under an ID, with what allow writes or refuses before it in
// the same transaction.
func (m *Repository) keep(ctx context.Context, up Upload, id store.MediaID, allow func(*store.Tx) error) error {
	if up.Length > m.config.MaxUpload {
		return m.tooLarge()
	}
	if len(up.Name) > maxName || !utf8.ValidString(up.Name) {
		return api.ErrInvalidParam.Because("filename must be text of at most %d bytes", maxName)
	}
	w, err := m.blobs.Create(m.config.MaxUpload)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	defer w.Abort()
	if err := m.receive(w, up.Body); err != nil {
		return err
	}
	record := store.Media{
		Origin: m.store.Server(), ID: id, Type: cleanType(up.Type), Name: up.Name,
		Uploader: up.User, Created: m.now(),
	}
	err = m.commit(ctx, w, func(tx *store.Tx, h blob.Hash, size int64) error {
		if err := allow(tx); err != nil {
			return err
		}
		record.Content, record.Size = h, size
		return tx.PutMedia(record)
	})
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	return nil
}

// receive copies a body into a blob. A fault of the client's is told as such.
func (m *Repository) receive(w *blob.Writer, body io.Reader) error {
	in := &watched{r: body}
	_, err := io.Copy(w, in)
	switch {
	case err == nil:
		return nil
	case in.err != nil:
		return api.BodyError(in.err)
	case errors.Is(err, blob.ErrTooLarge):
		return m.tooLarge()
	}
	return fmt.Errorf("upload: %w", err)
}

func (m *Repository) tooLarge() error {
	return api.ErrTooLarge.Because("A file may have at most %d bytes", m.config.MaxUpload)
}

// watched is a reader that keeps its error, to tell it from one of the writer.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// newMediaID returns an ID that nobody can guess: knowing it is what lets people
// have the file.
func newMediaID() store.MediaID {
	var b [18]byte
	rand.Read(b[:])
	return store.MediaID(base64.RawURLEncoding.EncodeToString(b[:]))
}

// cleanType returns the media type of an upload: what the client says, if that is
// one. "Returning application/octet-stream when the media has an
// unknown/unprovided Content-Type."
func cleanType(given string) string {
	if _, _, err := mime.ParseMediaType(given); err != nil || len(given) > maxType {
		return unknownType
	}
	return given
}
