package client

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"hearth/server/api"
	"hearth/server/media"
	"hearth/server/media/picture"
	"hearth/state/matrix"
	"hearth/store"
)

type uploadContentResponse struct {
	ContentURI string `json:"content_uri"`
}

// uploadContent answers POST /_matrix/media/v3/upload.
func (s *Server) uploadContent(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitUpload, string(who.user)); err != nil {
		return err
	}
	id, err := s.media.Upload(r.Context(), uploadOf(r, who))
	if err != nil {
		return err
	}
	return api.WriteJSON(w, uploadContentResponse{ContentURI: s.contentURIOf(id)})
}

// uploadOf returns the file that a request sends.
func uploadOf(r *http.Request, who session) media.Upload {
	return media.Upload{
		User:   who.num,
		Type:   r.Header.Get("Content-Type"),
		Name:   r.URL.Query().Get("filename"),
		Body:   r.Body,
		Length: r.ContentLength,
	}
}

// contentURIOf returns the mxc:// URI of a file of this server.
func (s *Server) contentURIOf(id store.MediaID) string {
	return "mxc://" + string(s.store.Server()) + "/" + string(id)
}

type createContentResponse struct {
	ContentURI      string `json:"content_uri"`
	UnusedExpiresAt int64  `json:"unused_expires_at"` // milliseconds
}

// createContent answers POST /_matrix/media/v1/create.
func (s *Server) createContent(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitUpload, string(who.user)); err != nil {
		return err
	}
	reserved, err := s.media.Reserve(r.Context(), who.num)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, createContentResponse{
		ContentURI: s.contentURIOf(reserved.ID), UnusedExpiresAt: reserved.Expires.UnixMilli(),
	})
}

// uploadContentToMXC answers PUT /_matrix/media/v3/upload/{serverName}/{mediaID}.
func (s *Server) uploadContentToMXC(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitUpload, string(who.user)); err != nil {
		return err
	}
	origin, id, err := contentURI(r)
	if err != nil {
		return err
	}
	if err := s.media.Fill(r.Context(), origin, id, uploadOf(r, who)); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

type getConfigResponse struct {
	UploadSize int64 `json:"m.upload.size"`
}

// getConfigAuthed answers GET /_matrix/client/v1/media/config.
func (s *Server) getConfigAuthed(w http.ResponseWriter, _ *http.Request, _ session) error {
	return api.WriteJSON(w, getConfigResponse{UploadSize: s.media.MaxUpload()})
}

// getConfig answers GET /_matrix/media/v3/config, the old name of the same.
func (s *Server) getConfig(w http.ResponseWriter, r *http.Request, who session) error {
	return s.getConfigAuthed(w, r, who)
}

// getContentAuthed answers GET /_matrix/client/v1/media/download/{serverName}/{mediaID}.
func (s *Server) getContentAuthed(w http.ResponseWriter, r *http.Request, _ session) error {
	return s.download(w, r, "")
}

// getContentOverrideNameAuthed answers GET
// /_matrix/client/v1/media/download/{serverName}/{mediaID}/{fileName}.
func (s *Server) getContentOverrideNameAuthed(w http.ResponseWriter, r *http.Request, _ session) error {
	return s.download(w, r, r.PathValue("fileName"))
}

func (s *Server) download(w http.ResponseWriter, r *http.Request, name string) error {
	origin, id, err := contentURI(r)
	if err != nil {
		return err
	}
	timeout, err := contentTimeout(r.URL.Query())
	if err != nil {
		return err
	}
	return s.media.Download(w, r, origin, id, name, timeout)
}

// getContentThumbnailAuthed answers GET
// /_matrix/client/v1/media/thumbnail/{serverName}/{mediaID}.
func (s *Server) getContentThumbnailAuthed(w http.ResponseWriter, r *http.Request, _ session) error {
	origin, id, err := contentURI(r)
	if err != nil {
		return err
	}
	req, err := thumbnailRequest(r.URL.Query())
	if err != nil {
		return err
	}
	timeout, err := contentTimeout(r.URL.Query())
	if err != nil {
		return err
	}
	return s.media.Thumbnail(w, r, origin, id, req, timeout)
}

