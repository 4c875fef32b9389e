package state

import (
	"context"
	"crypto/ed25519"
	"flag"
	"fmt"
	"testing"

	"hearth/state/matrix"
	"hearth/store"
)

var bigRooms = flag.Bool("state.big", false, "benchmark in rooms of 200,000 members too")

// BenchmarkResolution measures the resolution of two branches of a room. Width is
// the number of places in the state that both change, one of them the power
// levels and the others members; depth is how often each of the two changes each
// of them, every time citing the change before. What it costs is to follow these
// two and not the members of the room.
func BenchmarkResolution(b *testing.B) {
	sizes := []int{100, 10_000}
	if *bigRooms {
		sizes = append(sizes, 200_000)
	}
	for _, version := range []string{"1", "11", "12"} { // one of each algorithm
		for _, members := range sizes {
			b.Run(fmt.Sprintf("version=%s/members=%d", version, members), func(b *testing.B) {
				newBenchRoom(b, version, members).resolveAll(b)
			})
		}
	}
}

// benchRoom is a room with many members from elsewhere.
type benchRoom struct {
	rooms *Rooms
	num   store.RoomNum
	id    matrix.RoomID
	head  store.Head // behind the joins
}

func newBenchRoom(b *testing.B, version string, members int) *benchRoom {
	b.Helper()
	st, err := store.Open(b.TempDir(), "home.example", store.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = st.Close() }) // a fault of the store shows in its own tests
	key := matrix.SigningKey{ID: "ed25519:test", Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	r := &benchRoom{rooms: New(Config{Store: st, Server: "home.example", Key: key})}
	r.id, err = r.rooms.Create(context.Background(), Creation{Creator: alice, Preset: PresetPublic, Version: version})
	if err != nil {
		b.Fatal(err)
	}
	err = st.View(func(tx *store.Tx) (err error) {
		r.num, r.head, err = Head(tx, r.id)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	r.head = r.grow(b, r.head, members, func(n int) matrix.Draft { return r.profile(n, "") })
	return r
}

func (r *benchRoom) user(n int) matrix.UserID {
	return matrix.UserID(fmt.Sprintf("@user%d:away.example", n))
}

func (r *benchRoom) profile(n int, name string) matrix.Draft {
	key := string(r.user(n))
	return matrix.Draft{Sender: matrix.UserID(key), Type: "m.room.member", StateKey: &key,
		Content: fmt.Appendf(nil, `{"membership":"join","displayname":%q}`, name)}
}

func (r *benchRoom) levels(side, step int) matrix.Draft {
	content := powerLevels0(r.head.Version.ID, step%50, side)
	return matrix.Draft{Sender: alice, Type: "m.room.power_levels", StateKey: new(string), Content: []byte(content)}
}

// grow adds n events behind a head, each on the one before, and returns the head
// behind them.
func (r *benchRoom) grow(b *testing.B, head store.Head, n int, draft func(int) matrix.Draft) store.Head {
	b.Helper()
	for done := 0; done < n; {
		var count int
		var rm room
		err := r.rooms.store.Update(context.Background(), func(tx *store.Tx) error {
			rm = room{rooms: r.rooms, tx: tx, num: r.num, id: r.id, head: head}
			rm.head.Extremities = append([]store.EventNum(nil), head.Extremities...)
			for count = 0; done+count < n && count < maxTogether; count++ {
				if _, err := rm.add(draft(done+count), store.TxnID{}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		head = rm.head
		done += count
	}
	return head
}

// branch grows one side of a fork and returns the state behind it.
func (r *benchRoom) branch(b *testing.B, side, width, depth int) store.SnapshotID {
	b.Helper()
	return r.grow(b, r.head, width*depth, func(n int) matrix.Draft {
		if n%width == 0 {
			return r.levels(side, n/width)
		}
		return r.profile(n%width, fmt.Sprintf("side %d step %d", side, n/width))
	}).Current
}

func (r *benchRoom) resolveAll(b *testing.B) {
	for _, width := range []int{2, 10, 50} {
		for _, depth := range []int{1, 10, 50} {
			var forks []store.SnapshotID
			for side := range 2 {
				forks = append(forks, r.branch(b, side, width, depth))
			}
			b.Run(fmt.Sprintf("width=%d/depth=%d", width, depth), func(b *testing.B) { r.resolve(b, width, forks) })
		}
	}
}

func (r *benchRoom) resolve(b *testing.B, width int, forks []store.SnapshotID) {
	b.ReportAllocs()
	for b.Loop() {
		err := r.rooms.store.View(func(tx *store.Tx) error {
			m := resolution{tx: tx, room: r.num, version: r.head.Version, snapshots: forks, bounds: wideBounds, cache: new(eventCache)}
			changes, err := m.resolve()
			if err == nil && len(changes) != width {
				err = fmt.Errorf("%d changes, want %d", len(changes), width)
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
