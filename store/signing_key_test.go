package store

import (
	"bytes"
	"regexp"
	"testing"
	"time"
)

func TestSigningKeys(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir)
	var first SigningKey
	var secret []byte
	view(t, s, func(tx *Tx) error {
		keys, err := tx.SigningKeys()
		if err != nil || len(keys) != 1 || keys[0].Retired != 0 {
			t.Fatalf("a new server has the keys %v: %v", keys, err)
		}
		first = keys[0]
		if !regexp.MustCompile(`^ed25519:[a-z0-9]{8}$`).MatchString(first.ID) {
			t.Errorf("key ID %q", first.ID)
		}
		secret, err = tx.Secret()
		return err
	})
	now := time.UnixMilli(first.Created).Add(time.Hour)
	update(t, s, func(tx *Tx) error { return tx.NewSigningKey(now) })
	checkStore(t, s)
	closeStore(t, s)
	s = openDir(t, dir)
	defer closeStore(t, s)
	view(t, s, func(tx *Tx) error {
		keys, err := tx.SigningKeys()
		if err != nil || len(keys) != 2 {
			t.Fatalf("keys %v: %v", keys, err)
		}
		active, err := tx.SigningKey()
		if err != nil || active.ID != keys[0].ID || active.ID == first.ID {
			t.Errorf("key %s signs, the newest is %s: %v", active.ID, keys[0].ID, err)
		}
		old := keys[1]
		if old.ID != first.ID || !bytes.Equal(old.Private, first.Private) || old.Retired != now.UnixMilli() {
			t.Errorf("the old key is %+v", old)
		}
		if again, err := tx.Secret(); err != nil || !bytes.Equal(again, secret) {
			t.Errorf("the secret has changed: %v", err)
		}
		return nil
	})
	checkStore(t, s)
}
