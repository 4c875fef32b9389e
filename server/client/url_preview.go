package client

import (
	"net/http"

	"hearth/server/api"
)

// getUrlPreviewAuthed answers GET /_matrix/client/v1/media/preview_url. The newest
// version is as good as any: ts, the time to show the page of, is not looked at.
//
// Spec: CS Content repository.
func (s *Server) getUrlPreviewAuthed(w http.ResponseWriter, r *http.Request, who session) error {
	if s.media.Previews() {
		if err := s.limits.Take(api.LimitSearch, string(who.user)); err != nil {
			return err
		}
	}
	preview, err := s.media.Preview(r.Context(), r.URL.Query().Get("url"), r.Header.Get("Accept-Language"))
	if err != nil {
		return err
	}
	return api.WriteJSON(w, preview)
}

// getUrlPreview answers GET /_matrix/media/v3/preview_url, the old name of the same.
func (s *Server) getUrlPreview(w http.ResponseWriter, r *http.Request, who session) error {
	return s.getUrlPreviewAuthed(w, r, who)
}
