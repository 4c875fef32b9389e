package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/media/page"
	"hearth/server/media/picture"
	"hearth/server/remote"
	"hearth/store"
	"hearth/store/blob"
)

const (
	// maxPageBytes is how much of a page is read: what it tells about itself stands
	// at its top.
	maxPageBytes = 1 << 20
	// maxPreviewImage is the most bytes of the image of a preview.
	maxPreviewImage = 4 << 20
	// maxPreviewURL is the most bytes of a URL, and of its language.
	maxPreviewURL      = 2048
	maxPreviewLanguage = 128
	// previewLife is how long a preview is good, and badPreviewLife one of a page
	// that tells nothing.
	previewLife    = time.Hour
	badPreviewLife = 5 * time.Minute
	// previewTime is how long the making of a preview may take, its image included.
	previewTime = 20 * time.Second
	// maxPreviewing is how many previews are made at a time, and maxPreviewWait how
	// many wait for that.
	maxPreviewing  = 2
	maxPreviewWait = 64
	// previewWeight is the memory that making a preview may take, in bytes: a token
	// of the page may be all of it, twice while the buffer grows.
	previewWeight = 4 * maxPageBytes
)

// PreviewRedirects is how many redirects a request for a preview may follow.
const PreviewRedirects = 5

// previewAgent is how requests for previews present themselves.
const previewAgent = "Hearth (Matrix homeserver; bot for link previews)"

// Previews says whether the owner wants previews of links.
func (m *Repository) Previews() bool { return m.config.Previews != nil }

// Preview returns the OpenGraph properties of what a URL leads to, as a JSON object,
// in a language that is given as Accept-Language has it. Who asks while it is being
// fetched waits for the same; later it comes from the store for an hour. The error
// is M_UNRECOGNIZED where previews are off, M_INVALID_PARAM for what is no URL of
// the web, M_FORBIDDEN for one of a private network, and 502 M_UNKNOWN where nothing
// good came.
//
// Spec: CS GET /_matrix/client/v1/media/preview_url.
func (m *Repository) Preview(ctx context.Context, rawURL, language string) (jsontext.Value, error) {
	if !m.Previews() {
		return nil, api.ErrUnrecognized.Because("Previews of links are off")
	}
	at, err := previewURL(rawURL)
	if err != nil {
		return nil, err
	}
	if len(language) > maxPreviewLanguage {
		language = ""
	}
	key := store.KeyOfPreview(at.String(), language)
	if content, err := m.knownPreview(key); !errors.Is(err, store.ErrNotFound) {
		return content, err
	}
	if !m.previewWait.TryAcquire(1) {
		return nil, api.TryAfter(retryThumbnail)
	}
	defer m.previewWait.Release(1)
	content, err, _ := m.previewing.Do(string(key[:]), func() (any, error) {
		// Others may wait for it too, so it goes on when this client leaves.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), previewTime)
		defer cancel()
		return m.makePreview(ctx, at, language, key)
	})
	if err != nil {
		return nil, previewError(err)
	}
	return content.(jsontext.Value), nil
}

// previewURL reads a URL of the web, without what follows a #.
func previewURL(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, api.MissingParam("url")
	}
	u, err := url.Parse(raw)
	if err != nil || len(raw) > maxPreviewURL || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, api.ErrInvalidParam.Because("url must be one of the web")
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// knownPreview returns a preview that is stored and still good.
func (m *Repository) knownPreview(key store.PreviewKey) (jsontext.Value, error) {
	var p store.Preview
	err := m.store.View(func(tx *store.Tx) (err error) {
		p, err = tx.Preview(key, m.now())
		return err
	})
	return p.Content, err
}

// previewError says what a fault means for who asked.
func previewError(err error) error {
	var known *api.Error
	switch {
	case errors.As(err, &known), errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrFull):
		return err
	case errors.Is(err, remote.ErrPrivateAddress):
		return api.ErrForbidden.Because("The URL leads to a private network")
	case errors.Is(err, errFetch):
		return api.ErrUnknown.WithStatus(http.StatusBadGateway).Because("The URL cannot be fetched")
	}
	return err
}

// errFetch is wrapped where the other side is at fault.
var errFetch = errors.New("fetch for a preview")

