package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// A tree maps ordinals to events. A node of level 0 holds the events of fanOut
// ordinals, one of a higher level as many nodes of the level below. Its record:
//
//	level      one byte
//	mask       two bytes, little-endian: which of the fanOut values there are
//	smallest   of them
//	values     less the smallest, in order
//
// Numbers that were given out together are close together, so most values take
// one to three bytes.
const (
	fanBits   = 4
	fanOut    = 1 << fanBits
	levelBits = 3
	maxLevel  = 7 // a tree of this height holds maxOrdinal
)

// A nodeRef leads to a node. The number 0 is the tree without any entry.
type nodeRef struct {
	num   uint64
	level uint8
}

// holds says whether an ordinal is within the bounds of the node's tree.
func (n nodeRef) holds(ordinal uint32) bool {
	return uint64(ordinal)>>(fanBits*(uint(n.level)+1)) == 0
}

// A node is a node of a tree, read.
type node struct {
	level  uint8
	values [fanOut]uint64 // event numbers at level 0, else node numbers; 0: none
}

// index returns which value of a node of a level is on the way to an ordinal.
func index(level uint8, ordinal uint32) int {
	return int(ordinal>>(fanBits*uint(level))) & (fanOut - 1)
}

// child leads to one child of the node.
func (n *node) child(i int) nodeRef { return nodeRef{n.values[i], n.level - 1} }

// empty says that the node has no value.
func (n *node) empty() bool { return n.values == [fanOut]uint64{} }

// mask has a bit for each value that there is.
func (n *node) mask() (mask uint16) {
	for i, v := range n.values {
		if v != 0 {
			mask |= 1 << i
		}
	}
	return mask
}

// encode returns the node's record. The node has at least one value.
func (n *node) encode() []byte {
	smallest := uint64(1<<64 - 1)
	for _, v := range n.values {
		if v != 0 {
			smallest = min(smallest, v)
		}
	}
	b := make([]byte, 0, 3+4*(fanOut+1))
	b = binary.LittleEndian.AppendUint16(append(b, n.level), n.mask())
	b = binary.AppendUvarint(b, smallest)
	for _, v := range n.values {
		if v != 0 {
			b = binary.AppendUvarint(b, v-smallest)
		}
	}
	return b
}

// readNode takes a node's record apart.
func readNode(v []byte) (n node, err error) {
	r := reader{b: v}
	n.level = r.byte()
	mask := r.bytes(2)
	smallest := r.uvarint()
	if r.err != nil || n.level > maxLevel || smallest == 0 {
		return node{}, ErrDamaged
	}
	present := binary.LittleEndian.Uint16(mask)
	for i := range n.values {
		if present>>i&1 == 0 {
			continue
		}
		n.values[i] = smallest + r.uvarint()
		if n.values[i] < smallest || n.level > 0 && n.values[i] > maxRecord {
			r.fail()
		}
	}
	if r.err != nil || len(r.b) > 0 || present == 0 {
		return node{}, ErrDamaged
	}
	return n, nil
}

// A stateReader reads the records of one room's states. It keeps one cursor,
// so that a walk of a large state makes no garbage.
type stateReader struct {
	tx     *Tx
	room   RoomNum
	cursor *bolt.Cursor
	key    []byte // the record's that was read last
	reads  int    // records read so far
}

func (tx *Tx) stateReader(room RoomNum) stateReader {
	return stateReader{tx: tx, room: room, cursor: tx.cursor(bucketState), key: keyOf(uint32(room), stateRecord)}
}

// snapshot returns a snapshot with what its base says. Nobody may change its entries.
func (r *stateReader) snapshot(id SnapshotID) (snapshot, error) {
	if id == 0 {
		return snapshot{}, nil
	}
	memo, place := r.tx.memo(), snapshotPlace{r.room, id}
	if memo != nil && memo.of == place {
		return memo.snapshot, nil
	}
	s, err := r.readSnapshot(id)
	if memo != nil && err == nil {
		memo.snapshot, memo.of = s, place
	}
	return s, err
}

// readSnapshot reads a snapshot and its base.
func (r *stateReader) readSnapshot(id SnapshotID) (snapshot, error) {
	s, err := r.snapshotRecord(uint64(id))
	if err != nil || s.base == 0 {
		return s, err
	}
	base, err := r.snapshotRecord(s.base)
	if err != nil {
		return snapshot{}, err
	}
	if base.base != 0 || base.growing {
		return snapshot{}, fmt.Errorf("base %d of snapshot %d of room %d: %w", s.base, id, r.room, ErrDamaged)
	}
	s.own = s.overlay
	s.roots, s.overlay = base.roots, base.overlay.with(s.own)
	return s, nil
}

