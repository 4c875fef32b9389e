package store

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// bigRoom is the synthetic room in which the costs of snapshots are measured.
type bigRoom struct {
	s       *Store
	random  *rand.Rand
	members uint32
	pos     Position
	now     SnapshotID
	history []SnapshotID
}

const bigRoomNum RoomNum = 7

// newBigRoom joins members to a room of 20 other pieces of state.
func newBigRoom(tb testing.TB, members uint32) *bigRoom {
	tb.Helper()
	r := &bigRoom{s: openStates(tb), random: rand.New(rand.NewPCG(1, 2)), members: members}
	var changes []StateChange
	for ordinal := range uint32(20) {
		changes = append(changes, StateChange{slotAt(othersPart, ordinal), r.nextEvent()})
	}
	for ordinal := range members {
		changes = append(changes, StateChange{slotAt(membersPart, ordinal), r.nextEvent()})
	}
	r.update(tb, func(tx *Tx) (err error) {
		if err = tx.putStateCounter(bigRoomNum, stateCounters{slots: [parts]uint32{20, members}, next: 1}); err != nil {
			return err
		}
		r.now, err = tx.NewSnapshot(bigRoomNum, 0)
		return err
	})
	for len(changes) > 0 {
		n := min(1000, len(changes))
		r.update(tb, func(tx *Tx) error { return tx.GrowSnapshot(bigRoomNum, r.now, changes[:n]...) })
		changes = changes[n:]
	}
	r.update(tb, func(tx *Tx) error { return tx.SealSnapshot(bigRoomNum, r.now) })
	r.history = []SnapshotID{r.now}
	return r
}

func (r *bigRoom) update(tb testing.TB, fn func(*Tx) error) {
	tb.Helper()
	if err := r.s.Update(tb.Context(), fn); err != nil {
		tb.Fatal(err)
	}
}

func (r *bigRoom) view(tb testing.TB, fn func(*Tx) error) {
	tb.Helper()
	if err := r.s.View(fn); err != nil {
		tb.Fatal(err)
	}
}

// nextEvent numbers another state event; three messages go by in between.
func (r *bigRoom) nextEvent() EventNum {
	r.pos += 4
	return timelineNum(r.pos)
}

// change makes n changes to random members, one snapshot each, ten to a commit.
func (r *bigRoom) change(tb testing.TB, n int) {
	tb.Helper()
	for n > 0 {
		now, history := r.now, r.history
		batch := min(10, n)
		r.update(tb, func(tx *Tx) (err error) {
			r.now, r.history = now, history
			for range batch {
				c := StateChange{slotAt(membersPart, r.random.Uint32N(r.members)), r.nextEvent()}
				if r.now, err = tx.Derive(bigRoomNum, r.now, c); err != nil {
					return err
				}
				r.history = append(r.history, r.now)
			}
			return nil
		})
		n -= batch
	}
}

// used is how many bytes of the file are pages in use.
func (r *bigRoom) used(tb testing.TB) int64 {
	tb.Helper()
	var size int64
	r.view(tb, func(tx *Tx) error {
		stats := r.s.bolt.Stats()
		size = tx.bolt.Size() - int64(stats.FreePageN+stats.PendingPageN)*4096
		return nil
	})
	return size
}

// allocated returns how many bytes fn allocates in all: a bound of what it
// holds at any time.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func BenchmarkBigRoomChange(b *testing.B) {
	for b.Loop() {
		r := newBigRoom(b, 200_000)
		start := r.used(b)
		b.ReportMetric(float64(start)/200_000, "B/member")
		began := time.Now()
		r.change(b, 20_000)
		b.ReportMetric(float64(time.Since(began).Microseconds())/20_000, "µs/change")
		b.ReportMetric(float64(r.used(b)-start)/20_000, "B/change")
	}
}

// BenchmarkBigRoomLookUp looks up random members in random snapshots.
func BenchmarkBigRoomLookUp(b *testing.B) {
	r := newBigRoom(b, 200_000)
	r.change(b, 20_000)
	reads := 0
	r.view(b, func(tx *Tx) error {
		for b.Loop() {
			sr := tx.stateReader(bigRoomNum)
			s, err := sr.snapshot(r.history[r.random.IntN(len(r.history))])
			if err != nil {
				return err
			}
			event, err := sr.event(&s, slotAt(membersPart, r.random.Uint32N(r.members)))
			if err != nil || event == 0 {
				b.Fatalf("event %d: %v", event, err)
			}
			reads += sr.reads
		}
		return nil
	})
	b.ReportMetric(float64(reads)/float64(b.N), "reads/op")
}

