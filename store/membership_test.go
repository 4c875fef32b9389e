package store

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"hearth/state/matrix"
)

// Joined and Left tell when the newest join began and ended, whatever changes
// in between.
func TestMembershipTimes(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice, bob)
	var joined, left Position
	become := func(m matrix.Membership) (is LocalMembership) {
		update(t, s, func(tx *Tx) (err error) {
			if _, err = r.member(tx, bob, m); err != nil {
				return err
			}
			is, _, err = tx.LocalMembership(tx.UserNum(bob), r.num)
			return err
		})
		return is
	}
	want := func(m LocalMembership, joined, left Position) {
		t.Helper()
		if m.Joined != joined || m.Left != left || m.Position != s.Position() {
			t.Errorf("%s: joined %d left %d at %d, want %d %d %d", m.Membership, m.Joined, m.Left, m.Position, joined, left, s.Position())
		}
	}
	view(t, s, func(tx *Tx) error {
		m, ok, err := tx.LocalMembership(tx.UserNum(bob), r.num)
		joined = m.Joined
		if !ok || joined == 0 || m.Left != 0 {
			t.Errorf("after joining: %+v", m)
		}
		return err
	})
	want(become(matrix.Join), joined, 0) // a new name
	m := become(matrix.Leave)
	left = m.Position
	want(m, joined, left)
	want(become(matrix.Invite), joined, left)
	m = become(matrix.Join)
	want(m, m.Position, 0)
	joined = m.Position
	m = become(matrix.Ban)
	want(m, joined, m.Position)
}

func TestForgetRoom(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice, bob)
	update(t, s, func(tx *Tx) error {
		if _, err := r.member(tx, bob, matrix.Leave); err != nil {
			return err
		}
		return tx.ForgetRoom(tx.UserNum(bob), r.num)
	})
	view(t, s, func(tx *Tx) error {
		m, ok, err := tx.LocalMembership(tx.UserNum(bob), r.num)
		if !ok || !m.Forgotten || m.Membership != matrix.Leave {
			t.Errorf("forgotten: %+v %t", m, ok)
		}
		return err
	})
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.ForgetRoom(tx.UserNum(bob), r.num+1) })
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("forget a room that was never there: %v", err)
	}
}

// The stripped state of an invite is there as it came.
func TestStrippedState(t *testing.T) {
	s := openTest(t)
	const stripped = `[{"type":"m.room.name","state_key":"","content":{"name":"Kitchen"},"sender":"@x:y"}]`
	version, _ := matrix.VersionByID("9")
	key := string(alice)
	invite, err := matrix.Draft{
		Room: "!elsewhere:other.test", Sender: "@x:other.test", Type: memberType, StateKey: &key,
		Content: []byte(`{"membership":"invite"}`),
	}.Build(version, matrix.Placing{Depth: 1}, "other.test", matrix.SigningKey{ID: "ed25519:1", Private: make(ed25519.PrivateKey, ed25519.PrivateKeySize)})
	if err != nil {
		t.Fatal(err)
	}
	update(t, s, func(tx *Tx) error {
		user, err := tx.PutUserNum(alice)
		if err != nil {
			return err
		}
		room, err := tx.PutRoomNum("!elsewhere:other.test")
		if err != nil {
			return err
		}
		return tx.PutLocalMembership(user, LocalMembership{
			Room: room, Membership: matrix.Invite, Stripped: []byte(stripped), Version: "9", PDU: invite.JSON(),
		})
	})
	view(t, s, func(tx *Tx) error {
		return tx.LocalMemberships(tx.UserNum(alice), func(m LocalMembership) (bool, error) {
			own, err := m.Own()
			if err != nil || own.ID != invite.ID || string(m.Stripped) != stripped || m.Membership != matrix.Invite {
				t.Errorf("invite %+v", m)
			}
			return true, nil
		})
	})
}

// An invite that comes once everybody of us has left is newer than what we have of
// the room, and no fault unless somebody of us is there.
func TestInviteAfterLeaving(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice, bob)
	key := string(bob)
	invite, err := matrix.Draft{
		Room: r.id, Sender: "@x:other.test", Type: memberType, StateKey: &key, Content: []byte(`{"membership":"invite"}`),
	}.Build(r.version, matrix.Placing{Depth: 9}, "other.test", matrix.SigningKey{ID: "ed25519:1", Private: make(ed25519.PrivateKey, ed25519.PrivateKeySize)})
	if err != nil {
		t.Fatal(err)
	}
	update(t, s, func(tx *Tx) error {
		_, err := r.member(tx, bob, matrix.Leave)
		return errors.Join(err, tx.PutLocalMembership(tx.UserNum(bob), LocalMembership{
			Room: r.num, Membership: matrix.Invite, Stripped: []byte("[]"), Version: "12", PDU: invite.JSON(),
		}))
	})
	faults := ""
	if err := s.Check(t.Context(), func(fault string) { faults += fault }); err != nil || !strings.Contains(faults, "whose record is of event 0") {
		t.Errorf("with alice in the room: %q, %v", faults, err)
	}
	update(t, s, func(tx *Tx) error {
		_, err := r.member(tx, alice, matrix.Leave)
		return err
	})
	checkStore(t, s)
}

// An event is news for those who are in the room, a membership for its user.
func TestEventsTouchMembers(t *testing.T) {
	s := openTest(t)
	r := putTestRoom(t, s, "12", alice, bob)
	var users [2]UserNum
	update(t, s, func(tx *Tx) error {
		users = [2]UserNum{tx.UserNum(alice), tx.UserNum(bob)}
		_, err := r.member(tx, bob, matrix.Leave)
		return err
	})
	news := func(want [2]bool, write func(tx *Tx) error) {
		t.Helper()
		watches := [2]Watch{s.Watch(users[0]), s.Watch(users[1])}
		update(t, s, write)
		for i, w := range watches {
			got := false
			select {
			case <-w.News():
				got = true
			default:
			}
			if got != want[i] {
				t.Errorf("user %d has news: %t", i, got)
			}
		}
	}
	news([2]bool{true, false}, func(tx *Tx) error {
		_, err := r.send(tx, alice, `{}`, TxnID{})
		return err
	})
	news([2]bool{true, true}, func(tx *Tx) error {
		_, err := r.member(tx, bob, matrix.Invite)
		return err
	})
}
