package store

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// What is stored about other servers is read back as it was.
func TestServerRecords(t *testing.T) {
	st := openTest(t)
	now := time.UnixMilli(1_790_000_000_123)
	host := Host{
		Delegated: "matrix.far.example:443", DelegatedUntil: now, Failures: 3,
		Targets: []HostTarget{{"a.far.example", 8448}, {"b.far.example", 443}}, TargetsUntil: now.Add(time.Hour),
	}
	backoff := Backoff{Failures: 7, Since: now, Until: now.Add(time.Minute)}
	key := VerifyKey{ID: "ed25519:1", Public: bytes.Repeat([]byte{7}, 32), ValidUntil: now}
	old := VerifyKey{ID: "ed25519:0", Public: bytes.Repeat([]byte{8}, 32), ValidUntil: now, Expired: true}
	answer := KeyAnswer{JSON: jsontext.Value(`{"server_name":"far.example"}`), Fetched: now, ValidUntil: now.Add(time.Hour)}
	update(t, st, func(tx *Tx) error {
		return errors.Join(tx.PutHost("far.example", host), tx.PutBackoff("far.example", backoff),
			tx.PutServerKeys("far.example", answer, []VerifyKey{key, old}))
	})
	view(t, st, func(tx *Tx) error {
		if got, err := tx.Host("far.example"); err != nil || !reflect.DeepEqual(got, host) {
			t.Errorf("host %+v, %v", got, err)
		}
		if got, err := tx.Host("far.exampl"); err != nil || !reflect.DeepEqual(got, Host{}) {
			t.Errorf("unknown host %+v, %v", got, err)
		}
		if got, err := tx.Backoff("far.example"); err != nil || got != backoff {
			t.Errorf("back-off %+v, %v", got, err)
		}
		for _, want := range []VerifyKey{key, old} {
			if got, err := tx.VerifyKey("far.example", want.ID); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("key %+v, %v", got, err)
			}
		}
		if got, err := tx.KeyAnswer("far.example"); err != nil || !reflect.DeepEqual(got, answer) {
			t.Errorf("answer %+v, %v", got, err)
		}
		if _, err := tx.VerifyKey("far.exampl", "e"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a key of another server: %v", err)
		}
		return nil
	})
	update(t, st, func(tx *Tx) error { return tx.PutBackoff("far.example", Backoff{}) })
	view(t, st, func(tx *Tx) error {
		return tx.Backoffs(func(server matrix.ServerName, _ Backoff) bool {
			t.Errorf("%s is still backing off", server)
			return true
		})
	})
}

// A server that makes ever new keys does not fill the disk.
func TestServerKeysAreBounded(t *testing.T) {
	st := openTest(t)
	answer := KeyAnswer{JSON: jsontext.Value(`{}`), Fetched: time.Now()}
	var err error
	for i := 0; i < 2*maxVerifyKeys && err == nil; i += 64 {
		var keys []VerifyKey
		for j := range 64 {
			keys = append(keys, VerifyKey{ID: fmt.Sprintf("ed25519:%d", i+j), Public: make([]byte, 32)})
		}
		err = st.Update(t.Context(), func(tx *Tx) error { return tx.PutServerKeys("far.example", answer, keys) })
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
}

// Servers that were found long ago are told from the others.
func TestOldHosts(t *testing.T) {
	st := openTest(t)
	now := time.Now()
	update(t, st, func(tx *Tx) error {
		for i := range 50 {
			age := time.Duration(i%2) * 48 * time.Hour
			host := Host{DelegatedUntil: now.Add(-age)}
			if err := tx.PutHost(matrix.ServerName(fmt.Sprintf("s%d.example", i)), host); err != nil {
				return err
			}
		}
		return nil
	})
	left := 0
	update(t, st, func(tx *Tx) error {
		old, err := tx.OldHosts(now.Add(-24*time.Hour), 20)
		if len(old) != 20 {
			t.Errorf("%d hosts are old", len(old))
		}
		for _, server := range old {
			err = errors.Join(err, tx.DeleteHost(server))
		}
		return err
	})
	view(t, st, func(tx *Tx) error {
		old, err := tx.OldHosts(now.Add(time.Hour), 100)
		left = len(old)
		return err
	})
	if left != 30 {
		t.Errorf("%d hosts are left", left)
	}
}
