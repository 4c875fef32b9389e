package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

const curve = "signed_curve25519"

// addDevices makes an account with devices.
func addDevices(tb testing.TB, s *Store, id matrix.UserID, devices ...matrix.DeviceID) (user UserNum) {
	tb.Helper()
	update(tb, s, func(tx *Tx) (err error) {
		if user = tx.UserNum(id); !tx.IsLocal(user) {
			if user, err = tx.CreateAccount(id, Account{}); err != nil {
				return err
			}
		}
		for _, device := range devices {
			if err := tx.PutDevice(user, Device{ID: device}); err != nil {
				return err
			}
		}
		return nil
	})
	return user
}

func oneTimeKey(id string) OneTimeKey {
	return OneTimeKey{Algorithm: curve, ID: id, JSON: jsontext.Value(`{"key":"` + id + `","signatures":{}}`)}
}

func oneTimeKeys(from, to int) (keys []OneTimeKey) {
	for i := from; i < to; i++ {
		keys = append(keys, oneTimeKey(fmt.Sprintf("AAA%03d", i)))
	}
	return keys
}

// claim takes a key, "" when there is none.
func claim(tb testing.TB, s *Store, user UserNum, device matrix.DeviceID) (id string) {
	tb.Helper()
	update(tb, s, func(tx *Tx) error {
		key, err := tx.ClaimOneTimeKey(user, device, curve)
		id = key.ID
		return ignoreNotFound(err)
	})
	return id
}

func TestOneTimeKeysOldestFirst(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice, "PHONE", "PHONE2")
	for _, part := range [][2]int{{20, 30}, {10, 20}, {0, 10}} {
		update(t, s, func(tx *Tx) error { return tx.AddOneTimeKeys(user, "PHONE", oneTimeKeys(part[0], part[1])) })
	}
	var got []string
	for range 30 {
		got = append(got, claim(t, s, user, "PHONE"))
	}
	for i, part := range [][2]int{{20, 30}, {10, 20}, {0, 10}} {
		group := slices.Sorted(slices.Values(got[10*i : 10*i+10]))
		for j, key := range oneTimeKeys(part[0], part[1]) {
			if group[j] != key.ID {
				t.Errorf("keys %v were given as upload %d", group, i)
			}
		}
	}
	if id := claim(t, s, user, "PHONE"); id != "" {
		t.Errorf("key %s was given when none was left", id)
	}
}

func TestOneTimeKeyNames(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice, "PHONE")
	update(t, s, func(tx *Tx) error { return tx.AddOneTimeKeys(user, "PHONE", oneTimeKeys(0, 3)) })
	spaced := oneTimeKey("AAA001")
	spaced.JSON = jsontext.Value(`{ "signatures": {}, "key": "AAA001" }`)
	other := oneTimeKey("AAA001")
	other.JSON = jsontext.Value(`{"key":"something else"}`)
	tests := []struct {
		name   string
		device matrix.DeviceID
		keys   []OneTimeKey
		err    error
		count  int
	}{
		{"a repeat", "PHONE", oneTimeKeys(0, 3), nil, 3},
		{"the same key written otherwise", "PHONE", []OneTimeKey{spaced}, nil, 3},
		{"another key of that name", "PHONE", []OneTimeKey{oneTimeKey("AAA009"), other}, ErrExists, 3},
		{"too many", "PHONE", oneTimeKeys(0, MaxOneTimeKeys+1), ErrFull, 3},
		{"no such device", "LAPTOP", oneTimeKeys(0, 1), ErrNotFound, 3},
		{"as many as may be", "PHONE", oneTimeKeys(0, MaxOneTimeKeys), nil, MaxOneTimeKeys},
	}
	for _, tt := range tests {
		err := s.Update(t.Context(), func(tx *Tx) error { return tx.AddOneTimeKeys(user, tt.device, tt.keys) })
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
		}
		view(t, s, func(tx *Tx) error {
			counts, err := tx.OneTimeKeyCounts(user, "PHONE")
			if counts[curve] != tt.count {
				t.Errorf("%s: %d keys, want %d", tt.name, counts[curve], tt.count)
			}
			return err
		})
	}
}

// A client whose upload was answered by nobody repeats it. What was given out in
// between must not be given again.
func TestGivenKeyDoesNotComeBack(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice, "PHONE")
	given := map[string]bool{}
	for range 5 {
		update(t, s, func(tx *Tx) error { return tx.AddOneTimeKeys(user, "PHONE", oneTimeKeys(0, maxGivenKeys)) })
		for range maxGivenKeys / 5 {
			id := claim(t, s, user, "PHONE")
			if id == "" || given[id] {
				t.Fatalf("key %q was given twice", id)
			}
			given[id] = true
		}
	}
}

