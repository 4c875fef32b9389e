package federation

import (
	"net/http"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state/matrix"
)

// getPublicRooms answers GET /publicRooms: this server's published room directory.
//
// Spec: SS public_rooms.yaml.
func (s *Server) getPublicRooms(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	req, err := remote.ReadPublicRoomsQuery(r.URL.Query())
	if err != nil {
		return err
	}
	return s.publicRooms(w, req)
}

// queryPublicRooms answers POST /publicRooms, the directory with a filter.
//
// Spec: SS public_rooms.yaml.
func (s *Server) queryPublicRooms(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	var req remote.PublicRoomsRequest
	if err := api.ReadOptionalJSON(r, maxBody, &req); err != nil {
		return err
	}
	return s.publicRooms(w, req)
}

func (s *Server) publicRooms(w http.ResponseWriter, req remote.PublicRoomsRequest) error {
	page, err := remote.OwnPublicRooms(s.rooms, req)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, page)
}
