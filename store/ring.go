package store

// A ring is a short record of things done that must not be done twice: their
// hashes of 8 bytes, oldest first. When it is full the oldest is forgotten. It
// costs one key instead of one for each, and never has to be swept.

// ringHashSize is how much of a hash a ring holds.
const ringHashSize = 8

// ringHolds says whether a ring knows a hash.
func ringHolds(ring []byte, hash uint64) bool {
	for ; len(ring) >= ringHashSize; ring = ring[ringHashSize:] {
		if u64(ring[:ringHashSize]) == hash {
			return true
		}
	}
	return false
}

// ringAppend returns a ring with one more hash, of the most newest ones.
func ringAppend(ring []byte, hash uint64, most int) []byte {
	ring = ring[max(0, len(ring)-(most-1)*ringHashSize):]
	grown := make([]byte, 0, len(ring)+ringHashSize)
	return appendU64(append(grown, ring...), hash)
}
