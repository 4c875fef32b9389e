package store

import (
	"bytes"
	"errors"

	"hearth/state/matrix"
	"hearth/store/blob"
)

// checkMedia leads each file and each thumbnail to its bytes and from those back,
// and each use of a blob to who uses it. A file that is deleted while the check
// runs may be reported: it reads one state of the records, and the folder as it
// goes.
func checkMedia(c *checker) error {
	var fetched uint64
	err := c.each(bucketMedia, nil, func(key, value []byte) {
		switch key[0] {
		case mediaRecord:
			c.checkMediaRecord(key[1:], value)
		case mediaThumbnail:
			c.checkThumbnail(key[1:], value)
		case mediaUse:
			c.checkMediaUse(key[1:])
		case mediaReserved:
			c.checkReservation(MediaID(key[1:]))
		case mediaReservedBy:
			c.checkReservedBy(key[1:])
		case mediaPreview:
			c.checkPreview(key[1:])
		case mediaPreviewAt:
			c.checkPreviewAt(key[1:])
		case mediaFetched:
			fetched += c.checkFetched(key[1:])
		case mediaFetchedAt:
			c.checkFetchedAt(key[1:])
		case mediaFetchedSum:
		default:
			c.faultf("media: key %x is of no known kind", key)
		}
	})
	if err == nil {
		c.checkFetchedSum(fetched)
	}
	return err
}

func (c *checker) checkMediaRecord(key, value []byte) {
	origin, id, found := bytes.Cut(key, []byte{0})
	m := Media{Origin: matrix.ServerName(origin), ID: MediaID(id)}
	if _, err := ParseMediaID(string(id)); err != nil || !found {
		c.faultf("media %q: %v", key, ErrBadMediaID)
		return
	}
	if err := m.read(value); err != nil {
		c.faultf("media %s: %v", m.ID, err)
		return
	}
	if m.Origin == c.store.server {
		c.faultf("media %s is under the name of this server", m.ID)
	}
	if m.Origin != "" && !c.has(append([]byte{mediaFetched}, key...)) {
		c.faultf("media %s of %s: its use is not known", m.ID, m.Origin)
	}
	if m.Uploader != 0 && !c.IsLocal(m.Uploader) {
		c.faultf("media %s: its uploader, user %d, has no account", m.ID, m.Uploader)
	}
	if !c.has(c.mediaUseKey(m)) {
		c.faultf("media %s: blob %s does not lead back", m.ID, m.Content)
	}
	c.checkBlob("media "+string(m.ID), m.Content, m.Size)
}

func (c *checker) checkThumbnail(key, value []byte) {
	var t Thumbnail
	err := t.Shape.read(key[copy(t.Source[:], key):])
	if err = errors.Join(err, t.read(value)); err != nil {
		c.faultf("thumbnail %x: %v", key, err)
		return
	}
	if !c.isMedia(t.Source) {
		c.faultf("thumbnail of %s, which no file has as its content", t.Source)
	}
	if t.Type == "" {
		return
	}
	if !c.has(thumbnailUseKey(t)) {
		c.faultf("thumbnail of %s: blob %s does not lead back", t.Source, t.Content)
	}
	c.checkBlob("thumbnail of "+t.Source.String(), t.Content, t.Size)
}

// checkMediaUse leads a use to the record that is its reason.
func (c *checker) checkMediaUse(key []byte) {
	var h, source blob.Hash
	rest := key[copy(h[:], key):]
	if len(rest) == 0 {
		c.faultf("use of a blob %x is cut short", key)
		return
	}
	sort, name := rest[0], rest[1:]
	switch sort {
	case useMedia:
		origin, id, _ := bytes.Cut(name, []byte{0})
		if m, err := c.Media(matrix.ServerName(origin), MediaID(id)); err != nil || m.Content != h {
			c.faultf("blob %s is said to be in use by media %q: %v", h, name, err)
		}
	case useThumbnail:
		var s Shape
		err := s.read(name[copy(source[:], name):])
		if err == nil {
			var t Thumbnail
			if t, err = c.Thumbnail(source, s); err == nil && t.Content != h {
				err = ErrDamaged
			}
		}
		if err != nil {
			c.faultf("blob %s is said to be in use by a thumbnail of %s: %v", h, source, err)
		}
	default:
		c.faultf("use of blob %s is of no known kind %q", h, sort)
	}
}

// has says whether bucket media has a key.
func (c *checker) has(key []byte) bool { return c.get(bucketMedia, key) != nil }

// checkBlob looks for a blob of this size.
func (c *checker) checkBlob(what string, h blob.Hash, size int64) {
	if got, err := c.store.blobs.Size(h); err != nil {
		c.faultf("%s: %v", what, err)
	} else if got != size {
		c.faultf("%s: blob %s has %d bytes instead of %d", what, h, got, size)
	}
}
