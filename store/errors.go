package store

import "errors"

// What a read or a write can meet.
var (
	// ErrNotFound is wrapped where what was asked for by name is not there.
	ErrNotFound = errors.New("not found")
	// ErrExists is wrapped where something is there already that may not be there twice.
	ErrExists = errors.New("exists already")
	// ErrDamaged is wrapped where a record cannot be read as what it should be.
	ErrDamaged = errors.New("damaged record")
	// ErrFull is wrapped where the database file has reached the size it may
	// have, or the disk has no room left.
	ErrFull = errors.New("the database is full")
)

// What opening can meet.
var (
	// ErrLocked is wrapped where another process has the data directory open.
	ErrLocked = errors.New("the data directory is in use by another process")
	// ErrOtherServer is wrapped where a data directory belongs to another server name.
	ErrOtherServer = errors.New("the data directory belongs to another server name")
	// ErrNewerFormat is wrapped where a newer Hearth has written the data.
	ErrNewerFormat = errors.New("the data was written by a newer version of Hearth")
	// ErrClosed is wrapped after Close.
	ErrClosed = errors.New("the store is closed")
)
