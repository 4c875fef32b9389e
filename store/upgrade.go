package store

import (
	"encoding/binary"
	"fmt"
)

// upgrades lead from each older format to the next: upgrades[0] takes a file
// of format 1 to format 2. A step may read and write anything; it is part of
// the transaction that opens the file, so that a crash leaves the old format
// whole.
var upgrades = []func(*Tx) error{
	(*Tx).indexCitations, // format 2 has the citation index
	(*Tx).indexThreads,   // format 3 has the threads of each room
	(*Tx).countServers,   // format 4 has the servers of each room
	(*Tx).placeRelations, // format 5 has relations and threads in the order of places
}

// upgrade takes the file from an older format to the one of this Hearth. A
// file that is of that format is not written.
func (tx *Tx) upgrade(from int) error { return tx.climb(from, upgrades) }

// climb runs the steps that follow a format and notes the one it reaches.
func (tx *Tx) climb(from int, steps []func(*Tx) error) error {
	newest := len(steps) + 1
	if from < 1 || from > newest {
		return fmt.Errorf("format %d: %w", from, ErrDamaged)
	}
	if from == newest {
		return nil
	}
	for format := from; format < newest; format++ {
		if err := steps[format-1](tx); err != nil {
			return fmt.Errorf("upgrade from format %d: %w", format, err)
		}
	}
	return tx.put(bucketMeta, []byte(metaFormat), binary.AppendUvarint(nil, uint64(newest)))
}
