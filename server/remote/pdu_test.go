package remote

import (
	"bytes"
	"context"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// An invite by address needs no signature of its sender. One that was changed, and that
// its redaction leaves as an invite of the sender's own, does.
func TestForgedInvite(t *testing.T) {
	unsigned := func(_ context.Context, events []*matrix.Event) []error {
		errs := make([]error, len(events))
		for i, ev := range events {
			if len(ev.RequiredSigners()) > 0 {
				errs[i] = matrix.ErrBadSignature
			}
		}
		return errs
	}
	for id, forged := range map[string]bool{"10": false, "11": true} {
		v, _ := matrix.VersionByID(id)
		key := "@mallory:away.example"
		ev, err := matrix.Draft{
			Room: "!r:victim.example", Sender: "@alice:victim.example", Type: "m.room.member", StateKey: &key, OriginServerTS: 1,
			Content: []byte(`{"membership":"invite","third_party_invite":{"display_name":"m...","signed":{"token":"t"}}}`),
		}.Build(v, matrix.Placing{Depth: 3}, "away.example", testKey)
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Replace(ev.JSON(), []byte("m..."), []byte("n..."), 1)
		events, errs := checkPDUs(t.Context(), v, []jsontext.Value{ev.JSON(), changed}, unsigned)
		if errs[0] != nil || !bytes.Contains(events[0].Content, []byte("m...")) {
			t.Errorf("version %s: an invite by address: %v", id, errs[0])
		}
		// From version 11 on the proof stays, by which the auth rules judge it.
		if passes := errs[1] == nil; passes != forged || passes && !bytes.Contains(events[1].Content, []byte(`"token"`)) {
			t.Errorf("version %s: a changed one passes: %t", id, passes)
		}
	}
}
