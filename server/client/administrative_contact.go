package client

import (
	"net/http"

	"hearth/server/api"
)

// This server keeps no addresses and telephone numbers of its users, and says so
// in the capability m.3pid_changes. Its answers here are those of a server to which
// every address is unknown and on which none can be added.
//
// Spec: CS Adding Account Administrative Contact Information.

type threePIDsResponse struct {
	ThreePIDs []struct{} `json:"threepids"`
}

// getAccount3PIDs answers GET /account/3pid.
func (s *Server) getAccount3PIDs(w http.ResponseWriter, _ *http.Request, _ session) error {
	return api.WriteJSON(w, threePIDsResponse{ThreePIDs: []struct{}{}})
}

// post3PIDs answers POST /account/3pid.
func (s *Server) post3PIDs(http.ResponseWriter, *http.Request, session) error {
	return api.ErrThreePIDDenied
}

// add3PID answers POST /account/3pid/add.
func (s *Server) add3PID(http.ResponseWriter, *http.Request, session) error {
	return api.ErrThreePIDDenied
}

// bind3PID answers POST /account/3pid/bind.
func (s *Server) bind3PID(http.ResponseWriter, *http.Request, session) error {
	return api.ErrThreePIDDenied
}

type unbindResponse struct {
	UnbindResult string `json:"id_server_unbind_result"`
}

// delete3pidFromAccount answers POST /account/3pid/delete.
func (s *Server) delete3pidFromAccount(w http.ResponseWriter, _ *http.Request, _ session) error {
	return api.WriteJSON(w, unbindResponse{UnbindResult: "no-support"})
}

// unbind3pidFromAccount answers POST /account/3pid/unbind.
func (s *Server) unbind3pidFromAccount(w http.ResponseWriter, _ *http.Request, _ session) error {
	return api.WriteJSON(w, unbindResponse{UnbindResult: "no-support"})
}

// requestTokenToRegisterEmail answers POST /register/email/requestToken.
func (s *Server) requestTokenToRegisterEmail(http.ResponseWriter, *http.Request, session) error {
	return api.ErrThreePIDMediumNotSupported
}

// requestTokenToRegisterMSISDN answers POST /register/msisdn/requestToken.
func (s *Server) requestTokenToRegisterMSISDN(http.ResponseWriter, *http.Request, session) error {
	return api.ErrThreePIDMediumNotSupported
}

// requestTokenTo3PIDEmail answers POST /account/3pid/email/requestToken.
func (s *Server) requestTokenTo3PIDEmail(http.ResponseWriter, *http.Request, session) error {
	return api.ErrThreePIDMediumNotSupported
}

// requestTokenTo3PIDMSISDN answers POST /account/3pid/msisdn/requestToken.
func (s *Server) requestTokenTo3PIDMSISDN(http.ResponseWriter, *http.Request, session) error {
	return api.ErrThreePIDMediumNotSupported
}

// requestTokenToResetPasswordEmail answers POST /account/password/email/requestToken.
func (s *Server) requestTokenToResetPasswordEmail(http.ResponseWriter, *http.Request, session) error {
	return api.ErrThreePIDMediumNotSupported
}

// requestTokenToResetPasswordMSISDN answers POST /account/password/msisdn/requestToken.
func (s *Server) requestTokenToResetPasswordMSISDN(http.ResponseWriter, *http.Request, session) error {
	return api.ErrThreePIDMediumNotSupported
}