func TestFallbackKey(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice, "PHONE")
	put := func(key OneTimeKey) {
		t.Helper()
		update(t, s, func(tx *Tx) error { return tx.PutFallbackKey(user, "PHONE", key) })
	}
	unused := func(want ...string) {
		t.Helper()
		view(t, s, func(tx *Tx) error {
			got, err := tx.UnusedFallbackKeys(user, "PHONE")
			if got == nil || !slices.Equal(got, want) {
				t.Errorf("unused fallback keys %v, want %v", got, want)
			}
			return err
		})
	}
	unused()
	put(oneTimeKey("F1"))
	update(t, s, func(tx *Tx) error { return tx.AddOneTimeKeys(user, "PHONE", oneTimeKeys(0, 1)) })
	unused(curve)
	for i, want := range []string{"AAA000", "F1", "F1"} {
		if i == 1 {
			unused(curve)
		}
		if got := claim(t, s, user, "PHONE"); got != want {
			t.Errorf("claim %d: %s, want %s", i, got, want)
		}
	}
	unused()
	put(oneTimeKey("F1"))
	unused()
	put(oneTimeKey("F2"))
	unused(curve)
	if got := claim(t, s, user, "PHONE"); got != "F2" {
		t.Errorf("claimed %s, want F2", got)
	}
}

// Whoever asks at the same time gets another key, also where writes of one group
// fail and run again.
func TestClaimsAtTheSameTime(t *testing.T) {
	const claimers, each = 16, 12
	s := openTest(t)
	user := addDevices(t, s, alice, "PHONE")
	update(t, s, func(tx *Tx) error { return tx.AddOneTimeKeys(user, "PHONE", oneTimeKeys(0, claimers*each-20)) })
	var mu sync.Mutex
	given := map[string]int{}
	var wg sync.WaitGroup
	for n := range claimers {
		wg.Go(func() {
			for i := range each {
				var key OneTimeKey
				err := s.Update(t.Context(), func(tx *Tx) (err error) {
					key, err = tx.ClaimOneTimeKey(user, "PHONE", curve)
					if (n+i)%5 == 0 && err == nil {
						return errors.New("this claim fails after it has taken a key")
					}
					return err
				})
				if err == nil {
					mu.Lock()
					given[key.ID]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	for id, n := range given {
		if n != 1 {
			t.Errorf("key %s was given %d times", id, n)
		}
	}
	view(t, s, func(tx *Tx) error {
		counts, err := tx.OneTimeKeyCounts(user, "PHONE")
		if total := len(given) + counts[curve]; total != claimers*each-20 {
			t.Errorf("%d keys given and %d left, want %d together", len(given), counts[curve], claimers*each-20)
		}
		return err
	})
}

func TestDeviceTakesItsKeys(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice, "PHONE", "PHON")
	fill := func(device matrix.DeviceID) {
		update(t, s, func(tx *Tx) error {
			_, err := tx.AppendToDevice(user, device, jsontext.Value(`{"type":"m.test"}`))
			_, txnErr := tx.PutTxn(TxnID{User: user, Device: device, ID: "1"})
			return errors.Join(err, txnErr,
				tx.PutDeviceKeys(user, device, jsontext.Value(`{"device_id":"`+string(device)+`"}`)),
				tx.AddOneTimeKeys(user, device, oneTimeKeys(0, 5)),
				tx.PutFallbackKey(user, device, oneTimeKey("F")),
			)
		})
		claim(t, s, user, device)
	}
	fill("PHONE")
	fill("PHON")
	update(t, s, func(tx *Tx) error { return tx.DeleteDevice(user, "PHON") })
	view(t, s, func(tx *Tx) error {
		counts, err := tx.OneTimeKeyCounts(user, "PHON")
		if len(counts) != 0 {
			t.Errorf("keys of a deleted device: %v", counts)
		}
		if counts, _ := tx.OneTimeKeyCounts(user, "PHONE"); !maps.Equal(counts, map[string]int{curve: 4}) {
			t.Errorf("keys of the other device: %v", counts)
		}
		if _, err := tx.DeviceKeys(user, "PHON"); !errors.Is(err, ErrNotFound) {
			t.Errorf("identity keys of a deleted device: %v", err)
		}
		return err
	})
}
