package matrix

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzBuild drafts events of anything that a client may say. What is built is
// canonical, hashed, signed, and reads as what was drafted; nothing else is built.
func FuzzBuild(f *testing.F) {
	for n := range Versions() {
		f.Add(uint8(n), "m.room.message", "", false, []byte(`{"body":"x","n":1}`), "", int64(1))
		f.Add(uint8(n), "m.room.redaction", "", false, []byte(`{"redacts":7,"a":"\u0061"}`), "$e:x", int64(1)<<60)
		f.Add(uint8(n), "m.room.create", "", true, []byte(`{"creator":"@a:x"}`), "", int64(-1))
		f.Add(uint8(n), "m.x\x00\"", "\xff", true, []byte(`{"a":1.5,"b":[{}]}`), "", int64(0))
		f.Add(uint8(n), "m.room.redaction", "", true, []byte(`{}`), "$\"x", int64(0))
	}
	key := SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	public := key.Private.Public().(ed25519.PublicKey)
	f.Fuzz(func(t *testing.T, n uint8, typ, stateKey string, isState bool, content []byte, redacts string, depth int64) {
		v := Versions()[int(n)%len(Versions())]
		draft := Draft{Room: "!room:home.example", Sender: "@a:home.example", Type: typ, Content: content, Redacts: EventID(redacts)}
		if isState {
			draft.StateKey = &stateKey
		}
		prev := EventID("$prev:home.example")
		e, err := draft.Build(v, Placing{Prev: []EventID{prev}, Depth: depth}, "home.example", key)
		if err != nil {
			if !errors.Is(err, ErrNotJSON) && !errors.Is(err, ErrBadJSON) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		text := utf8.ValidString(typ) && utf8.ValidString(stateKey) // else they are made to be
		if text && (e.Type != typ || isState && *e.StateKey != stateKey) || e.IsState() != isState || e.Sender != draft.Sender ||
			len(e.PrevEvents) != 1 || e.PrevEvents[0] != prev || len(e.AuthEvents) != 0 || e.Depth > max(depth, 0) && depth >= 0 {
			t.Fatalf("%+v became %s", draft, e.JSON())
		}
		if again, err := Parse(v, e.JSON()); err != nil || again.ID != e.ID {
			t.Fatalf("read again: %+v, %v", again, err)
		}
		if canonical, err := CanonicalFor(v, e.JSON()); err != nil || !bytes.Equal(canonical, e.JSON()) {
			t.Fatalf("%s is not canonical: %v", e.JSON(), err)
		}
		if err := e.VerifySignature("home.example", key.ID, public); err != nil || !e.VerifyContentHash() {
			t.Fatalf("%s is not signed and hashed: %v", e.JSON(), err)
		}
	})
}

// FuzzSigned signs anything: what can be signed verifies, whoever has signed it
// before, and nothing that is read of signatures makes its reader panic.
func FuzzSigned(f *testing.F) {
	for _, obj := range []string{
		`{}`, `{"signatures":{"a.example":{"ed25519:1":"AAAA"}},"unsigned":{"age":1}}`, `{"signatures":{"home.example":7}}`,
		`{"signatures":7,"a":[1,2,{"b":null}]}`, `{"signatures":{"home.example":{"ed25519:1":"!"}}}`, `[]`, `{"a":1,"a":2}`,
	} {
		f.Add([]byte(obj), "home.example", "ed25519:1")
	}
	private := ed25519.NewKeyFromSeed(make([]byte, 32))
	public := private.Public().(ed25519.PublicKey)
	f.Fuzz(func(t *testing.T, obj []byte, entity, keyID string) {
		_ = VerifyJSON(obj, entity, keyID, public)
		_ = VerifyJSON(obj, entity, keyID, public[:len(keyID)%(len(public)+1)])
		signed, err := SignJSON(bytes.Clone(obj), entity, SigningKey{ID: keyID, Private: private})
		if err != nil || !utf8.ValidString(entity) || !utf8.ValidString(keyID) || !strings.HasPrefix(keyID, signatureAlgorithm) {
			return
		}
		if err := VerifyJSON(signed, entity, keyID, public); err != nil {
			t.Fatalf("%s signed is %s, which does not verify: %v", obj, signed, err)
		}
	})
}
