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
// in one room share a commit.
//
// An event from elsewhere goes further, each step in a file of its own:
//
//   - accept.go: events are taken in under the room's lock, many in one write
//     ([Rooms.AcceptAll]). What has its place here already is known; what must come
//     first is named by a [MissingError].
//   - acceptance.go, judgement.go: one event is held to what it cites, to the state
//     before it, to the current state, and becomes part of the timeline, fails softly
//     or is rejected.
//   - resolution.go, auth_chain.go: where forks meet, package resolve is told their
//     differences. Forks that are too wide for the writer to wait are resolved in a
//     View, and only the outcome is written; beyond all bounds they are [ErrTangled].
//   - missing.go: [Rooms.AcceptFrom] asks another server, a [Source], for what is
//     missing: first for the events that the event stands on.
//   - outlier.go: then for the events that it cites, kept as outliers, which have no
//     place in the timeline until they come again with what they stand on.
//   - given_state.go: last for the state before the event, as the other server has it,
//     which becomes a snapshot by what differs from ours.
//   - backfill.go, told_state.go: what came before our first event, or lies in a gap,
//     becomes part of the room's past ([Rooms.Backfill]), which store keeps in order.
//
// The other way, server_view.go says what another server may see of a room, ancestry.go
// and timestamp.go find what it asks for, and an [EventReader] reads states and auth
// chains that no answer may hold in memory.
//
// Snapshots that forks leave behind are collected by [Rooms.Run] (collection.go).
//
// Specification: Client-Server API, Events and Rooms; Server-Server API, PDUs;
// room versions.
package state