// BenchmarkBigRoomDiff compares random pairs of snapshots ten changes apart.
func BenchmarkBigRoomDiff(b *testing.B) {
	r := newBigRoom(b, 200_000)
	r.change(b, 20_000)
	reads, found, most := 0, 0, 0
	r.view(b, func(tx *Tx) error {
		for b.Loop() {
			i := r.random.IntN(len(r.history) - 10)
			n, err := tx.diff(bigRoomNum, r.history[i], r.history[i+10], StateAll, 0, func(Slot, EventNum, EventNum) (bool, error) {
				found++
				return true, nil
			})
			if err != nil {
				b.Fatal(err)
			}
			reads += n
			most = max(most, n)
		}
		return nil
	})
	b.ReportMetric(float64(reads)/float64(b.N), "reads/op")
	b.ReportMetric(float64(most), "reads-at-most")
	b.ReportMetric(float64(found)/float64(b.N), "differences/op")
}

// BenchmarkBigRoomWalk walks all 200,000 members of the newest snapshot.
func BenchmarkBigRoomWalk(b *testing.B) {
	r := newBigRoom(b, 200_000)
	r.change(b, 20_000)
	r.view(b, func(tx *Tx) error {
		for b.Loop() {
			n := 0
			err := tx.WalkState(bigRoomNum, r.now, StateAll, func(Slot, EventNum) (bool, error) {
				n++
				return true, nil
			})
			if err != nil || n != 200_020 {
				b.Fatalf("%d events: %v", n, err)
			}
		}
		return nil
	})
}

// BenchmarkBigRoomHeap reports the most heap that one call of each operation
// allocates in all, in KiB, with the commit where there is one.
func BenchmarkBigRoomHeap(b *testing.B) {
	r := newBigRoom(b, 200_000)
	r.change(b, 2_000)
	first, last := r.history[0], r.history[len(r.history)-1]
	for b.Loop() {
		derive := uint64(0)
		for range 200 {
			derive = max(derive, allocated(func() { r.change(b, 1) }))
		}
		b.ReportMetric(float64(derive)/1024, "derive-KiB")
		r.view(b, func(tx *Tx) error {
			reads := map[string]func() error{
				"look-up-KiB": func() error {
					_, err := tx.StateAt(bigRoomNum, last, slotAt(membersPart, 77_777))
					return err
				},
				"diff-KiB": func() error { return tx.DiffSnapshots(bigRoomNum, first, last, eachDifference) },
				"walk-KiB": func() error { return tx.WalkState(bigRoomNum, last, StateAll, eachEvent) },
				"mark-KiB": func() error { return tx.newMarker(bigRoomNum, 1, uint64(last)).markSnapshot(last) },
			}
			for unit, read := range reads {
				b.ReportMetric(float64(allocated(func() {
					if err := read(); err != nil {
						b.Fatal(err)
					}
				}))/1024, unit)
			}
			return nil
		})
		b.ReportMetric(float64(r.join(b, 1000, 1))/1024, "join-KiB")
		b.ReportMetric(float64(r.join(b, 100, 7919))/1024, "join-at-random-KiB") // a prime: each ordinal once
	}
}

func eachEvent(Slot, EventNum) (bool, error) { return true, nil }

func eachDifference(Slot, EventNum, EventNum) (bool, error) { return true, nil }

// join grows a snapshot of a second room, batch members in each write, whose
// ordinals are stride apart, and returns the most bytes that a write allocated.
func (r *bigRoom) join(tb testing.TB, batch, stride uint32) (most uint64) {
	tb.Helper()
	const room = bigRoomNum + 1
	var snap SnapshotID
	r.update(tb, func(tx *Tx) (err error) {
		snap, err = tx.NewSnapshot(room, 0)
		return err
	})
	changes := make([]StateChange, batch)
	for first := uint32(0); first < r.members; first += batch {
		for i := range changes {
			ordinal := uint64(first+uint32(i)) * uint64(stride) % uint64(r.members)
			changes[i] = StateChange{slotAt(membersPart, uint32(ordinal)), r.nextEvent()}
		}
		most = max(most, allocated(func() {
			r.update(tb, func(tx *Tx) error { return tx.GrowSnapshot(room, snap, changes...) })
		}))
	}
	r.update(tb, func(tx *Tx) error { return tx.SealSnapshot(room, snap) })
	return most
}

// collect keeps some snapshots alone and returns how many records went.
func (r *bigRoom) collect(tb testing.TB, kept []SnapshotID) int {
	tb.Helper()
	n, err := r.s.CollectSnapshots(tb.Context(), bigRoomNum, func(_ *Tx, use func(SnapshotID) error) error {
		for _, id := range kept {
			if err := use(id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// BenchmarkBigRoomCollect collects 20,000 of 20,001 snapshots, and before it
// nothing while all are needed.
func BenchmarkBigRoomCollect(b *testing.B) {
	for b.Loop() {
		r := newBigRoom(b, 200_000)
		r.change(b, 20_000)
		began := time.Now()
		r.collect(b, r.history)
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-needed")
		began = time.Now()
		n := r.collect(b, []SnapshotID{r.now})
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-garbage")
		b.ReportMetric(float64(n), "records")
		b.ReportMetric(float64(r.used(b))/200_000, "B/member")
	}
}
