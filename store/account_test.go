package store

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// testTime is when accounts of tests are made.
var testTime = time.UnixMilli(1_790_000_000_000)

// createAccount makes an account in a write of its own.
func createAccount(t *testing.T, s *Store, id matrix.UserID) (user UserNum) {
	t.Helper()
	update(t, s, func(tx *Tx) (err error) {
		user, err = tx.CreateAccount(id, Account{PasswordHash: "hash of " + string(id), Created: testTime})
		return err
	})
	return user
}

func TestAccounts(t *testing.T) {
	s := openTest(t)
	var want []UserNum
	// Numbers of users without an account stand between those with one.
	for _, id := range []matrix.UserID{"@a:hearth.test", "@b:hearth.test", "@c:hearth.test"} {
		want = append(want, createAccount(t, s, id))
		update(t, s, func(tx *Tx) error { _, err := tx.PutUserNum("@remote" + id[1:]); return err })
	}
	update(t, s, func(tx *Tx) error {
		if _, err := tx.CreateAccount("@b:hearth.test", Account{}); !errors.Is(err, ErrExists) {
			t.Errorf("a second account of one name: %v", err)
		}
		if owner := tx.Owner(); owner != want[0] {
			t.Errorf("the owner is %d, want %d", owner, want[0])
		}
		return tx.UpdateAccount(want[1], func(a *Account) { a.Locked, a.Suspended = true, true })
	})
	view(t, s, func(tx *Tx) error {
		var got []UserNum
		err := tx.Accounts(func(user UserNum, a Account) (bool, error) {
			got = append(got, user)
			wanted := Account{PasswordHash: "hash of " + string(tx.UserID(user)), Created: testTime}
			wanted.Admin = user == want[0]
			wanted.Locked, wanted.Suspended = user == want[1], user == want[1]
			if a != wanted {
				t.Errorf("account of %d: %+v, want %+v", user, a, wanted)
			}
			return true, nil
		})
		if !slices.Equal(got, want) {
			t.Errorf("accounts of %d, want %d", got, want)
		}
		if tx.IsLocal(tx.UserNum("@remotea:hearth.test")) || tx.IsLocal(0) {
			t.Error("who has no account is local")
		}
		if _, err := tx.Account(0); !errors.Is(err, ErrNotFound) {
			t.Errorf("account of nobody: %v", err)
		}
		return err
	})
}

