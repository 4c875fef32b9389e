package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hearth/store/blob"
)

// A PreviewKey says which preview of which URL is meant.
type PreviewKey [16]byte

// KeyOfPreview returns the key of a URL in a language, as the browser's header has
// it.
func KeyOfPreview(url, language string) PreviewKey {
	sum := sha256.Sum256([]byte(language + "\x00" + url))
	return PreviewKey(sum[:16])
}

// A Preview is what is known of a URL for some time.
//
// Spec: CS GET /_matrix/client/v1/media/preview_url.
type Preview struct {
	Expires time.Time // with milliseconds
	Image   MediaID   // of this server; empty: none. It goes with the preview.
	Content []byte    // a JSON object, as clients get it
}

// maxPreviews is how many previews are kept.
const maxPreviews = 256

// Preview returns what is known of a URL. The error wraps ErrNotFound where nothing
// is, or its time is over.
func (tx *Tx) Preview(key PreviewKey, now time.Time) (Preview, error) {
	p, err := tx.preview(key)
	if err == nil && !now.Before(p.Expires) {
		return Preview{}, fmt.Errorf("preview: expired: %w", ErrNotFound)
	}
	return p, err
}

func (tx *Tx) preview(key PreviewKey) (Preview, error) {
	v := tx.get(bucketMedia, previewKey(key))
	if v == nil {
		return Preview{}, fmt.Errorf("preview: %w", ErrNotFound)
	}
	r := reader{b: v}
	p := Preview{Expires: time.UnixMilli(int64(r.uvarint())), Image: MediaID(r.string())}
	p.Content = append([]byte(nil), r.b...)
	if r.err != nil {
		return Preview{}, fmt.Errorf("preview %x: %w", key, r.err)
	}
	return p, nil
}

// PutPreview stores a preview in place of what was known before, and removes those
// whose time is over by now; where there are too many, the oldest as well. It returns
// the blobs that nothing refers to any more.
func (tx *Tx) PutPreview(key PreviewKey, p Preview, now time.Time) (unused []blob.Hash, err error) {
	unused, err = tx.deletePreview(key)
	if err != nil {
		return nil, err
	}
	gone, err := tx.ExpirePreviews(now, maxPreviews-1)
	if err != nil {
		return nil, err
	}
	v := binary.AppendUvarint(nil, uint64(p.Expires.UnixMilli()))
	v = append(appendString(v, string(p.Image)), p.Content...)
	err = errors.Join(
		tx.put(bucketMedia, previewKey(key), v),
		tx.put(bucketMedia, previewAtKey(p.Expires, key), []byte{}),
	)
	if err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	return append(unused, gone...), nil
}

// ExpirePreviews removes the previews whose time is over, and the oldest beyond the
// keep newest. It returns the blobs that nothing refers to any more.
func (tx *Tx) ExpirePreviews(now time.Time, keep int) (unused []blob.Hash, err error) {
	var keys []PreviewKey
	expired := 0
	err = tx.scan(bucketMedia, []byte{mediaPreviewAt}, nil, func(rest, _ []byte) (bool, error) {
		if len(rest) != 8+len(PreviewKey{}) {
			return false, fmt.Errorf("preview: key %x: %w", rest, ErrDamaged)
		}
		if int64(u64(rest[:8])) <= now.UnixMilli() {
			expired++
		}
		keys = append(keys, PreviewKey(rest[8:]))
		return true, nil
	})
	for _, key := range keys[:max(expired, len(keys)-keep, 0)] {
		if err != nil {
			return nil, err
		}
		var gone []blob.Hash
		gone, err = tx.deletePreview(key)
		unused = append(unused, gone...)
	}
	return unused, err
}

// deletePreview removes a preview with its image. It is no error if there is none.
func (tx *Tx) deletePreview(key PreviewKey) (unused []blob.Hash, err error) {
	p, err := tx.preview(key)
	if err != nil {
		return nil, ignoreNotFound(err)
	}
	err = errors.Join(
		tx.delete(bucketMedia, previewKey(key)),
		tx.delete(bucketMedia, previewAtKey(p.Expires, key)),
	)
	if err != nil || p.Image == "" {
		return nil, err
	}
	unused, err = tx.DeleteMedia(tx.store.server, p.Image)
	return unused, ignoreNotFound(err)
}

func previewKey(key PreviewKey) []byte { return append([]byte{mediaPreview}, key[:]...) }

func previewAtKey(at time.Time, key PreviewKey) []byte {
	return append(appendU64([]byte{mediaPreviewAt}, uint64(at.UnixMilli())), key[:]...)
}

func (c *checker) checkPreview(key []byte) {
	if len(key) != len(PreviewKey{}) {
		c.faultf("preview: key %x", key)
		return
	}
	p, err := c.preview(PreviewKey(key))
	if err != nil {
		c.faultf("%v", err)
		return
	}
	if !c.has(previewAtKey(p.Expires, PreviewKey(key))) {
		c.faultf("preview %x does not expire", key)
	}
}

func (c *checker) checkPreviewAt(rest []byte) {
	if len(rest) != 8+len(PreviewKey{}) {
		c.faultf("preview: key %x", rest)
		return
	}
	p, err := c.preview(PreviewKey(rest[8:]))
	if err != nil || uint64(p.Expires.UnixMilli()) != u64(rest[:8]) {
		c.faultf("preview %x does not expire when it should: %v", rest[8:], err)
	}
}
