package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"hearth/state/matrix"
	"hearth/store/blob"
)

// A MediaID is the last part of an mxc:// URI: which file of a server.
type MediaID string

// ErrBadMediaID is wrapped where a media ID has characters that it may not have.
var ErrBadMediaID = errors.New("not a media ID")

// maxMediaID is the most bytes of a media ID.
const maxMediaID = 255

// ParseMediaID checks a media ID. Homeservers must let nothing else near the
// names of files.
//
// Spec: CS Content repository, Security considerations: "allowing only
// alphanumeric (A-Za-z0-9), _ and - characters in the media-id segment".
func ParseMediaID(s string) (MediaID, error) {
	bad := strings.IndexFunc(s, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
	if s == "" || len(s) > maxMediaID || bad >= 0 {
		return "", ErrBadMediaID
	}
	return MediaID(s), nil
}

// Media is a file that somebody has uploaded, here or on another server. Its
// bytes are a blob, which several files may share.
type Media struct {
	Origin   matrix.ServerName // of the mxc:// URI
	ID       MediaID
	Content  blob.Hash
	Size     int64     // bytes
	Type     string    // media type, as it was given or application/octet-stream
	Name     string    // file name; empty: none was given
	Uploader UserNum   // 0 for a file of another server
	Created  time.Time // here, with milliseconds
}

// A Shape is how a thumbnail is made of a picture.
type Shape struct {
	Crop          bool // cut to the shape asked for; else scaled
	Width, Height uint16
}

// A Thumbnail is a smaller picture made of a blob. Everything that shares the
// blob shares its thumbnails.
type Thumbnail struct {
	Source  blob.Hash
	Shape   Shape
	Type    string    // media type; empty: none can be made
	Content blob.Hash // its bytes, unless Type is empty
	Size    int64     // bytes
}

// maxThumbnails is the most thumbnails of one blob.
const maxThumbnails = 32

// Sorts of users of a blob in the keys of mediaUse.
const (
	useMedia     = 'm' // a file has this content
	useThumbnail = 't' // a thumbnail is stored there
)

// Media returns a file's record. The error wraps ErrNotFound if there is none.
func (tx *Tx) Media(origin matrix.ServerName, id MediaID) (Media, error) {
	v := tx.get(bucketMedia, tx.mediaKey(origin, id))
	if v == nil {
		return Media{}, fmt.Errorf("media %s/%s: %w", origin, id, ErrNotFound)
	}
	m := Media{Origin: origin, ID: id}
	if err := m.read(v); err != nil {
		return Media{}, fmt.Errorf("media %s/%s: %w", origin, id, err)
	}
	return m, nil
}

// PutMedia stores a file's record. Its blob must have been committed before, and
// whoever deletes blobs must be kept away from in between. The error wraps
// ErrExists where the server and ID are taken.
func (tx *Tx) PutMedia(m Media) error {
	key := tx.mediaKey(m.Origin, m.ID)
	if tx.get(bucketMedia, key) != nil {
		return fmt.Errorf("media %s/%s: %w", m.Origin, m.ID, ErrExists)
	}
	if err := tx.put(bucketMedia, key, m.append(nil)); err != nil {
		return fmt.Errorf("media %s/%s: %w", m.Origin, m.ID, err)
	}
	if m.Origin != tx.store.server {
		if err := tx.putFetched(m); err != nil {
			return fmt.Errorf("media %s/%s: %w", m.Origin, m.ID, err)
		}
	}
	return tx.put(bucketMedia, tx.mediaUseKey(m), []byte{})
}

// DeleteMedia removes a file's record, and the thumbnails of its content if no
// other file has it. It returns the blobs that nothing refers to any more, for
// the caller to delete after the commit. The error wraps ErrNotFound.
func (tx *Tx) DeleteMedia(origin matrix.ServerName, id MediaID) (unused []blob.Hash, err error) {
	m, err := tx.Media(origin, id)
	if err != nil {
		return nil, err
	}
	err = errors.Join(tx.delete(bucketMedia, tx.mediaKey(origin, id)), tx.delete(bucketMedia, tx.mediaUseKey(m)))
	if err == nil && origin != tx.store.server {
		err = tx.deleteFetched(m)
	}
	if err != nil || tx.isMedia(m.Content) {
		return nil, err
	}
	thumbnails, err := tx.Thumbnails(m.Content)
	if err != nil {
		return nil, err
	}
	for _, t := range thumbnails {
		gone, err := tx.deleteThumbnail(t)
		if err != nil {
			return nil, err
		}
		unused = append(unused, gone...)
	}
	if !tx.BlobInUse(m.Content) {
		unused = append(unused, m.Content)
	}
	return unused, nil
}

// Thumbnail returns the thumbnail of a blob in a shape. The error wraps
// ErrNotFound if none was stored.
func (tx *Tx) Thumbnail(source blob.Hash, shape Shape) (Thumbnail, error) {
	v := tx.get(bucketMedia, thumbnailKey(source, shape))
	if v == nil {
		return Thumbnail{}, fmt.Errorf("thumbnail of %s: %w", source, ErrNotFound)
	}
	t := Thumbnail{Source: source, Shape: shape}
	if err := t.read(v); err != nil {
		return Thumbnail{}, fmt.Errorf("thumbnail of %s: %w", source, err)
	}
	return t, nil
}

// Thumbnails returns all thumbnails of a blob.
func (tx *Tx) Thumbnails(source blob.Hash) ([]Thumbnail, error) {
	var all []Thumbnail
	err := tx.scan(bucketMedia, thumbnailPrefix(source), nil, func(rest, value []byte) (bool, error) {
		t := Thumbnail{Source: source}
		err := errors.Join(t.Shape.read(rest), t.read(value))
		all = append(all, t)
		return true, err
	})
	if err != nil {
		return nil, fmt.Errorf("thumbnails of %s: %w", source, err)
	}
	return all, nil
}

// PutThumbnail stores the record of a thumbnail, under the terms of PutMedia,
// and returns the blobs that nothing refers to any more: where a blob has too
// many thumbnails, one makes room. The error wraps ErrNotFound if no file has
// the content that it was made of.
func (tx *Tx) PutThumbnail(t Thumbnail) (unused []blob.Hash, err error) {
	if !tx.isMedia(t.Source) {
		return nil, fmt.Errorf("thumbnail of %s: %w", t.Source, ErrNotFound)
	}
	old, err := tx.Thumbnails(t.Source)
	if err != nil {
		return nil, err
	}
	for i, o := range old {
		if o.Shape == t.Shape || i >= maxThumbnails-1 {
			gone, err := tx.deleteThumbnail(o)
			if err != nil {
				return nil, err
			}
			unused = append(unused, gone...)
		}
	}
	err = tx.put(bucketMedia, thumbnailKey(t.Source, t.Shape), t.append(nil))
	if err == nil && t.Type != "" {
		err = tx.put(bucketMedia, thumbnailUseKey(t), []byte{})
	}
	if err != nil {
		return nil, fmt.Errorf("thumbnail of %s: %w", t.Source, err)
	}
	// What the new one has in common with an old one is in use again.
	kept := unused[:0]
	for _, h := range unused {
		if !tx.BlobInUse(h) {
			kept = append(kept, h)
		}
	}
	return kept, nil
}

// deleteThumbnail removes a thumbnail's record and returns its blob if nothing
// else refers to it.
func (tx *Tx) deleteThumbnail(t Thumbnail) (unused []blob.Hash, err error) {
	if err := tx.delete(bucketMedia, thumbnailKey(t.Source, t.Shape)); err != nil || t.Type == "" {
		return nil, err
	}
	if err := tx.delete(bucketMedia, thumbnailUseKey(t)); err != nil || tx.BlobInUse(t.Content) {
		return nil, err
	}
	return []blob.Hash{t.Content}, nil
}

// BlobInUse says whether a file or a thumbnail has this content.
func (tx *Tx) BlobInUse(h blob.Hash) bool { return tx.hasPrefix(bucketMedia, mediaUsePrefix(h)) }

// isMedia says whether a file has this content.
func (tx *Tx) isMedia(h blob.Hash) bool {
	return tx.hasPrefix(bucketMedia, append(mediaUsePrefix(h), useMedia))
}

// hasPrefix says whether a bucket has a key with a prefix.
func (tx *Tx) hasPrefix(name bucketName, prefix []byte) bool {
	found := false
	_ = tx.scan(name, prefix, nil, func(_, _ []byte) (bool, error) { // fn alone makes errors
		found = true
		return false, nil
	})
	return found
}

// mediaKey is the key of a file's record. Our own server goes without name.
func (tx *Tx) mediaKey(origin matrix.ServerName, id MediaID) []byte {
	return append([]byte{mediaRecord}, tx.mediaName(origin, id)...)
}

func (tx *Tx) mediaName(origin matrix.ServerName, id MediaID) []byte {
	if origin == tx.store.server {
		origin = ""
	}
	return append(appendPart(nil, string(origin)), id...)
}

func mediaUsePrefix(h blob.Hash) []byte { return append([]byte{mediaUse}, h[:]...) }

func (tx *Tx) mediaUseKey(m Media) []byte {
	return append(append(mediaUsePrefix(m.Content), useMedia), tx.mediaName(m.Origin, m.ID)...)
}

func thumbnailUseKey(t Thumbnail) []byte {
	return append(append(mediaUsePrefix(t.Content), useThumbnail), thumbnailKey(t.Source, t.Shape)[1:]...)
}

func thumbnailPrefix(source blob.Hash) []byte { return append([]byte{mediaThumbnail}, source[:]...) }

func thumbnailKey(source blob.Hash, s Shape) []byte {
	method := byte('s')
	if s.Crop {
		method = 'c'
	}
	k := append(thumbnailPrefix(source), method)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(k, s.Width), s.Height)
}

