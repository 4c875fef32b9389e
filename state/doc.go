// Package state owns what happens to rooms: it turns drafts into events, holds
// events to the authorization rules, keeps each room's state as snapshots, and
// answers who may see what. It owns the order of things within a room: one
// lock per room, and the path of an event is always
//
//	draft (or accept, for an event that came) > auth rules > snapshot > store
//
// The rules themselves are pure and live below, in matrix, auth and resolve.
// The package never dials: events from elsewhere come through the functions
// of a [Source]. It never formats for clients.
//
// A local event is drafted inside the store's write transaction: what it
// builds on is then what the writes queued before it left, and eight senders
// in one room share a commit. Events from elsewhere are taken in under the
// room's lock, many in one write ([Rooms.AcceptAll]); forks that are too wide for
// the writer to wait are resolved in a View, and only the outcome is written.
//
// Specification: Client-Server API, Events and Rooms; Server-Server API, PDUs;
// room versions.
package state
