package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// Snapshots and tree nodes are numbered in one row per room and stand under
// that number in bucket state, so that a change of state appends to one page.
// The first byte of a record says what it is: below recordSnapshot a node of
// that level, see snapshot_node.go; else a snapshot:
//
//	kind       recordSnapshot, with the flags below
//	base       if recordBased: how much lower the number of the base record is
//	roots      if not: others and members, number<<levelBits | level, 0 for none
//	counts     entries that follow, others and members
//	smallest   event number, if there are any
//	entries    ordinal less the one before in its part; event less the smallest plus 1, or 0: removed
const (
	recordSnapshot = 0x10
	recordGrowing  = 0x01 // not sealed
	recordBased    = 0x02 // what it does not say is so as in the base, which is itself not based
)

// Bounds of a snapshot's record. BenchmarkBigRoomChange measures 247 bytes on
// disk for a change (200,000 members, 20,000 random changes); it is 294 without
// bases, 264 with nodes of 8, and 253 to 264 with overlays of 16, 48 or 64.
const (
	maxOverlay = 32        // entries in both overlays, before the longer one is folded into its tree
	maxOwn     = 5         // entries in a record with a base
	maxRecord  = 1<<40 - 1 // the last record number of a room
)

// recordPrefix is the length of a record's key before its number.
const recordPrefix = 5

// recordKey is where a node or snapshot stands.
func recordKey(room RoomNum, num uint64) []byte {
	return appendRecordNum(keyOf(uint32(room), stateRecord), num)
}

// appendRecordNum appends the five bytes of a record number.
func appendRecordNum(k []byte, num uint64) []byte {
	return appendU32(append(k, byte(num>>32)), uint32(num))
}

// readRecordNum reads what appendRecordNum wrote: the rest of a record's key.
func readRecordNum(rest []byte) (uint64, error) {
	if len(rest) != 5 {
		return 0, fmt.Errorf("state record's key with %d bytes behind the kind: %w", len(rest), ErrDamaged)
	}
	return uint64(rest[0])<<32 | uint64(u32(rest[1:])), nil
}

// snapshot is a snapshot as it is read: what the record says, and with it what
// its base says.
type snapshot struct {
	roots   [parts]nodeRef
	overlay overlay // all entries that go before the trees
	own     overlay // those of them that the record itself holds, if it has a base
	base    uint64  // number of the base record; 0: none
	growing bool
}

// An overlay holds, for each part, entries in the order of their ordinals.
type overlay [parts][]entry

// An entry says which event stands at an ordinal; event 0: none any more.
type entry struct {
	ordinal uint32
	event   EventNum
}

// overlayOf sorts changes; of those to the same slot the last one stays.
func overlayOf(changes []StateChange) (o overlay) {
	for _, c := range changes {
		o[c.Slot.part()] = append(o[c.Slot.part()], entry{c.Slot.ordinal(), c.Event})
	}
	for part, entries := range o {
		slices.SortStableFunc(entries, byOrdinal)
		kept := entries[:0]
		for i, e := range entries {
			if i+1 == len(entries) || entries[i+1].ordinal != e.ordinal {
				kept = append(kept, e)
			}
		}
		o[part] = kept
	}
	return o
}

func byOrdinal(a, b entry) int { return cmp.Compare(a.ordinal, b.ordinal) }

// len counts the entries of both parts.
func (o overlay) len() int { return len(o[othersPart]) + len(o[membersPart]) }

// with returns o overlaid by top. Neither is changed.
func (o overlay) with(top overlay) (sum overlay) {
	for part := range o {
		sum[part] = mergeEntries(o[part], top[part])
	}
	return sum
}

func mergeEntries(below, top []entry) []entry {
	if len(top) == 0 {
		return below
	}
	sum := make([]entry, 0, len(below)+len(top))
	for len(below) > 0 && len(top) > 0 {
		switch c := byOrdinal(below[0], top[0]); {
		case c < 0:
			sum, below = append(sum, below[0]), below[1:]
		case c > 0:
			sum, top = append(sum, top[0]), top[1:]
		default:
			below = below[1:]
		}
	}
	return append(append(sum, below...), top...)
}

