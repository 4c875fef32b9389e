package client

import (
	"net/http"

	"hearth/server/api"
	"hearth/server/media"
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
	want, err := wanted(r)
	if err != nil {
		return err
	}
	return s.media.Download(w, r, want, name)
}

// getContentThumbnailAuthed answers GET
// /_matrix/client/v1/media/thumbnail/{serverName}/{mediaID}.
func (s *Server) getContentThumbnailAuthed(w http.ResponseWriter, r *http.Request, _ session) error {
	want, err := wanted(r)
	if err != nil {
		return err
	}
	req, err := media.ReadThumbnailRequest(r.URL.Query())
	if err != nil {
		return err
	}
	return s.media.Thumbnail(w, r, want, req)
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

// wanted reads which file a request wants. Only the old endpoints know allow_remote:
// "to prevent routing loops where the server contacts itself".
func wanted(r *http.Request) (want media.Want, err error) {
	if want.Origin, want.ID, err = contentURI(r); err != nil {
		return want, err
	}
	q := r.URL.Query()
	switch q.Get("allow_remote") {
	case "", "true":
	case "false":
		want.HereOnly = true
	default:
		return want, api.ErrInvalidParam.Because("allow_remote must be true or false")
	}
	want.Wait, err = media.ReadWait(q)
	return want, err
}
