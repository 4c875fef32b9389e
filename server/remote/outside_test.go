package remote

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// A user who knocks or rejects an invite waits for silent servers no longer than
// clients do, however many there are; and is rid of the invite then.
func TestOutsideInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
		room := w[there].create("11", 2)
		w[there].send(room, "m.room.join_rules", new(string), `{"join_rule":"knock"}`)
		j, stop := w.joiner(w[here])
		defer stop()
		knock := state.Join{Room: room, User: erin}
		if err := j.Knock(t.Context(), knock, []matrix.ServerName{there}); err != nil {
			t.Fatal(err)
		}
		var servers []matrix.ServerName
		stripped := []byte(`[`)
		for i := range maxCandidates {
			servers = append(servers, matrix.ServerName(fmt.Sprintf("s%d.test", i)))
			stripped = fmt.Appendf(stripped, `{"sender":"@a:s%d.test"},`, i)
		}
		m := w[here].membership(erin, room)
		m.Stripped = jsontext.Value(append(stripped[:len(stripped)-1], ']'))
		w[here].must(w[here].store.Update(t.Context(), func(tx *store.Tx) error { return tx.PutLocalMembership(tx.UserNum(erin), m) }))
		j.ask = func(ctx context.Context, dest matrix.ServerName, q Request, _ any) error {
			ctx, cancel := context.WithTimeout(ctx, q.Timeout)
			defer cancel()
			<-ctx.Done()
			return fmt.Errorf("%s: %w: %w", dest, ErrUnreachable, ctx.Err())
		}
		began := time.Now()
		err := j.Knock(t.Context(), knock, servers)
		if took := time.Since(began); took > time.Minute || !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("knocked for %v: %v", took, err)
		}
		began = time.Now()
		stays, err := j.Leave(t.Context(), room, erin, "")
		if took := time.Since(began); took > time.Minute || stays || err != nil {
			t.Errorf("left after %v: %v, %v", took, stays, err)
		}
		if is := w[here].membership(erin, room); is.Membership != matrix.Leave {
			t.Errorf("the user is still one who knocks: %+v", is)
		}
	})
}
