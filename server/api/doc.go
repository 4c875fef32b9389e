// Package api is what all HTTP APIs of Hearth have in common: the router, the
// way from a handler's error to a standard error response, JSON in and out, CORS,
// rate limits and the address of the client.
//
// A handler is a function that returns an error. It reads path values with
// r.PathValue, bodies with [ReadJSON] or [ReadObject], answers with [WriteJSON]
// and returns what went wrong as it got it: this package alone knows which M_ code
// and which HTTP status an error of store, state or the network becomes
// ([AsError]), writes it and logs it.
//
// The package owns no state but the rate limits. It never touches the store.
//
// Spec: CS API Standards, and what the Server-Server API shares with it.
package api
