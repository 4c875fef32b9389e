package client

import (
	"net/http"

	"hearth/server/api"
)

// Networks behind bridges. A bridge is an application service; this server has
// none, so it knows no network, and nobody and no place in one.
//
// Spec: CS Third-party Networks.

var errNoProtocol = api.ErrNotFound.Because("This server is bridged to no such network")

// getProtocols answers GET /thirdparty/protocols: the networks by their names.
func (s *Server) getProtocols(w http.ResponseWriter, _ *http.Request, _ session) error {
	return api.WriteEmpty(w)
}

// getProtocolMetadata answers GET /thirdparty/protocol/{protocol}.
func (s *Server) getProtocolMetadata(http.ResponseWriter, *http.Request, session) error {
	return errNoProtocol
}

// queryLocationByProtocol answers GET /thirdparty/location/{protocol}.
func (s *Server) queryLocationByProtocol(http.ResponseWriter, *http.Request, session) error {
	return errNoProtocol
}

// queryUserByProtocol answers GET /thirdparty/user/{protocol}.
func (s *Server) queryUserByProtocol(http.ResponseWriter, *http.Request, session) error {
	return errNoProtocol
}

// queryLocationByAlias answers GET /thirdparty/location: "All found third-party
// locations" of a room alias.
func (s *Server) queryLocationByAlias(w http.ResponseWriter, r *http.Request, _ session) error {
	return noneFound(w, r, "alias")
}

// queryUserByID answers GET /thirdparty/user: the people whom a user of Matrix
// stands for.
func (s *Server) queryUserByID(w http.ResponseWriter, r *http.Request, _ session) error {
	return noneFound(w, r, "userid")
}

// noneFound answers a search for what a parameter names with an empty list.
func noneFound(w http.ResponseWriter, r *http.Request, param string) error {
	if !r.URL.Query().Has(param) {
		return api.MissingParam(param)
	}
	return api.WriteJSON(w, []struct{}{})
}
