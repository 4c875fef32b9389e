package store

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// A follower is shown each entry of the stream once and in order, those that were
// there and those that come, some in a View, and is told of a position when all up to
// it was shown.
func TestFollow(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice)
	after := s.Position() - 2
	say(t, s, r, 2*readAtOnce)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var shown []Position
	told, ended := make(chan Position), make(chan error, 1)
	go func() {
		before := 0
		ended <- s.Follow(ctx, after, func(_ *Tx, c Change) error {
			shown = append(shown, c.Position)
			return nil
		}, func(upto Position) {
			if n := len(shown); n-before > readAtOnce || shown[n-1] != upto {
				t.Errorf("told of %d after %d entries, the last %d", upto, n-before, shown[n-1])
			}
			before = len(shown)
			told <- upto
		})
	}()
	upto := after
	for _, messages := range []int{0, 2, 1, readAtOnce + 1} {
		say(t, s, r, messages)
		for upto < s.Position() {
			select {
			case upto = <-told:
			case err := <-ended:
				t.Fatalf("it ended: %v", err)
			}
		}
	}
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("at the end: %v", err)
	}
	var want []Position
	view(t, s, func(tx *Tx) error {
		return tx.Changes(after, func(c Change) (bool, error) {
			want = append(want, c.Position)
			return true, nil
		})
	})
	if !slices.Equal(shown, want) {
		t.Errorf("shown %d entries, want %d: %v", len(shown), len(want), shown)
	}
}

// An error ends a follower where it comes, and so does the store when it closes.
func TestFollowEnds(t *testing.T) {
	s := openDir(t, t.TempDir())
	r := putTestRoom(t, s, "12", alice)
	say(t, s, r, 3)
	enough := errors.New("enough")
	after, seen := s.Position()-3, 0
	note := func(*Tx, Change) error {
		if seen++; seen == 2 {
			return enough
		}
		return nil
	}
	passed := func(upto Position) { t.Errorf("it passed %d", upto) }
	if err := s.Follow(t.Context(), after, note, passed); !errors.Is(err, enough) || seen != 2 {
		t.Errorf("after %d entries: %v", seen, err)
	}
	seen = 0
	if upto, err := s.ReadOn(after, note); upto != after || !errors.Is(err, enough) {
		t.Errorf("read on up to %d: %v", upto, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Follow(t.Context(), s.Position(), note, nil) }()
	closeStore(t, s)
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("when the store closes: %v", err)
	}
}

// Who has read all is at the end of the stream, even where that is a place without an
// entry: to wait behind the last entry would be not to wait at all.
func TestReadOnToGap(t *testing.T) {
	s := openTest(t)
	update(t, s, func(tx *Tx) error {
		_, err := tx.nextPosition()
		return err
	})
	note := func(_ *Tx, c Change) error {
		t.Errorf("there is an entry: %+v", c)
		return nil
	}
	if upto, err := s.ReadOn(0, note); upto == 0 || upto != s.Position() || err != nil {
		t.Errorf("read on up to %d of %d: %v", upto, s.Position(), err)
	}
}

// say puts messages into a room, in one write.
func say(t *testing.T, s *Store, r *testRoom, messages int) {
	t.Helper()
	update(t, s, func(tx *Tx) error {
		for range messages {
			if _, err := r.send(tx, alice, `{}`, TxnID{}); err != nil {
				return err
			}
		}
		return nil
	})
}
