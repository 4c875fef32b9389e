package store

import (
	"reflect"
	"testing"
)

// Whatever a node's record holds, it is refused or comes back from what was
// read of it.
func FuzzReadNode(f *testing.F) {
	n := node{level: 2}
	n.values[3], n.values[9] = 700, 90_000
	f.Add(n.encode())
	leaf := node{}
	for i := range leaf.values {
		leaf.values[i] = 1<<63 + uint64(i)
	}
	f.Add(leaf.encode())
	f.Add([]byte{0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, v []byte) {
		n, err := readNode(v)
		if err != nil {
			return
		}
		again, err := readNode(n.encode())
		if err != nil || again != n {
			t.Fatalf("%x read as %v and then as %v; %v", v, n, again, err)
		}
	})
}

// The same for a snapshot's record, whose entries are in order besides.
func FuzzReadSnapshot(f *testing.F) {
	const num = 1000
	entries := overlayOf([]StateChange{{0, 9}, {2, 0}, {40, 1 << 40}, {1, 3}, {maxOrdinal << 1, 8}, {3, 0}})
	for _, s := range []snapshot{
		{},
		{growing: true, roots: [parts]nodeRef{{5, 1}, {maxRecord, maxLevel}}},
		{roots: [parts]nodeRef{{5, 1}}, overlay: entries},
		{base: 7, own: entries},
		{base: 999, own: overlayOf([]StateChange{{4, 0}})},
	} {
		f.Add(s.encode(num))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		s, err := readSnapshot(num, v)
		if err != nil {
			return
		}
		for _, entries := range s.overlay {
			for i := range entries {
				if i > 0 && entries[i-1].ordinal >= entries[i].ordinal || entries[i].ordinal > maxOrdinal {
					t.Fatalf("%x has the entries %v", v, entries)
				}
			}
		}
		if s.base != 0 {
			s.own = s.overlay
		}
		again, err := readSnapshot(num, s.encode(num))
		again.own = s.own
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%x read as %+v and then as %+v; %v", v, s, again, err)
		}
	})
}