// read reads what ends a thumbnail's key.
func (s *Shape) read(rest []byte) error {
	if len(rest) != 5 || rest[0] != 'c' && rest[0] != 's' {
		return fmt.Errorf("shape %x: %w", rest, ErrDamaged)
	}
	*s = Shape{Crop: rest[0] == 'c', Width: binary.BigEndian.Uint16(rest[1:]), Height: binary.BigEndian.Uint16(rest[3:])}
	return nil
}

// append encodes a record: content(32) size type name uploader created.
func (m *Media) append(b []byte) []byte {
	b = append(b, m.Content[:]...)
	b = binary.AppendUvarint(b, uint64(m.Size))
	b = appendString(b, m.Type)
	b = appendString(b, m.Name)
	b = binary.AppendUvarint(b, uint64(m.Uploader))
	return binary.AppendVarint(b, m.Created.UnixMilli())
}

func (m *Media) read(v []byte) error {
	r := reader{b: v}
	copy(m.Content[:], r.bytes(uint64(len(m.Content))))
	m.Size = int64(r.uvarint())
	m.Type, m.Name = r.string(), r.string()
	m.Uploader = UserNum(r.uvarint())
	m.Created = time.UnixMilli(r.varint())
	return r.err
}

// append encodes a thumbnail: type content(32) size; of one that cannot be made
// the empty type alone.
func (t *Thumbnail) append(b []byte) []byte {
	b = appendString(b, t.Type)
	if t.Type == "" {
		return b
	}
	return binary.AppendUvarint(append(b, t.Content[:]...), uint64(t.Size))
}

func (t *Thumbnail) read(v []byte) error {
	r := reader{b: v}
	if t.Type = r.string(); t.Type != "" {
		copy(t.Content[:], r.bytes(uint64(len(t.Content))))
		t.Size = int64(r.uvarint())
	}
	return r.err
}
