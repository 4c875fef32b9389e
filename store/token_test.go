package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"hearth/state/matrix"
)

// newTokens returns the hashes of a pair that is called so.
func newTokens(name string) NewTokens {
	refresh := HashToken("r" + name)
	return NewTokens{Access: HashToken("a" + name), Expires: testTime.Add(time.Hour), Refresh: &refresh}
}

// hasTokens compares which tokens a device has, by name and state.
func hasTokens(t *testing.T, s *Store, want map[string]TokenState) {
	t.Helper()
	view(t, s, func(tx *Tx) error {
		for _, name := range []string{"a1", "r1", "a2", "r2", "a3", "r3", "a4", "r4"} {
			token, err := tx.Token(HashToken(name))
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			if token.State != want[name] {
				t.Errorf("token %s is in state %d, want %d", name, token.State, want[name])
			}
		}
		return nil
	})
}

// The old pair is good until the new one is used; then it is spent, and those
// before it are forgotten.
func TestRefresh(t *testing.T) {
	s := openTest(t)
	user := createAccount(t, s, "@a:hearth.test")
	use := func(name string) {
		update(t, s, func(tx *Tx) error { _, err := tx.UseToken(HashToken(name)); return err })
	}
	refresh := func(old, name string) {
		update(t, s, func(tx *Tx) error { return tx.Refresh(HashToken(old), newTokens(name)) })
	}
	update(t, s, func(tx *Tx) error {
		return errors.Join(putDevice(tx, user, "D"), tx.PutLogin(user, "D", newTokens("1")))
	})
	hasTokens(t, s, map[string]TokenState{"a1": TokenInUse, "r1": TokenInUse})

	refresh("r1", "2") // whose reply is lost
	refresh("r1", "3")
	hasTokens(t, s, map[string]TokenState{
		"a1": TokenInUse, "r1": TokenInUse, "a2": TokenFresh, "r2": TokenFresh, "a3": TokenFresh, "r3": TokenFresh,
	})
	use("a1") // which is in use already
	use("a3")
	hasTokens(t, s, map[string]TokenState{"a1": TokenSpent, "r1": TokenSpent, "a3": TokenInUse, "r3": TokenInUse})

	update(t, s, func(tx *Tx) error {
		for _, name := range []string{"r1", "a3", "r2", "nonsense"} {
			if err := tx.Refresh(HashToken(name), newTokens("4")); !errors.Is(err, ErrNotFound) {
				t.Errorf("refresh by %s: %v", name, err)
			}
		}
		return nil
	})
	refresh("r3", "4")
	refresh("r4", "2") // the refresh token, too, puts its pair in use
	hasTokens(t, s, map[string]TokenState{
		"a3": TokenSpent, "r3": TokenSpent, "a4": TokenInUse, "r4": TokenInUse, "a2": TokenFresh, "r2": TokenFresh,
	})
	update(t, s, func(tx *Tx) error { return tx.PutLogin(user, "D", newTokens("1")) })
	hasTokens(t, s, map[string]TokenState{"a1": TokenInUse, "r1": TokenInUse})
	update(t, s, func(tx *Tx) error { return tx.DeleteDevice(user, "D") })
	hasTokens(t, s, nil)
}

// Whatever a client does with the tokens that it was given, it has a pair that
// works, and a device never has more than a few.
func TestRefreshNeverLocksOut(t *testing.T) {
	s := openTest(t)
	user := createAccount(t, s, "@a:hearth.test")
	update(t, s, func(tx *Tx) error {
		return errors.Join(putDevice(tx, user, "D"), tx.PutLogin(user, "D", newTokens("0")))
	})
	random := rand.New(rand.NewPCG(1, 2))
	current := "0" // the pair that the client has; what it asks for may get lost
	for i := range 300 {
		next := fmt.Sprint(i + 1)
		update(t, s, func(tx *Tx) error {
			if random.IntN(2) == 0 {
				_, err := tx.UseToken(HashToken("a" + current))
				return err
			}
			return tx.Refresh(HashToken("r"+current), newTokens(next))
		})
		view(t, s, func(tx *Tx) error {
			tokens, err := tx.tokens(user, "D")
			if len(tokens) > 2*(maxFreshPairs+2) {
				t.Fatalf("round %d: the device has %d tokens", i, len(tokens))
			}
			if _, fault := tx.Token(HashToken("a" + next)); fault == nil && random.IntN(2) == 0 {
				current = next
			}
			for _, kind := range []string{"a", "r"} {
				if token, fault := tx.Token(HashToken(kind + current)); fault != nil || token.State == TokenSpent {
					t.Fatalf("round %d: the client's token is in state %d, %v", i, token.State, fault)
				}
			}
			return err
		})
	}
}

