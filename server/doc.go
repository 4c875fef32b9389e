// Package server is the frame of Hearth: it reads the settings, opens the store
// and the listeners, puts the APIs together, runs and stops them, and has the
// subcommands with their socket. It holds nothing of Matrix itself.
//
// # How Hearth is built
//
// Data goes one way down and one way back. A request comes in at an API package
// (server/client), which parses it into the types of state/matrix and calls
// state.Rooms. There a draft becomes an event: it is held to the authorization
// rules, gets the snapshot of the state it builds on, and is written together with
// its place in the stream by the store's one writer, which commits several such
// writes as one group and answers after the commit is on disk. The commit wakes the
// readers: /sync of each device, and all other work that follows the stream, each
// with a cursor of its own. What must survive a crash is in the store and never in
// a channel.
//
// Other servers come in at server/federation, which checks who has signed a request.
// What a transaction brings is on disk before it is answered: an event that lacks
// others waits in an inbox in the store until those are fetched. All that goes out to
// other servers goes through server/remote. Its Network finds them, signs, knows their
// keys, and leaves alone who does not answer; its Sender gives each the events that it
// should have, from a cursor of its own on the stream, and what waits in its outbox;
// its Joiner reads the answer to a join from a file beside the database, step by step,
// and goes on with it after a restart; its DeviceLists follow the devices of users who
// share a room with ours. The two packages know nothing of each other, nor of
// server/client: what one has and another needs is handed over here, as functions.
//
// A package imports only packages of a lower number, and a test here holds all of
// them to it:
//
//	9 main                                       4 server/api, e2ee
//	8 server, acme                               3 state
//	7 server/client, federation, oauth, owner    2 store, state/resolve
//	6 server/push, media, appservice             1 state/auth, store/segment, store/blob
//	5 server/remote                              0 state/matrix
//
// Everything that runs is a blocking Run(ctx) method, started together in
// [Server.Run] and waited for there. To stop is: no new connections, long polls
// end, requests under way are answered, cursors stop, the store is closed with its
// last commit on disk.
//
// # Memory
//
// --memory is a ceiling for the whole process. Go's collector works against a limit
// below it, connections are bounded by it ([Server.listen]), and nothing here grows
// with what strangers send: headers, bodies, connections and the rate limits'
// table have bounds of their own. Jobs that can be big take their weight from one budget
// first (budget.go): thumbnails, joins, transactions and answers of other servers that
// are large. After a burst, what it has used goes back to the
// system (idle.go).
//
// # Dependencies, and why
//
// Matrix logic is our own; so is whatever the standard library has most of.
//
//   - go.etcd.io/bbolt: the one file that everything is kept in. A B+tree with one
//     writer and readers that never wait, one fsync'd commit, no background threads,
//     ten years in etcd.
//   - github.com/klauspost/compress: zstd with dictionaries for event bodies, in pure
//     Go, as the binary is built without C.
//   - github.com/go-json-experiment/json: what becomes the standard library's JSON in
//     Go 1.27; token streams and raw values without reflection on hot paths, strict
//     about duplicate names and UTF-8.
//   - github.com/pelletier/go-toml/v2: reads hearth.toml and names the line of a
//     mistake. Nothing else is done with it.
//   - golang.org/x/crypto: bcrypt, for passwords.
//   - golang.org/x/crypto/x509roots/fallback: the root certificates that browsers
//     trust, for images without any; 130 KiB, kept by the authors of Go.
//   - golang.org/x/image: decoding of WebP and scaling, for thumbnails.
//   - golang.org/x/net/html: the tokenizer of HTML, for previews of links; nothing else
//     of it is used.
//   - golang.org/x/sync: errgroup, to run things together; semaphore, to bound them;
//     singleflight, to ask other servers once for what several want to know.
//   - golang.org/x/sys: the terminal's echo, for passwords that are typed.
package server
