package store

import (
	"encoding/binary"
	"fmt"

	"hearth/state/matrix"
)

// PutPendingRedaction remembers that the event by redacts target, which is not
// here yet. Of several the first counts.
func (tx *Tx) PutPendingRedaction(room RoomNum, target matrix.EventID, by EventNum) error {
	key := pendingRedactionKey(room, target)
	if tx.get(bucketRoom, key) != nil {
		return nil
	}
	return tx.put(bucketRoom, key, binary.AppendUvarint(nil, uint64(by)))
}

// PendingRedaction returns the redaction that waits for target; ok is false
// when none does.
func (tx *Tx) PendingRedaction(room RoomNum, target matrix.EventID) (by EventNum, ok bool, err error) {
	v := tx.get(bucketRoom, pendingRedactionKey(room, target))
	if v == nil {
		return 0, false, nil
	}
	r := reader{b: v}
	by = EventNum(r.uvarint())
	if r.err != nil {
		return 0, false, fmt.Errorf("pending redaction of %s: %w", target, r.err)
	}
	return by, true, nil
}

// DeletePendingRedaction forgets a redaction once its target has come.
func (tx *Tx) DeletePendingRedaction(room RoomNum, target matrix.EventID) error {
	return tx.delete(bucketRoom, pendingRedactionKey(room, target))
}

func pendingRedactionKey(room RoomNum, target matrix.EventID) []byte {
	return append(keyOf(uint32(room), roomRedaction), eventIDKey(target)...)
}
