package federation

import (
	"net/http"

	"hearth/server/api"
	"hearth/state/matrix"
)

// makeLeave answers GET /make_leave/{roomID}/{userID}.
func (s *Server) makeLeave(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	return s.makeMember(w, r, from, matrix.Leave, func(string) bool { return true })
}

// sendLeaveV2 answers PUT /_matrix/federation/v2/send_leave/{roomID}/{eventID}.
func (s *Server) sendLeaveV2(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	if _, err := s.admit(r, from, matrix.Leave); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// sendLeaveV1 answers PUT /_matrix/federation/v1/send_leave/{roomID}/{eventID} for old
// servers. The specification had it up to v1.17.
func (s *Server) sendLeaveV1(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	if _, err := s.admit(r, from, matrix.Leave); err != nil {
		return err
	}
	return api.WriteEncoded(w, []byte("[200,{}]"))
}
