package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hearth/store/blob"
)

// putBlob stores bytes as an upload does.
func putBlob(t *testing.T, s *Store, content string) blob.Hash {
	t.Helper()
	w, err := s.Blobs().Create(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	h, _, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestMedia(t *testing.T) {
	s := openTest(t)
	content := putBlob(t, s, "a picture")
	want := Media{
		Origin: testServer, ID: "abc", Content: content, Size: 9, Type: "image/png", Name: "ein Bild 🐔.png",
		Created: time.UnixMilli(1_790_000_000_123),
	}
	remote := want
	remote.Origin, remote.Name = "elsewhere.example", ""
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.PutMedia(want), tx.PutMedia(remote))
	})
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.PutMedia(want) })
	if !errors.Is(err, ErrExists) {
		t.Errorf("the same ID again: %v", err)
	}
	view(t, s, func(tx *Tx) error {
		for _, m := range []Media{want, remote} {
			if got, err := tx.Media(m.Origin, m.ID); err != nil || got != m {
				t.Errorf("got %+v, %v\nwant %+v", got, err, m)
			}
		}
		if _, err := tx.Media(testServer, "ab"); !errors.Is(err, ErrNotFound) {
			t.Errorf("an unknown file: %v", err)
		}
		return nil
	})
}

// A blob is in use as long as a file or a thumbnail has it, and the thumbnails
// go with the last file.
func TestBlobUse(t *testing.T) {
	s := openTest(t)
	content, small := putBlob(t, s, "a picture"), putBlob(t, s, "a thumbnail")
	shape := Shape{Crop: true, Width: 96, Height: 64}
	var unused []blob.Hash
	update(t, s, func(tx *Tx) (err error) {
		if _, err = tx.PutThumbnail(Thumbnail{Source: content, Shape: shape}); !errors.Is(err, ErrNotFound) {
			t.Errorf("a thumbnail of nothing: %v", err)
		}
		for _, id := range []MediaID{"one", "two"} {
			if err := tx.PutMedia(Media{Origin: testServer, ID: id, Content: content, Size: 9}); err != nil {
				return err
			}
		}
		none := Shape{Width: 32, Height: 32}
		if _, err := tx.PutThumbnail(Thumbnail{Source: content, Shape: none}); err != nil {
			return err
		}
		if got, err := tx.Thumbnail(content, none); err != nil || got.Type != "" {
			t.Errorf("one that cannot be made: %+v, %v", got, err)
		}
		_, err = tx.PutThumbnail(Thumbnail{Source: content, Shape: shape, Type: "image/png", Content: small, Size: 11})
		return err
	})
	update(t, s, func(tx *Tx) (err error) {
		unused, err = tx.DeleteMedia(testServer, "one")
		return err
	})
	if len(unused) != 0 {
		t.Errorf("with a file left, nobody uses %v", unused)
	}
	update(t, s, func(tx *Tx) error {
		got, err := tx.Thumbnail(content, shape)
		if err != nil || got.Content != small || got.Size != 11 || got.Shape != shape {
			t.Errorf("thumbnail %+v, %v", got, err)
		}
		if !tx.BlobInUse(small) || !tx.BlobInUse(content) || tx.BlobInUse(blob.Hash{}) {
			t.Error("the wrong blobs are in use")
		}
		unused, err = tx.DeleteMedia(testServer, "two")
		return err
	})
	if !slices.Contains(unused, content) || !slices.Contains(unused, small) || len(unused) != 2 {
		t.Errorf("nobody uses %v", unused)
	}
	update(t, s, func(tx *Tx) error {
		if tx.BlobInUse(content) || tx.BlobInUse(small) {
			t.Error("a blob is still in use")
		}
		if _, err := tx.DeleteMedia(testServer, "two"); !errors.Is(err, ErrNotFound) {
			t.Errorf("deleted twice: %v", err)
		}
		return nil
	})
}

