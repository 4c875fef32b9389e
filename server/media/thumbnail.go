package media

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"hearth/server/api"
	"hearth/server/media/picture"
	"hearth/store"
	"hearth/store/blob"
)

// maxThumbnailBytes is the most bytes of a thumbnail. None can have more, as its
// pixels are within picture.MaxWeight.
const maxThumbnailBytes = 32 << 20

// heavy is the weight from which the memory of a thumbnail is given back to the
// system at once, in bytes.
const heavy = 4_000_000

// Thumbnail answers with a thumbnail of a file, or with the file itself where
// that is the best answer. The error is 400 M_UNKNOWN if it is no picture that can be
// made smaller, 413 M_TOO_LARGE if that would take too much, 502 where the file is
// another server's, and M_LIMIT_EXCEEDED if too many wait for theirs; and those of
// [Repository.Download], which says whence the file comes.
//
// Spec: CS GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}.
func (m *Repository) Thumbnail(w http.ResponseWriter, r *http.Request, want Want, req picture.Request) error {
	s, err := m.smaller(r, want, req)
	if err != nil {
		return err
	}
	return m.serve(w, r, s)
}

// smaller returns the thumbnail of a file that somebody wants.
func (m *Repository) smaller(r *http.Request, want Want, req picture.Request) (served, error) {
	found, err := m.await(r, want)
	if err != nil {
		return served{}, err
	}
	t, err := m.thumbnail(r.Context(), found, req)
	if err == nil && t.Type == "" {
		err = picture.ErrBroken
	}
	if err != nil {
		err = pictureError(err)
		if errors.Is(err, api.ErrTooLarge) && want.Origin != m.store.Server() {
			err = api.ErrTooLarge.WithStatus(http.StatusBadGateway).Because("Content is too large to thumbnail")
		}
		return served{}, err
	}
	name := "thumbnail" + extensions[picture.Format(t.Type)]
	return served{content: t.Content, created: found.Created, mediaType: t.Type, name: name}, nil
}

// extensions end the file names of thumbnails.
var extensions = map[picture.Format]string{
	picture.JPEG: ".jpg", picture.PNG: ".png", picture.GIF: ".gif", picture.WebP: ".webp",
}

// pictureError says what a fault of a picture means for who asked for it.
func pictureError(err error) error {
	switch {
	case errors.As(err, new(*fs.PathError)):
		return err // of the disk
	case errors.Is(err, picture.ErrTooLarge):
		return api.ErrTooLarge.Because("Content is too large to thumbnail")
	case errors.Is(err, picture.ErrFormat), errors.Is(err, picture.ErrBroken):
		return api.ErrUnknown.WithStatus(http.StatusBadRequest).Because("Cannot generate thumbnails for the requested content")
	}
	return err
}

// thumbnail returns the thumbnail of a file, which it makes if there is none yet.
func (m *Repository) thumbnail(ctx context.Context, found store.Media, req picture.Request) (store.Thumbnail, error) {
	f, err := m.open(found.Content)
	if err != nil {
		return store.Thumbnail{}, err
	}
	defer f.Close()
	p, plan, err := openPicture(f, found.Size, req)
	if err != nil {
		return store.Thumbnail{}, fmt.Errorf("thumbnail: %w", err)
	}
	if plan.Whole {
		return store.Thumbnail{Type: string(p.Format), Content: found.Content, Size: found.Size}, nil
	}
	shape := store.Shape{Crop: req.Method == picture.Crop, Width: uint16(plan.Width), Height: uint16(plan.Height)}
	if t, err := m.made(found.Content, shape); !errors.Is(err, store.ErrNotFound) {
		return t, err
	}
	if err := m.takeTurn(ctx); err != nil {
		return store.Thumbnail{}, err
	}
	defer m.turn.Release(1)
	if t, err := m.made(found.Content, shape); !errors.Is(err, store.ErrNotFound) {
		return t, err // made while this one waited
	}
	release, err := m.config.Budget(ctx, plan.Weight)
	if err != nil {
		return store.Thumbnail{}, fmt.Errorf("memory for a thumbnail: %w", err)
	}
	defer release()
	if plan.Weight > heavy {
		// Without this the next picture would come on top of what this one has
		// left behind: the budget counts memory in use, the board counts both.
		defer debug.FreeOSMemory()
	}
	return m.make(ctx, p, plan, store.Thumbnail{Source: found.Content, Shape: shape})
}

// openPicture reads the header of a file and plans the thumbnail.
func openPicture(f *os.File, size int64, req picture.Request) (*picture.Picture, picture.Plan, error) {
	p, err := picture.Open(f, size)
	if err != nil {
		return nil, picture.Plan{}, err
	}
	plan, err := p.Plan(req)
	return p, plan, err
}

// made returns a thumbnail that is stored. The error wraps store.ErrNotFound if
// there is none.
func (m *Repository) made(source blob.Hash, shape store.Shape) (t store.Thumbnail, err error) {
	err = m.store.View(func(tx *store.Tx) error {
		t, err = tx.Thumbnail(source, shape)
		return err
	})
	return t, err
}

// retryThumbnail is when somebody may ask again after too many have.
const retryThumbnail = 2 * time.Second

// takeTurn waits until no other thumbnail is being made. The caller releases the
// turn.
func (m *Repository) takeTurn(ctx context.Context) error {
	if !m.waiting.TryAcquire(1) {
		return api.TryAfter(retryThumbnail)
	}
	defer m.waiting.Release(1)
	if err := m.turn.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("wait to make a thumbnail: %w", err)
	}
	return nil
}

// make makes a thumbnail and stores it. That a picture is broken is stored, too:
// nobody finds that out twice.
func (m *Repository) make(ctx context.Context, p *picture.Picture, plan picture.Plan, t store.Thumbnail) (store.Thumbnail, error) {
	w, err := m.blobs.Create(maxThumbnailBytes)
	if err != nil {
		return t, fmt.Errorf("thumbnail: %w", err)
	}
	defer w.Abort()
	format, err := p.Thumbnail(ctx, plan, w)
	var unused []blob.Hash
	switch {
	case err == nil:
		err = m.commit(ctx, w, func(tx *store.Tx, h blob.Hash, size int64) (err error) {
			t.Type, t.Content, t.Size = string(format), h, size
			unused, err = tx.PutThumbnail(t)
			return err
		})
	case isBroken(err):
		err = m.store.Update(ctx, func(tx *store.Tx) (err error) {
			unused, err = tx.PutThumbnail(t)
			return err
		})
	}
	if err != nil {
		return t, fmt.Errorf("thumbnail: %w", err)
	}
	m.deleteAllUnused(unused)
	return t, nil
}

// isBroken says whether a picture cannot be made smaller, ever.
func isBroken(err error) bool {
	return !errors.As(err, new(*fs.PathError)) && (errors.Is(err, picture.ErrBroken) || errors.Is(err, picture.ErrTooLarge))
}
