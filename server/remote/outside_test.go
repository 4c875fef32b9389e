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

// Who knocks again while his server hears of the refusal of his first knock has knocked;
// an answer that does not know of what came meanwhile changes nothing.
func TestSettleOutside(t *testing.T) {
	for _, knows := range []bool{true, false} {
		w := world{here: newHomestead(t, here), there: newHomestead(t, there)}
		room := w[there].create("11", 2)
		w[there].send(room, "m.room.join_rules", new(string), `{"join_rule":"knock"}`)
		j, stop := w.joiner(w[here])
		defer stop()
		if err := j.Knock(t.Context(), state.Join{Room: room, User: erin}, []matrix.ServerName{there}); err != nil {
			t.Fatal(err)
		}
		was := w[here].membership(erin, room)
		knocked, err := was.Own()
		w[here].must(err)
		member := func(sender matrix.UserID, content string, cited ...matrix.EventID) *matrix.Event {
			key := string(erin)
			draft := matrix.Draft{Room: room, Sender: sender, Type: "m.room.member", StateKey: &key, Content: jsontext.Value(content)}
			ev, err := draft.Build(knocked.Version, matrix.Placing{Auth: cited, Depth: 9}, sender.Server(), w[here].rooms.Key())
			w[here].must(err)
			return ev
		}
		refusal := member("@alice:there.test", `{"membership":"leave"}`, knocked.ID)
		if revoked, err := w[here].rooms.RevokeInvite(t.Context(), refusal); !revoked || err != nil {
			t.Fatalf("refused: %t, %v", revoked, err)
		}
		again, want := member(erin, `{"membership":"knock"}`), matrix.Leave
		if knows {
			again, want = member(erin, `{"membership":"knock"}`, refusal.ID), matrix.Knock
		}
		is := store.LocalMembership{Room: was.Room, Membership: matrix.Knock, PDU: again.JSON(), Version: again.Version.ID}
		if err := j.settle(t.Context(), erin, was, is); err != nil || w[here].membership(erin, room).Membership != want {
			t.Errorf("knows of the refusal %t: %+v, %v", knows, w[here].membership(erin, room), err)
		}
	}
}