// A device takes its tokens with it, and nobody else's.
func TestDevices(t *testing.T) {
	s := openTest(t)
	a, b := createAccount(t, s, "@a:hearth.test"), createAccount(t, s, "@b:hearth.test")
	devices := []matrix.DeviceID{"D", "DD", "D/\x01", "E"}
	update(t, s, func(tx *Tx) error {
		for _, user := range []UserNum{a, b} {
			for _, id := range devices {
				tokens := NewTokens{Access: HashToken(fmt.Sprint(user, id))}
				if err := errors.Join(putDevice(tx, user, id), tx.PutLogin(user, id, tokens)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	left := func(user UserNum) (n int) {
		view(t, s, func(tx *Tx) error {
			return tx.Devices(user, func(d Device) (bool, error) {
				if _, err := tx.Token(HashToken(fmt.Sprint(user, d.ID))); err != nil {
					t.Errorf("device %s of %d has lost its token: %v", d.ID, user, err)
				}
				n++
				return true, nil
			})
		})
		return n
	}
	var before Position
	update(t, s, func(tx *Tx) error {
		before = tx.Position()
		return errors.Join(tx.DeleteDevice(a, "D"), tx.DeleteDevice(a, "D"), tx.DeleteDevice(a, "none"))
	})
	if left(a) != 3 || left(b) != 4 {
		t.Errorf("devices left: %d and %d", left(a), left(b))
	}
	view(t, s, func(tx *Tx) error {
		if tx.Position() != before+1 {
			t.Errorf("deleting one device took %d places in the stream", tx.Position()-before)
		}
		if _, err := tx.Token(HashToken(fmt.Sprint(a, "D"))); !errors.Is(err, ErrNotFound) {
			t.Errorf("its token: %v", err)
		}
		return nil
	})
	update(t, s, func(tx *Tx) error { return tx.DeleteDevices(a, "E") })
	if left(a) != 1 || left(b) != 4 {
		t.Errorf("devices left: %d and %d", left(a), left(b))
	}
	update(t, s, func(tx *Tx) error {
		before = tx.Position()
		seen := testTime.Add(time.Hour)
		return errors.Join(
			tx.PutSighting(Sighting{User: a, Device: "E", Time: seen, IP: "2001:db8::1"}),
			tx.PutSighting(Sighting{User: a, Device: "E", Time: testTime, IP: "192.0.2.1"}),
			tx.PutSighting(Sighting{User: a, Device: "none", Time: seen}),
		)
	})
	view(t, s, func(tx *Tx) error {
		d, err := tx.Device(a, "E")
		if !d.LastSeen.Equal(testTime.Add(time.Hour)) || d.LastIP != "2001:db8::1" || tx.Position() != before {
			t.Errorf("the device is %+v at %d, before %d", d, tx.Position(), before)
		}
		return err
	})
}

// A login token is for one login, before its time is over, and there is a bound.
func TestLoginTokens(t *testing.T) {
	s := openTest(t)
	user := createAccount(t, s, "@a:hearth.test")
	expires := testTime.Add(time.Minute)
	update(t, s, func(tx *Tx) error {
		for i := range maxLoginTokens {
			if err := tx.PutLoginToken(HashToken(fmt.Sprint(i)), user, testTime, expires); err != nil {
				return err
			}
		}
		if err := tx.PutLoginToken(HashToken("more"), user, testTime, expires); !errors.Is(err, ErrFull) {
			t.Errorf("one more than the bound: %v", err)
		}
		whose, err := tx.TakeLoginToken(HashToken("1"), testTime)
		if whose != user {
			t.Errorf("the token is of user %d, want %d", whose, user)
		}
		if _, err := tx.TakeLoginToken(HashToken("1"), testTime); !errors.Is(err, ErrNotFound) {
			t.Errorf("used twice: %v", err)
		}
		if _, err := tx.TakeLoginToken(HashToken("2"), expires); !errors.Is(err, ErrNotFound) {
			t.Errorf("used too late: %v", err)
		}
		return errors.Join(err, tx.PutLoginToken(HashToken("later"), user, expires, expires.Add(time.Minute)))
	})
	view(t, s, func(tx *Tx) error {
		n := 0
		err := tx.scan(bucketUser, keyOf(0, loginToken), nil, func(_, _ []byte) (bool, error) { n++; return true, nil })
		if n != 1 {
			t.Errorf("%d tokens are left of those that have expired, and one", n)
		}
		return err
	})
}

func TestRegistrationTokens(t *testing.T) {
	s := openTest(t)
	expires := testTime.Add(time.Hour)
	update(t, s, func(tx *Tx) error {
		return errors.Join(
			tx.AddRegistrationToken(RegistrationToken{Token: "twice", Allowed: 2, Created: testTime}),
			tx.AddRegistrationToken(RegistrationToken{Token: "always", Created: testTime}),
			tx.AddRegistrationToken(RegistrationToken{Token: "hour", Allowed: 9, Created: testTime, Expires: expires}),
		)
	})
	update(t, s, func(tx *Tx) error {
		for _, bad := range []string{"", "with space", "ü", string(make([]byte, MaxRegistrationToken+1))} {
			if err := tx.AddRegistrationToken(RegistrationToken{Token: bad}); err == nil {
				t.Errorf("token %q was taken", bad)
			}
		}
		if err := tx.AddRegistrationToken(RegistrationToken{Token: "twice"}); !errors.Is(err, ErrExists) {
			t.Errorf("a second token of one name: %v", err)
		}
		for range 2 {
			if err := tx.UseRegistrationToken("twice", testTime); err != nil {
				return err
			}
		}
		for token, when := range map[string]time.Time{"twice": testTime, "hour": expires, "none": testTime} {
			if err := tx.UseRegistrationToken(token, when); !errors.Is(err, ErrNotFound) {
				t.Errorf("token %s that is not good: %v", token, err)
			}
		}
		return errors.Join(tx.UseRegistrationToken("always", expires), tx.RevokeRegistrationToken("hour"))
	})
	view(t, s, func(tx *Tx) error {
		var got []string
		err := tx.RegistrationTokens(func(r RegistrationToken) (bool, error) {
			left, bounded := r.Left(testTime)
			got = append(got, fmt.Sprint(r.Token, r.Completed, left, bounded, r.Valid(testTime)))
			return true, nil
		})
		if want := "[always1 0 false true twice2 0 true false]"; fmt.Sprint(got) != want {
			t.Errorf("tokens %s, want %s", got, want)
		}
		if err := tx.RevokeRegistrationToken("hour"); !errors.Is(err, ErrNotFound) {
			t.Errorf("revoked twice: %v", err)
		}
		return err
	})
}