// makePreview fetches what a URL leads to, and stores its preview.
func (m *Repository) makePreview(ctx context.Context, at *url.URL, language string, key store.PreviewKey) (jsontext.Value, error) {
	if content, err := m.knownPreview(key); !errors.Is(err, store.ErrNotFound) {
		return content, err // made while this one waited
	}
	if err := m.previewTurn.Acquire(ctx, 1); err != nil {
		return nil, api.TryAfter(retryThumbnail)
	}
	defer m.previewTurn.Release(1)
	release, err := m.config.Budget(ctx, previewWeight)
	if err != nil {
		return nil, fmt.Errorf("memory for a preview: %w", err)
	}
	defer release()
	found, err := m.look(ctx, at, language)
	if err != nil {
		return nil, err
	}
	p := store.Preview{Expires: m.now().Add(previewLife), Image: found.image}
	if len(found.properties) == 0 {
		p.Expires = m.now().Add(badPreviewLife)
	}
	if p.Content, err = json.Marshal(found.properties, json.Deterministic(true)); err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	var unused []blob.Hash
	err = m.store.Update(ctx, func(tx *store.Tx) (err error) {
		unused, err = tx.PutPreview(key, p, m.now())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("preview: %w", err)
	}
	m.deleteAllUnused(unused)
	return p.Content, nil
}

// seen is what a URL leads to.
type seen struct {
	properties map[string]any // strings and, of the image, integers
	image      store.MediaID  // empty: none
}

// look fetches what a URL leads to: a page with its image, or an image.
func (m *Repository) look(ctx context.Context, at *url.URL, language string) (seen, error) {
	res, err := m.fetch(ctx, at, language, "text/html, application/xhtml+xml, image/*;q=0.8")
	if err != nil {
		return seen{}, err
	}
	defer res.Body.Close()
	s := seen{properties: make(map[string]any)}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case strings.HasPrefix(kind, "image/"):
		if name := path.Base(res.Request.URL.Path); name != "/" && name != "." {
			s.properties["og:title"] = strings.ToValidUTF8(name, "")
		}
		return s, m.addImage(ctx, &s, res)
	case kind != "text/html" && kind != "application/xhtml+xml":
		return s, nil
	}
	properties, err := page.Read(io.LimitReader(res.Body, maxPageBytes))
	if err != nil {
		return s, fmt.Errorf("%w: %w", errFetch, err)
	}
	for name, text := range properties {
		if name != "og:image" && !strings.HasPrefix(name, "og:image:") {
			s.properties[name] = text
		}
	}
	res.Body.Close() // before the next request
	if image, err := res.Request.URL.Parse(properties["og:image"]); err == nil && properties["og:image"] != "" {
		m.lookAtImage(ctx, &s, image)
	}
	return s, nil
}

// lookAtImage adds the image of a page. A page without image is better than none.
func (m *Repository) lookAtImage(ctx context.Context, s *seen, at *url.URL) {
	if _, err := previewURL(at.String()); err != nil {
		return
	}
	res, err := m.fetch(ctx, at, "", "image/*")
	if err == nil {
		defer res.Body.Close()
		err = m.addImage(ctx, s, res)
	}
	if err != nil {
		m.log.Debug("the image of a preview could not be had", "err", err)
	}
}

// fetch requests a URL.
func (m *Repository) fetch(ctx context.Context, at *url.URL, language, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFetch, err)
	}
	req.Header.Set("User-Agent", previewAgent)
	req.Header.Set("Accept", accept)
	if language != "" {
		req.Header.Set("Accept-Language", language)
	}
	res, err := m.config.Previews.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFetch, err)
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fmt.Errorf("%w: status %d", errFetch, res.StatusCode)
	}
	return res, nil
}

// addImage stores the image of a response as a file of this server's, and adds its
// properties. What is no picture that can be read here is left out.
func (m *Repository) addImage(ctx context.Context, s *seen, res *http.Response) error {
	w, err := m.blobs.Create(maxPreviewImage)
	if err != nil {
		return fmt.Errorf("image of a preview: %w", err)
	}
	defer w.Abort()
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("%w: %w", errFetch, err)
	}
	record := store.Media{Origin: m.store.Server(), ID: newMediaID(), Type: unknownType, Created: m.now()}
	var p *picture.Picture
	err = m.commitPicture(ctx, w, func(tx *store.Tx, h blob.Hash, size int64, found *picture.Picture) error {
		p, record.Content, record.Size, record.Type = found, h, size, string(found.Format)
		return tx.PutMedia(record)
	})
	if err != nil {
		if errors.Is(err, picture.ErrFormat) || errors.Is(err, picture.ErrBroken) || errors.Is(err, picture.ErrTooLarge) {
			return nil
		}
		return fmt.Errorf("image of a preview: %w", err)
	}
	s.image = record.ID
	s.properties["og:image"] = "mxc://" + string(record.Origin) + "/" + string(record.ID)
	s.properties["og:image:type"] = record.Type
	s.properties["og:image:width"], s.properties["og:image:height"] = p.Width, p.Height
	s.properties["matrix:image:size"] = record.Size
	return nil
}

// commitPicture is commit for what must be a picture. What is none goes at once.
func (m *Repository) commitPicture(ctx context.Context, w *blob.Writer, put func(*store.Tx, blob.Hash, int64, *picture.Picture) error) error {
	m.referring.RLock()
	h, size, err := w.Commit()
	if err == nil {
		err = m.referToPicture(ctx, h, size, put)
	}
	m.referring.RUnlock()
	if err != nil {
		m.deleteAllUnused([]blob.Hash{h})
	}
	return err
}

// referToPicture has put store the record of a picture. Call it with referring held.
func (m *Repository) referToPicture(ctx context.Context, h blob.Hash, size int64, put func(*store.Tx, blob.Hash, int64, *picture.Picture) error) error {
	f, err := m.open(h)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := picture.Open(f, size)
	if err != nil {
		return err
	}
	return m.store.Update(ctx, func(tx *store.Tx) error { return put(tx, h, size, p) })
}

// sweepPreviews removes the previews whose time is over, and their images.
func (m *Repository) sweepPreviews(ctx context.Context) error {
	var unused []blob.Hash
	err := m.store.Update(ctx, func(tx *store.Tx) (err error) {
		unused, err = tx.ExpirePreviews(m.now(), maxKeptPreviews)
		return err
	})
	if err != nil {
		return fmt.Errorf("remove old previews: %w", err)
	}
	m.deleteAllUnused(unused)
	return nil
}

// maxKeptPreviews is more previews than the store keeps: a sweep removes none that
// are good.
const maxKeptPreviews = 1 << 20