// getContent answers GET /_matrix/media/v3/download/{serverName}/{mediaID}.
func (s *Server) getContent(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.unfrozen(); err != nil {
		return err
	}
	return s.getContentAuthed(w, r, who)
}

// getContentOverrideName answers GET
// /_matrix/media/v3/download/{serverName}/{mediaID}/{fileName}.
func (s *Server) getContentOverrideName(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.unfrozen(); err != nil {
		return err
	}
	return s.getContentOverrideNameAuthed(w, r, who)
}

// getContentThumbnail answers GET /_matrix/media/v3/thumbnail/{serverName}/{mediaID}.
func (s *Server) getContentThumbnail(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.unfrozen(); err != nil {
		return err
	}
	return s.getContentThumbnailAuthed(w, r, who)
}

// unfrozen returns M_NOT_FOUND where the old endpoints give nothing away: "This
// endpoint MAY return 404 M_NOT_FOUND for media which exists, but is after the
// server froze unauthenticated media access." This server has no media from
// before.
func (s *Server) unfrozen() error {
	if s.config.LegacyMedia {
		return nil
	}
	return api.ErrNotFound.Because("Media are to be had with an access token, under /_matrix/client/v1/media")
}

// contentURI returns the parts of an mxc:// URI that stand in a path.
func contentURI(r *http.Request) (matrix.ServerName, store.MediaID, error) {
	origin, err := matrix.ParseServerName(r.PathValue("serverName"))
	if err != nil {
		return "", "", api.InvalidParam("serverName", err)
	}
	id, err := store.ParseMediaID(r.PathValue("mediaID"))
	if err != nil {
		return "", "", api.InvalidParam("mediaId", err)
	}
	return origin, id, nil
}

// How long a request waits for a file that is to come.
const (
	usualContentTimeout = 20 * time.Second
	maxContentTimeout   = time.Minute
)

// contentTimeout reads timeout_ms: "The maximum number of milliseconds that the
// client is willing to wait to start receiving data, in the case that the content
// has not yet been uploaded. The default value is 20000 (20 seconds). The content
// repository SHOULD impose a maximum value for this parameter."
func contentTimeout(q url.Values) (time.Duration, error) {
	if !q.Has("timeout_ms") {
		return usualContentTimeout, nil
	}
	ms, err := strconv.ParseUint(q.Get("timeout_ms"), 10, 63)
	if err != nil {
		return 0, api.ErrInvalidParam.Because("timeout_ms must be a number of milliseconds")
	}
	return time.Duration(min(ms, uint64(maxContentTimeout/time.Millisecond))) * time.Millisecond, nil
}

// thumbnailRequest reads the parameters of the thumbnail endpoints.
func thumbnailRequest(q url.Values) (req picture.Request, err error) {
	if req.Width, err = thumbnailSide(q, "width"); err != nil {
		return req, err
	}
	if req.Height, err = thumbnailSide(q, "height"); err != nil {
		return req, err
	}
	switch method := q.Get("method"); method {
	case "", "scale":
		req.Method = picture.Scale
	case "crop":
		req.Method = picture.Crop
	default:
		return req, api.ErrInvalidParam.Because("method must be scale or crop")
	}
	req.Animated = q.Get("animated") == "true"
	return req, nil
}

// thumbnailSide reads a width or height in pixels.
func thumbnailSide(q url.Values, name string) (int, error) {
	if !q.Has(name) {
		return 0, api.MissingParam(name)
	}
	n, err := strconv.ParseUint(q.Get(name), 10, 31)
	if err != nil || n == 0 {
		return 0, api.ErrInvalidParam.Because("%s must be a number of pixels, more than 0", name)
	}
	return int(n), nil
}
