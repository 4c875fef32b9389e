package store

import (
	"errors"
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func crossKey(public string) CrossSigningKey {
	return CrossSigningKey{Public: public, JSON: jsontext.Value(`{"keys":{"ed25519:` + public + `":"` + public + `"}}`)}
}

func signatures(tb testing.TB, s *Store, signer, target UserNum, key string) (ids []string) {
	tb.Helper()
	view(tb, s, func(tx *Tx) error {
		return tx.KeySignatures(signer, target, key, func(s KeySignature) (bool, error) {
			ids = append(ids, s.KeyID+" "+s.Signature)
			return true, nil
		})
	})
	return ids
}

func TestCrossSigningKeys(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice, "PHONE")
	put := func(keys map[Usage]CrossSigningKey) error {
		return s.Update(t.Context(), func(tx *Tx) error { return tx.PutCrossSigningKeys(user, keys) })
	}
	if err := put(map[Usage]CrossSigningKey{UsageMaster: crossKey("M"), UsageSelfSigning: crossKey("PHONE")}); !errors.Is(err, ErrExists) {
		t.Errorf("a key called like a device: %v", err)
	}
	if err := put(map[Usage]CrossSigningKey{UsageMaster: crossKey("M"), UsageSelfSigning: crossKey("S")}); err != nil {
		t.Error(err)
	}
	if err := put(map[Usage]CrossSigningKey{UsageUserSigning: crossKey("U")}); err != nil {
		t.Error(err)
	}
	view(t, s, func(tx *Tx) error {
		for usage, want := range map[Usage]string{UsageMaster: "M", UsageSelfSigning: "S", UsageUserSigning: "U"} {
			key, err := tx.CrossSigningKey(user, usage)
			if key.Public != want || err != nil {
				t.Errorf("%s key is %s, want %s: %v", usage, key.Public, want, err)
			}
			if is, err := tx.IsCrossSigningKey(user, want); !is || err != nil {
				t.Errorf("%s is no cross-signing key: %v", want, err)
			}
		}
		if is, err := tx.IsCrossSigningKey(user, "PHONE"); is || err != nil {
			t.Errorf("PHONE is a cross-signing key: %v", err)
		}
		return nil
	})
}

// A signature belongs to a key, not to a name: another key takes away what the
// old one signed and what was signed about it.
func TestSignaturesEndWithTheirKey(t *testing.T) {
	s := openTest(t)
	a, b := addDevices(t, s, alice, "PHONE", "LAPTOP"), addDevices(t, s, bob, "B")
	device := jsontext.Value(`{"keys":{"ed25519:PHONE":"1"},"signatures":{}}`)
	update(t, s, func(tx *Tx) error {
		return errors.Join(
			tx.PutDeviceKeys(a, "PHONE", device),
			tx.PutDeviceKeys(a, "LAPTOP", device),
			tx.PutCrossSigningKeys(a, map[Usage]CrossSigningKey{UsageMaster: crossKey("M"), UsageSelfSigning: crossKey("S"), UsageUserSigning: crossKey("U")}),
			tx.PutKeySignatures(a, []KeySignature{
				{a, "PHONE", "ed25519:S", "1"}, {a, "LAPTOP", "ed25519:S", "2"},
				{a, "M", "ed25519:PHONE", "3"}, {b, "BM", "ed25519:U", "4"},
			}),
		)
	})
	want := func(target UserNum, key string, ids ...string) {
		t.Helper()
		if got := signatures(t, s, a, target, key); !slices.Equal(got, ids) {
			t.Errorf("signatures about %s: %q, want %q", key, got, ids)
		}
	}
	want(a, "PHONE", "ed25519:S 1")
	// The same keys with another signature are the same keys.
	update(t, s, func(tx *Tx) error {
		return tx.PutDeviceKeys(a, "PHONE", jsontext.Value(`{"signatures":{"x":{}},"keys":{"ed25519:PHONE":"1"}}`))
	})
	want(a, "PHONE", "ed25519:S 1")
	update(t, s, func(tx *Tx) error {
		return tx.PutDeviceKeys(a, "PHONE", jsontext.Value(`{"keys":{"ed25519:PHONE":"2"},"signatures":{}}`))
	})
	want(a, "PHONE")
	want(a, "M")
	want(a, "LAPTOP", "ed25519:S 2")
	update(t, s, func(tx *Tx) error {
		return tx.PutCrossSigningKeys(a, map[Usage]CrossSigningKey{UsageUserSigning: crossKey("U2")})
	})
	want(b, "BM")
	want(a, "LAPTOP", "ed25519:S 2")
	update(t, s, func(tx *Tx) error { return tx.DeleteDevice(a, "LAPTOP") })
	want(a, "LAPTOP")
}

// What a user signs about others is news for the user alone.
func TestSignedSince(t *testing.T) {
	s := openTest(t)
	a, b := addDevices(t, s, alice), addDevices(t, s, bob)
	c := addDevices(t, s, "@carol:hearth.test")
	sign := func(target UserNum, signature string) (before Position) {
		before = s.Position()
		update(t, s, func(tx *Tx) error {
			return tx.PutKeySignatures(a, []KeySignature{{target, "M", "ed25519:U", signature}})
		})
		return before
	}
	since := func(signer UserNum, after Position, want ...UserNum) {
		t.Helper()
		var got []UserNum
		view(t, s, func(tx *Tx) error {
			return tx.SignedSince(signer, after, func(u UserNum) (bool, error) {
				got = append(got, u)
				return true, nil
			})
		})
		if !slices.Equal(got, want) {
			t.Errorf("signed since %d by %d: %v, want %v", after, signer, got, want)
		}
	}
	first := sign(b, "1")
	second := sign(c, "1")
	since(a, first, b, c)
	since(a, second, c)
	third := sign(b, "2")
	since(a, first, c, b)
	since(a, third, b)
	since(b, 0)
	if fourth := sign(b, "2"); s.Position() != fourth {
		t.Error("a signature that was there is news")
	}
	view(t, s, func(tx *Tx) error {
		return tx.DeviceListChanges(first, func(u UserNum) (bool, error) {
			t.Errorf("the device list of %d counts as changed", u)
			return true, nil
		})
	})
}

func TestDeviceListChanges(t *testing.T) {
	s := openTest(t)
	a, b := addDevices(t, s, alice, "PHONE"), addDevices(t, s, bob, "PHONE")
	changes := func(after Position, want ...UserNum) {
		t.Helper()
		var got []UserNum
		view(t, s, func(tx *Tx) error {
			return tx.DeviceListChanges(after, func(u UserNum) (bool, error) {
				got = append(got, u)
				return true, nil
			})
		})
		if !slices.Equal(got, want) {
			t.Errorf("device lists changed behind %d: %v, want %v", after, got, want)
		}
	}
	changes(0, a, b)
	before := s.Position()
	keys := jsontext.Value(`{"keys":{}}`)
	update(t, s, func(tx *Tx) error { return tx.PutDeviceKeys(a, "PHONE", keys) })
	changes(0, b, a)
	changes(before, a)
	before = s.Position()
	update(t, s, func(tx *Tx) error { return tx.PutDeviceKeys(a, "PHONE", keys) })
	changes(before)
	update(t, s, func(tx *Tx) error { return tx.DeleteDevice(b, "PHONE") })
	changes(before, b)
	changes(s.Position())
}