func (r *stateReader) snapshotRecord(num uint64) (snapshot, error) {
	v := r.record(num)
	if v == nil {
		return snapshot{}, fmt.Errorf("snapshot %d of room %d: %w", num, r.room, ErrNotFound)
	}
	s, err := readSnapshot(num, v)
	if err != nil {
		return snapshot{}, fmt.Errorf("snapshot %d of room %d: %w", num, r.room, err)
	}
	return s, nil
}

// record returns a record, which aliases the file; nil when there is none.
func (r *stateReader) record(num uint64) []byte {
	r.reads++
	r.key = appendRecordNum(r.key[:recordPrefix], num)
	key, value := r.cursor.Seek(r.key)
	if !bytes.Equal(key, r.key) {
		return nil
	}
	return value
}

// node reads the node that ref leads to.
func (r *stateReader) node(ref nodeRef) (node, error) {
	n, err := readNode(r.record(ref.num))
	if err == nil && n.level != ref.level {
		err = ErrDamaged
	}
	if err != nil {
		return node{}, fmt.Errorf("state node %d of room %d: %w", ref.num, r.room, err)
	}
	return n, nil
}

// spread returns the children of a node as of one of a level: if the node is
// lower than that, it is itself the first child. At level 0 the numbers are
// those of events.
func (r *stateReader) spread(at nodeRef, level uint8) (children [fanOut]nodeRef, err error) {
	switch {
	case at.num == 0:
		return children, nil
	case at.level < level:
		children[0] = at
		return children, nil
	}
	n, err := r.node(at)
	if err != nil {
		return children, err
	}
	if at.level > level {
		return children, fmt.Errorf("state node %d of room %d: %w", at.num, r.room, ErrDamaged)
	}
	for i, v := range n.values {
		if v != 0 && level > 0 {
			children[i] = n.child(i)
		} else {
			children[i].num = v
		}
	}
	return children, nil
}

// event returns what stands in a slot of a snapshot.
func (r *stateReader) event(s *snapshot, slot Slot) (EventNum, error) {
	if event, ok := s.overlay.find(slot); ok {
		return event, nil
	}
	return r.treeEvent(s.roots[slot.part()], slot.ordinal())
}

// treeEvent returns what a tree has at an ordinal.
func (r *stateReader) treeEvent(at nodeRef, ordinal uint32) (EventNum, error) {
	if !at.holds(ordinal) {
		return 0, nil
	}
	for at.num != 0 {
		n, err := r.node(at)
		if err != nil {
			return 0, err
		}
		i := index(n.level, ordinal)
		if n.level == 0 {
			return EventNum(n.values[i]), nil
		}
		at = n.child(i)
	}
	return 0, nil
}

// foldTree puts entries, at least one, into a tree and returns its new root.
// The tree becomes higher where an ordinal demands it.
func (w *stateWriter) foldTree(root nodeRef, entries []entry) (nodeRef, error) {
	var err error
	for !root.holds(entries[len(entries)-1].ordinal) {
		if root.num != 0 {
			above := node{level: root.level + 1}
			above.values[0] = root.num
			if root.num, err = w.putNode(0, &above); err != nil {
				return nodeRef{}, err
			}
		}
		root.level++
	}
	root.num, err = w.fold(root, entries)
	if err != nil || root.num == 0 {
		return nodeRef{}, err
	}
	return root, nil
}

// fold puts entries, all within the bounds of one node, into its tree and
// returns the number of the node that has them; 0 when nothing is left.
func (w *stateWriter) fold(at nodeRef, entries []entry) (num uint64, err error) {
	n := node{level: at.level}
	if at.num != 0 {
		if n, err = w.node(at); err != nil {
			return 0, err
		}
	}
	before := n.values
	for len(entries) > 0 {
		i := index(n.level, entries[0].ordinal)
		end := 1
		for end < len(entries) && index(n.level, entries[end].ordinal) == i {
			end++
		}
		if n.level == 0 {
			n.values[i] = uint64(entries[0].event)
		} else if n.values[i], err = w.fold(n.child(i), entries[:end]); err != nil {
			return 0, err
		}
		entries = entries[end:]
	}
	if n.values == before {
		return at.num, nil
	}
	return w.putNode(at.num, &n)
}

// putNode writes a changed node, under the number it has if that is ours to
// overwrite, and returns the number; 0 for an empty node, which is not kept.
func (w *stateWriter) putNode(own uint64, n *node) (uint64, error) {
	mine := own > w.owned
	if n.empty() {
		if mine {
			return 0, w.tx.delete(bucketState, recordKey(w.room, own))
		}
		return 0, nil
	}
	if !mine {
		var err error
		if own, err = w.take(); err != nil {
			return 0, err
		}
	}
	return own, w.tx.put(bucketState, recordKey(w.room, own), n.encode())
}
