package client

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"hearth/server/api"
)

func TestPasswords(t *testing.T) {
	p := NewPasswords(4)
	long := strings.Repeat("x", MaxPassword)
	for _, password := range []string{"secret", "pässwörd", "with\x00nul", long} {
		hash, err := p.Hash(t.Context(), password)
		if err != nil {
			t.Fatal(err)
		}
		for try, want := range map[string]bool{password: true, password + "x": false, "": false, strings.ToUpper(password): false} {
			if good, err := p.Check(t.Context(), hash, try); good != want || err != nil {
				t.Errorf("%.20q for %.20q: %t, %v", try, password, good, err)
			}
		}
	}
	if _, err := p.Hash(t.Context(), ""); !errors.Is(err, api.ErrMissingParam) {
		t.Errorf("no password: %v", err)
	}
	if _, err := p.Hash(t.Context(), long+"x"); !errors.Is(err, api.ErrInvalidParam) {
		t.Errorf("a password that is too long: %v", err)
	}
}

// Where there is no hash there is no password, and finding out takes as long.
func TestPasswordOfNobody(t *testing.T) {
	for _, cost := range []int{0, 4, 5, 100} {
		p := NewPasswords(cost)
		if cost == 100 {
			continue // nobody waits for that one
		}
		if good, err := p.Check(t.Context(), "", "secret"); good || err != nil {
			t.Errorf("cost %d: %t, %v", cost, good, err)
		}
	}
}

// Many at once wait for their turn or are told to come again.
func TestPasswordsInLine(t *testing.T) {
	p := NewPasswords(4)
	var wait sync.WaitGroup
	for range 3 * maxHashLine {
		wait.Go(func() {
			if _, err := p.Hash(t.Context(), "secret"); err != nil && !errors.Is(err, api.ErrLimitExceeded) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}
