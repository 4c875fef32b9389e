package store

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// A preview goes when its time is over, or when there are too many, and takes its
// image along.
func TestPreview(t *testing.T) {
	s := openTest(t)
	now := time.UnixMilli(1_790_000_000_000)
	content := putBlob(t, s, "a picture")
	key := KeyOfPreview("https://example.org/", "")
	if key == KeyOfPreview("https://example.org/", "de") {
		t.Error("one preview for all languages")
	}
	update(t, s, func(tx *Tx) error {
		err := tx.PutMedia(Media{Origin: testServer, ID: "img", Content: content, Size: 9, Created: now})
		_, err2 := tx.PutPreview(key, Preview{Expires: now.Add(time.Hour), Image: "img", Content: []byte(`{"og:title":"x"}`)}, now)
		return errors.Join(err, err2)
	})
	view(t, s, func(tx *Tx) error {
		if p, err := tx.Preview(key, now); err != nil || p.Image != "img" || string(p.Content) != `{"og:title":"x"}` {
			t.Errorf("got %+v, %v", p, err)
		}
		if _, err := tx.Preview(key, now.Add(time.Hour)); !errors.Is(err, ErrNotFound) {
			t.Errorf("when its time is over: %v", err)
		}
		return nil
	})
	update(t, s, func(tx *Tx) error {
		for i := range maxPreviews + 5 {
			at := now.Add(2 * time.Hour).Add(time.Duration(i) * time.Second)
			unused, err := tx.PutPreview(KeyOfPreview(fmt.Sprint(i), ""), Preview{Expires: at, Content: []byte("{}")}, now)
			if err != nil {
				return err
			}
			if gone := i == maxPreviews-1; gone != (len(unused) == 1) {
				t.Errorf("preview %d leaves %v", i, unused)
			}
		}
		return nil
	})
	view(t, s, func(tx *Tx) error {
		if _, err := tx.Media(testServer, "img"); !errors.Is(err, ErrNotFound) {
			t.Errorf("the image of what is gone: %v", err)
		}
		if _, err := tx.Preview(KeyOfPreview("4", ""), now); !errors.Is(err, ErrNotFound) {
			t.Errorf("one too many: %v", err)
		}
		_, err := tx.Preview(KeyOfPreview("5", ""), now)
		return err
	})
	update(t, s, func(tx *Tx) error {
		_, err := tx.ExpirePreviews(now.Add(24*time.Hour), maxPreviews)
		return err
	})
	view(t, s, func(tx *Tx) error {
		if tx.hasPrefix(bucketMedia, []byte{mediaPreview}) || tx.hasPrefix(bucketMedia, []byte{mediaPreviewAt}) {
			t.Error("something is left")
		}
		return nil
	})
	if err := s.Blobs().Delete(content); err != nil {
		t.Error(err)
	}
}
