// Package store keeps everything of Hearth that must survive a crash: rooms,
// events and their state, accounts, devices, keys and the metadata of media.
// It owns one bbolt file, its key layout (schema.go) and the folder of media
// bytes beside it; nothing outside this package knows a key.
//
// There is one writer. [Store.Update] queues a closure; whoever finds the
// queue idle leads, runs the closures that have gathered in one bbolt
// transaction, and answers each after the commit is on disk. Readers work in
// [Store.View] on a snapshot of the file and never wait for the writer.
//
// There is one stream. Every visible change takes the next [Position] in the
// write that makes it, and an event of a room's timeline stands there itself;
// sync tokens, push, application services and federation destinations are
// cursors on that one number. A commit wakes those who wait for it
// ([Store.Wait] for everybody, [Watch] for one local user).
//
// The package never dials, never runs a rule of Matrix, and holds no
// transaction while it waits.
package store