// find returns the event that the overlay has in a slot.
func (o *overlay) find(slot Slot) (EventNum, bool) {
	entries := o[slot.part()]
	i, ok := slices.BinarySearchFunc(entries, entry{ordinal: slot.ordinal()}, byOrdinal)
	if !ok {
		return 0, false
	}
	return entries[i].event, true
}

// dropRemoved takes out the entries of a part that only hide something below.
func (o *overlay) dropRemoved(part int) {
	kept := make([]entry, 0, len(o[part]))
	for _, e := range o[part] {
		if e.event != 0 {
			kept = append(kept, e)
		}
	}
	o[part] = kept
}

// encode returns the snapshot's record, to stand under num.
func (s *snapshot) encode(num uint64) []byte {
	b := make([]byte, 1, 24+8*s.overlay.len())
	b[0] = recordSnapshot
	if s.growing {
		b[0] |= recordGrowing
	}
	entries := s.overlay
	if s.base != 0 {
		b[0] |= recordBased
		b = binary.AppendUvarint(b, num-s.base)
		entries = s.own
	} else {
		for _, root := range s.roots {
			b = binary.AppendUvarint(b, root.num<<levelBits|uint64(root.level))
		}
	}
	return appendOverlay(b, entries)
}

// readSnapshot takes a snapshot's record apart, without what its base says.
func readSnapshot(num uint64, v []byte) (s snapshot, err error) {
	r := reader{b: v}
	kind := r.byte()
	if kind&^(recordGrowing|recordBased) != recordSnapshot {
		r.fail()
	}
	s.growing = kind&recordGrowing != 0
	if kind&recordBased != 0 {
		back := r.uvarint()
		if back == 0 || back >= num || s.growing {
			r.fail()
		}
		s.base = num - back
	} else {
		for part := range s.roots {
			s.roots[part] = r.nodeRef()
		}
	}
	s.overlay = r.overlay()
	if len(r.b) > 0 {
		r.fail()
	}
	if r.err != nil {
		return snapshot{}, r.err
	}
	return s, nil
}

// nodeRef reads the root of a tree.
func (r *reader) nodeRef() nodeRef {
	n := r.uvarint()
	if n>>levelBits > maxRecord || n>>levelBits == 0 && n != 0 {
		r.fail()
		return nodeRef{}
	}
	return nodeRef{num: n >> levelBits, level: uint8(n & (1<<levelBits - 1))}
}

func appendOverlay(b []byte, o overlay) []byte {
	var smallest EventNum
	for _, entries := range o {
		b = binary.AppendUvarint(b, uint64(len(entries)))
		for _, e := range entries {
			if e.event != 0 && (smallest == 0 || e.event < smallest) {
				smallest = e.event
			}
		}
	}
	if o.len() > 0 {
		b = binary.AppendUvarint(b, uint64(smallest))
	}
	for _, entries := range o {
		last := uint32(0)
		for _, e := range entries {
			b = binary.AppendUvarint(b, uint64(e.ordinal-last))
			last = e.ordinal
			if e.event == 0 {
				b = append(b, 0)
				continue
			}
			b = binary.AppendUvarint(b, uint64(e.event-smallest)+1)
		}
	}
	return b
}

// overlay reads what appendOverlay wrote.
func (r *reader) overlay() (o overlay) {
	var counts [parts]uint64
	for part := range counts {
		counts[part] = r.uvarint()
	}
	if counts[othersPart] > maxOverlay || counts[membersPart] > maxOverlay-counts[othersPart] {
		r.fail()
	}
	if r.err != nil || counts == [parts]uint64{} {
		return overlay{}
	}
	smallest := r.uvarint()
	for part, count := range counts {
		if count > 0 {
			o[part] = r.entries(int(count), EventNum(smallest))
		}
	}
	return o
}

func (r *reader) entries(count int, smallest EventNum) []entry {
	entries := make([]entry, count)
	ordinal := uint64(0)
	for i := range entries {
		step, event := r.uvarint(), r.uvarint()
		ordinal += step
		if step > maxOrdinal || ordinal > maxOrdinal || i > 0 && step == 0 {
			r.fail()
		}
		entries[i].ordinal = uint32(ordinal)
		if event != 0 {
			entries[i].event = smallest + EventNum(event-1)
			if entries[i].event < smallest || entries[i].event == 0 {
				r.fail()
			}
		}
	}
	return entries
}