// However many shapes are asked for, a blob has few thumbnails, and what makes
// room is told.
func TestThumbnailsAreFew(t *testing.T) {
	s := openTest(t)
	content := putBlob(t, s, "a picture")
	update(t, s, func(tx *Tx) error {
		return tx.PutMedia(Media{Origin: testServer, ID: "id", Content: content, Size: 9})
	})
	gone := 0
	for i := range maxThumbnails + 10 {
		bytes := fmt.Sprintf("thumbnail %2d", i)
		h := putBlob(t, s, bytes)
		var unused []blob.Hash
		put := func(tx *Tx) (err error) {
			unused, err = tx.PutThumbnail(Thumbnail{
				Source: content, Shape: Shape{Width: uint16(1 + i), Height: 1}, Type: "image/png", Content: h, Size: int64(len(bytes)),
			})
			return err
		}
		update(t, s, put)
		gone += len(unused)
		update(t, s, put) // again: it takes the place of itself
		if len(unused) != 0 {
			t.Errorf("the same thumbnail again leaves %v", unused)
		}
	}
	if gone != 10 {
		t.Errorf("%d thumbnails made room, want 10", gone)
	}
	view(t, s, func(tx *Tx) error {
		all, err := tx.Thumbnails(content)
		if len(all) != maxThumbnails {
			t.Errorf("%d thumbnails", len(all))
		}
		return err
	})
}

func TestParseMediaID(t *testing.T) {
	for _, good := range []string{"a", "AZaz09_-", strings.Repeat("x", 255)} {
		if id, err := ParseMediaID(good); err != nil || string(id) != good {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a\x00", "é", "a b", "%2e", strings.Repeat("x", 256)} {
		if _, err := ParseMediaID(bad); !errors.Is(err, ErrBadMediaID) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Check sees what is wrong with media.
func TestCheckMedia(t *testing.T) {
	good := func(t *testing.T, s *Store) Media {
		m := Media{Origin: testServer, ID: "id", Content: putBlob(t, s, "content"), Size: 7}
		small := putBlob(t, s, "small")
		update(t, s, func(tx *Tx) error {
			err := tx.PutMedia(m)
			if err == nil {
				_, err = tx.PutThumbnail(Thumbnail{Source: m.Content, Shape: Shape{Width: 1, Height: 1}, Type: "image/png", Content: small, Size: 5})
			}
			return err
		})
		return m
	}
	for name, harm := range map[string]func(tx *Tx, m Media) error{
		"a blob is missing":     func(tx *Tx, m Media) error { return tx.store.blobs.Delete(m.Content) },
		"a record is gone":      func(tx *Tx, m Media) error { return tx.delete(bucketMedia, tx.mediaKey(m.Origin, m.ID)) },
		"a use is gone":         func(tx *Tx, m Media) error { return tx.delete(bucketMedia, tx.mediaUseKey(m)) },
		"a record is cut short": func(tx *Tx, m Media) error { return tx.put(bucketMedia, tx.mediaKey(m.Origin, m.ID), []byte{1}) },
		"a size is wrong": func(tx *Tx, m Media) error {
			m.Size++
			return tx.put(bucketMedia, tx.mediaKey(m.Origin, m.ID), m.append(nil))
		},
		"a thumbnail has no source": func(tx *Tx, m Media) error { return tx.put(bucketMedia, thumbnailKey(blob.Hash{}, Shape{}), []byte{0}) },
		"a key is unknown":          func(tx *Tx, m Media) error { return tx.put(bucketMedia, []byte("?"), []byte{0}) },
		"a use is cut short":        func(tx *Tx, m Media) error { return tx.put(bucketMedia, []byte{mediaUse, 1}, []byte{}) },
		"a thumbnail is cut short":  func(tx *Tx, m Media) error { return tx.put(bucketMedia, []byte{mediaThumbnail, 1}, []byte{}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openDir(t, t.TempDir())
			defer closeStore(t, s)
			m := good(t, s)
			update(t, s, func(tx *Tx) error { return harm(tx, m) })
			faults := 0
			view(t, s, func(tx *Tx) error {
				return checkMedia(&checker{Tx: tx, ctx: t.Context(), report: func(string) { faults++ }})
			})
			if faults == 0 {
				t.Error("Check sees nothing")
			}
		})
	}
}
