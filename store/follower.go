package store

import "context"

// readAtOnce is how many entries of the stream [Store.ReadOn] reads in one View: one
// that stays open keeps the pages that are overwritten meanwhile.
const readAtOnce = 500

// Follow reads the stream behind a position as it grows: it calls note for each entry,
// in order, in a View with others, and after each such View passed (nil: nobody) with
// the position up to which all has been noted. It returns ctx's error when ctx ends,
// or else the first error: of note, of the store, ErrClosed when the store closes.
func (s *Store) Follow(ctx context.Context, after Position, note func(*Tx, Change) error, passed func(upto Position)) error {
	for {
		_, err := s.Wait(ctx, after)
		if err == nil {
			after, err = s.ReadOn(after, note)
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return err
		}
		if passed != nil {
			passed(after)
		}
	}
}

// ReadOn calls note, in one View, for the next entries of the stream behind a
// position, in order, and returns up to where it has come. That is not the end where
// there are many. After an error of note or of the store it is where it began.
func (s *Store) ReadOn(after Position, note func(*Tx, Change) error) (upto Position, err error) {
	err = s.View(func(tx *Tx) error {
		read := 0
		upto = tx.Position()
		return tx.Changes(after, func(c Change) (bool, error) {
			if read++; read > readAtOnce {
				return false, nil
			}
			upto = c.Position
			return true, note(tx, c)
		})
	})
	if err != nil {
		return after, err
	}
	return upto, nil
}
