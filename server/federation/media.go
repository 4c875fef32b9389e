package federation

import (
	"net/http"

	"hearth/server/api"
	"hearth/server/media"
	"hearth/state/matrix"
	"hearth/store"
)

// getContent answers GET /media/download/{mediaID}: a file of this server.
//
// Spec: SS content_repository.yaml.
func (s *Server) getContent(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	id, err := s.pathMedia(r)
	if err != nil {
		return err
	}
	wait, err := media.ReadWait(r.URL.Query())
	if err != nil {
		return err
	}
	return s.media.DownloadParts(w, r, id, wait)
}

// getContentThumbnail answers GET /media/thumbnail/{mediaID}: a smaller picture of a
// file of this server.
//
// Spec: SS content_repository.yaml.
func (s *Server) getContentThumbnail(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	id, err := s.pathMedia(r)
	if err != nil {
		return err
	}
	wait, err := media.ReadWait(r.URL.Query())
	if err != nil {
		return err
	}
	req, err := media.ReadThumbnailRequest(r.URL.Query())
	if err != nil {
		return err
	}
	return s.media.ThumbnailParts(w, r, id, req, wait)
}

// pathMedia reads the file of a path.
func (s *Server) pathMedia(r *http.Request) (store.MediaID, error) {
	if s.media == nil {
		return "", api.ErrNotFound.Because("There are no files here")
	}
	id, err := store.ParseMediaID(r.PathValue("mediaID"))
	if err != nil {
		return "", api.InvalidParam("mediaId", err)
	}
	return id, nil
}
