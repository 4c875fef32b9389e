// Package matrix is the vocabulary of the server: identifiers, room versions and
// events, and what is computed from an event alone: its canonical form, hashes,
// signatures, redacted form and ID.
//
// The package is pure. It knows no disk, network, clock or log, and its functions
// may be called from any goroutine. An [Event] does not change once it is made.
// What is computed over the events of a room is elsewhere: the authorization rules
// in auth, state resolution in resolve.
//
// Specification: appendices ("Signing JSON", "Identifier Grammar"), server-server
// API ("PDUs", "Signing Events") and the room versions 1 to 12.
package matrix