// After a deactivation and its sweep nothing is left but the record that keeps the
// name taken, however much there was.
func TestDeactivate(t *testing.T) {
	s := openTest(t)
	user, other := createAccount(t, s, "@a:hearth.test"), createAccount(t, s, "@b:hearth.test")
	update(t, s, func(tx *Tx) error {
		for _, u := range []UserNum{user, other} {
			err := errors.Join(
				putDevice(tx, u, "D"), putDevice(tx, u, "E"),
				tx.PutLogin(u, "D", NewTokens{Access: HashToken("token of " + string(tx.UserID(u)))}),
				tx.PutLoginToken(HashToken("login of "+string(tx.UserID(u))), u, testTime, testTime.Add(time.Minute)),
				tx.PutProfileField(u, "displayname", jsontext.Value(`"name"`)),
			)
			for _, filter := range []string{`{}`, `{"a":1}`, `{"a":2}`} {
				_, fault := tx.PutFilter(u, jsontext.Value(filter))
				err = errors.Join(err, fault)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	update(t, s, func(tx *Tx) error {
		if _, err := tx.SweepDeactivated(user, 1); !errors.Is(err, ErrExists) {
			t.Errorf("sweep of an account in use: %v", err)
		}
		return tx.Deactivate(user, true)
	})
	for more, rounds := true, 0; more; rounds++ {
		update(t, s, func(tx *Tx) (err error) { more, err = tx.SweepDeactivated(user, 2); return err })
		if rounds > 10 {
			t.Fatal("a sweep of a few records does not end")
		}
	}
	view(t, s, func(tx *Tx) error {
		left := map[UserNum]int{}
		err := tx.scan(bucketUser, nil, nil, func(key, _ []byte) (bool, error) {
			if key[4] != userDevicesLatest { // others must learn that the devices are gone
				left[UserNum(u32(key))]++
			}
			return true, nil
		})
		if left[user] != 1 || left[other] != 1+2+1+1+3 {
			t.Errorf("%d records are left of the account, %d of another", left[user], left[other])
		}
		a, fault := tx.Account(user)
		if !a.Deactivated || !a.Erased || a.Admin || a.PasswordHash != "" {
			t.Errorf("the account is %+v", a)
		}
		return errors.Join(err, fault)
	})
	update(t, s, func(tx *Tx) error {
		if err := tx.ResetPassword(user, "hash"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a password for a deactivated account: %v", err)
		}
		if _, err := tx.CreateAccount("@a:hearth.test", Account{}); !errors.Is(err, ErrExists) {
			t.Errorf("the name was given again: %v", err)
		}
		return tx.Deactivate(user, false)
	})
}

func putDevice(tx *Tx, user UserNum, id matrix.DeviceID) error {
	return tx.PutDevice(user, Device{ID: id, Created: testTime, LastSeen: testTime})
}

// A profile has its bound as a whole, and a value that is there already is no news.
func TestProfile(t *testing.T) {
	s := openTest(t)
	user := createAccount(t, s, "@a:hearth.test")
	big := jsontext.Value(`"` + strings.Repeat("x", MaxProfileBytes/2) + `"`)
	update(t, s, func(tx *Tx) error {
		if err := tx.PutProfileField(user, "org.example.a", big); err != nil {
			return err
		}
		before := tx.Position()
		if err := tx.PutProfileField(user, "org.example.a", big); err != nil || tx.Position() != before {
			t.Errorf("the same value again: %v, at %d after %d", err, tx.Position(), before)
		}
		if err := tx.PutProfileField(user, "org.example.b", big); !errors.Is(err, ErrProfileTooLarge) {
			t.Errorf("twice half of it and more: %v", err)
		}
		return tx.PutProfileField(user, "org.example.a", jsontext.Value(`1`))
	})
	update(t, s, func(tx *Tx) error { return tx.PutProfileField(user, "org.example.b", big) })
	update(t, s, func(tx *Tx) error { return tx.DeleteProfileField(user, "org.example.b") })
	view(t, s, func(tx *Tx) error {
		var names []string
		err := tx.Profile(user, func(name string, value jsontext.Value) (bool, error) {
			names = append(names, name+"="+string(value))
			return true, nil
		})
		if !slices.Equal(names, []string{"org.example.a=1"}) {
			t.Errorf("profile %s", names)
		}
		if _, err := tx.ProfileField(user, "org.example.b"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a field that was deleted: %v", err)
		}
		return err
	})
}

// A filter stored twice is one, and there is a bound.
func TestFilters(t *testing.T) {
	s := openTest(t)
	user := createAccount(t, s, "@a:hearth.test")
	update(t, s, func(tx *Tx) error {
		first, err := tx.PutFilter(user, jsontext.Value(`{"a":1}`))
		again, fault := tx.PutFilter(user, jsontext.Value(`{"a":1}`))
		if first != again {
			t.Errorf("one filter has two names, %x and %x", first, again)
		}
		got, lost := tx.Filter(user, first)
		if string(got) != `{"a":1}` {
			t.Errorf("the filter is %s", got)
		}
		if _, err := tx.Filter(user, first+1); !errors.Is(err, ErrNotFound) {
			t.Errorf("a filter that is not there: %v", err)
		}
		return errors.Join(err, fault, lost)
	})
	update(t, s, func(tx *Tx) error {
		for i := range maxFilters - 1 {
			if _, err := tx.PutFilter(user, jsontext.Value(`{"n":`+strconv.Itoa(i)+`}`)); err != nil {
				return err
			}
		}
		if _, err := tx.PutFilter(user, jsontext.Value(`{"one":"more"}`)); !errors.Is(err, ErrFull) {
			t.Errorf("one more than the bound: %v", err)
		}
		_, err := tx.PutFilter(user, jsontext.Value(`{"a":1}`))
		return err
	})
}
