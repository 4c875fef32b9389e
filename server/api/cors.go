package api

import "net/http"

// setCORS lets web clients of any origin use every endpoint and read every answer.
//
// Spec: CS Web Browser Clients, where the first three are recommended for all
// requests. Browsers keep the answer to a preflight for a day, which saves a
// small board half of the requests of a web client.
func setCORS(h http.Header) {
	h["Access-Control-Allow-Origin"] = corsOrigin
	h["Access-Control-Allow-Methods"] = corsMethods
	h["Access-Control-Allow-Headers"] = corsHeaders
	h["Access-Control-Expose-Headers"] = corsExpose
}

// The values are shared by all responses: nobody changes them in place.
var (
	corsOrigin  = []string{"*"}
	corsMethods = []string{"GET, HEAD, POST, PUT, DELETE, OPTIONS"}
	corsHeaders = []string{"X-Requested-With, Content-Type, Authorization"}
	corsExpose  = []string{"Retry-After, Content-Disposition, ETag"}
	corsMaxAge  = []string{"86400"}
)

// answerOptions answers a preflight without any logic of the endpoint.
func answerOptions(w http.ResponseWriter) {
	w.Header()["Access-Control-Max-Age"] = corsMaxAge
	w.WriteHeader(http.StatusNoContent)
}
