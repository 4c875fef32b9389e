package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"hearth/state/matrix"
	"hearth/store/blob"
)

// Files of other servers go by the time of their last use, whatever happened to them,
// until they are within the limit; our own never do.
func TestEvictMedia(t *testing.T) {
	s := openTest(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	begin := time.Unix(1_790_000_000, 0)
	own := putBlob(t, s, "our own file")
	update(t, s, func(tx *Tx) error {
		return tx.PutMedia(Media{Origin: testServer, ID: "own", Content: own, Size: 12, Created: begin})
	})
	const origin = matrix.ServerName("far.example")
	used := make(map[MediaID]time.Time)
	size := func(id MediaID) uint64 { return uint64(len("a file ") + len(id)) }
	for i := range 40 {
		id := MediaID(fmt.Sprintf("f%d", i))
		content := putBlob(t, s, "a file "+string(id))
		used[id] = begin.Add(time.Duration(i) * time.Hour)
		update(t, s, func(tx *Tx) error {
			return tx.PutMedia(Media{Origin: origin, ID: id, Content: content, Size: int64(size(id)), Created: used[id]})
		})
	}
	update(t, s, func(tx *Tx) error {
		if _, err := tx.DeleteMedia(origin, "f7"); err != nil {
			return err
		}
		delete(used, "f7")
		if err := tx.UseMedia(testServer, "own", begin); !errors.Is(err, ErrNotFound) {
			t.Errorf("use of our own file: %v", err)
		}
		for id := range used {
			if rnd.IntN(2) == 0 {
				continue
			}
			used[id] = begin.Add(time.Duration(rnd.IntN(1000)) * time.Minute)
			if err := tx.UseMedia(origin, id, used[id]); err != nil {
				return err
			}
			if at, err := tx.MediaUsed(origin, id); err != nil || !at.Equal(used[id]) {
				t.Errorf("%s was used %v, %v; want %v", id, at, err, used[id])
			}
		}
		return nil
	})
	for more := true; more; {
		var unused []blob.Hash
		update(t, s, func(tx *Tx) (err error) {
			unused, more, err = tx.EvictMedia(100, 5)
			return err
		})
		if len(unused) == 0 || len(unused) > 5 {
			t.Fatalf("%d blobs of one step", len(unused))
		}
		for _, h := range unused {
			if err := s.Blobs().Delete(h); err != nil {
				t.Fatal(err)
			}
		}
	}
	view(t, s, func(tx *Tx) error {
		var sum uint64
		var oldest, newest time.Time // of those that stay, and of those that went
		for id, at := range used {
			if _, err := tx.Media(origin, id); errors.Is(err, ErrNotFound) {
				if at.After(newest) {
					newest = at
				}
				continue
			}
			sum += size(id)
			if oldest.IsZero() || at.Before(oldest) {
				oldest = at
			}
		}
		if oldest.Before(newest) {
			t.Errorf("a file used at %v stays, one used at %v went", oldest, newest)
		}
		if got, err := tx.FetchedBytes(); err != nil || got != sum || sum > 100 || sum < 80 {
			t.Errorf("%d bytes are left, %v; counted %d", got, err, sum)
		}
		_, err := tx.Media(testServer, "own")
		return err
	})
}

// Check finds what is wrong about the use of fetched files.
func TestCheckFetchedMedia(t *testing.T) {
	file := Media{Origin: "far.example", ID: "f", Size: 6, Created: time.Unix(1_790_000_000, 0)}
	for name, damage := range map[string]func(*Tx, []byte) error{
		"not counted":  func(tx *Tx, _ []byte) error { return tx.delete(bucketMedia, []byte{mediaFetchedSum}) },
		"not in order": func(tx *Tx, n []byte) error { return tx.delete(bucketMedia, fetchedAtKey(file.Created, n)) },
		"twice in order": func(tx *Tx, n []byte) error {
			return tx.put(bucketMedia, fetchedAtKey(file.Created.Add(time.Hour), n), []byte{})
		},
		"not known": func(tx *Tx, n []byte) error { return tx.delete(bucketMedia, append([]byte{mediaFetched}, n...)) },
		"no file": func(tx *Tx, _ []byte) error {
			return tx.writeFetched(tx.mediaName("far.example", "g"), fetched{used: file.Created})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openDir(t, t.TempDir())
			defer closeStore(t, s)
			file.Content = putBlob(t, s, "a file")
			update(t, s, func(tx *Tx) error {
				return errors.Join(tx.PutMedia(file), damage(tx, tx.mediaName(file.Origin, file.ID)))
			})
			faults := 0
			view(t, s, func(tx *Tx) error {
				return checkMedia(&checker{Tx: tx, ctx: t.Context(), report: func(string) { faults++ }})
			})
			if faults == 0 {
				t.Error("nothing was found")
			}
		})
	}
}
