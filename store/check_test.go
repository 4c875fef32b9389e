package store

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"hearth/state/matrix"
)

// damagedStore is a small store with something of everything that events
// bring with them.
func damagedStore(t *testing.T) (*Store, *testRoom) {
	t.Helper()
	s := openDir(t, t.TempDir())
	t.Cleanup(func() { closeStore(t, s) })
	r := putTestRoom(t, s, "12", alice, bob)
	update(t, s, func(tx *Tx) error {
		num, err := r.send(tx, alice, `{"body":"x"}`, TxnID{User: 1, Device: "D", ID: "1"})
		if err != nil {
			return err
		}
		return errors.Join(
			tx.PutRelation(r.num, "$parent", Relation{Child: num, Sender: 1, Type: "m.thread"}),
			tx.PutPendingRedaction(r.num, "$target", num))
	})
	checkStore(t, s)
	return s, r
}

// first returns the first key of a bucket with a prefix, and its value.
func first(tx *Tx, name bucketName, prefix []byte) (key, value []byte) {
	_ = tx.scan(name, prefix, nil, func(rest, v []byte) (bool, error) {
		key, value = append(bytes.Clone(prefix), rest...), bytes.Clone(v)
		return false, nil
	})
	return key, value
}

// Check finds each of these damages, and nothing in a whole store.
func TestCheckFindsDamage(t *testing.T) {
	newest := func(tx *Tx, r *testRoom) EventNum {
		h, _ := tx.Head(r.num)
		return h.Latest
	}
	member := func(tx *Tx, r *testRoom) LocalMembership {
		m, _, _ := tx.LocalMembership(tx.UserNum(bob), r.num)
		return m
	}
	for name, damage := range map[string]struct {
		want string
		do   func(tx *Tx, r *testRoom) error
	}{
		"event without stream entry": {"not found", func(tx *Tx, r *testRoom) error {
			return tx.delete(bucketStream, appendU64(nil, uint64(newest(tx, r).Position())))
		}},
		"event without place in its room": {"has no place in room", func(tx *Tx, r *testRoom) error {
			return tx.delete(bucketEvent, eventKey(r.num, newest(tx, r)))
		}},
		"event without ID": {"the ID leads to", func(tx *Tx, r *testRoom) error {
			id, err := tx.EventID(r.num, newest(tx, r))
			return errors.Join(err, tx.delete(bucketID, eventIDKey(id)))
		}},
		"ID of no event": {"event ID index", func(tx *Tx, r *testRoom) error {
			return tx.put(bucketID, eventIDKey("$nothing"), packEventPlace(r.num, 999))
		}},
		"another body": {"not the one that the ID names", func(tx *Tx, r *testRoom) error {
			ev, err := tx.Event(r.num, newest(tx, r))
			if err != nil {
				return err
			}
			ev.Event, err = matrix.ParseTrusted(ev.Version, bytes.Replace(ev.JSON(), []byte(`:1790`), []byte(`:1791`), 1), ev.ID)
			return errors.Join(err, tx.writeEvent(ev))
		}},
		"damaged body": {"body of", func(tx *Tx, r *testRoom) error {
			key := appendU64(nil, uint64(newest(tx, r).Position()))
			v := bytes.Clone(tx.get(bucketStream, key))
			return tx.put(bucketStream, key, v[:len(v)-1])
		}},
		"transaction": {"stands as", func(tx *Tx, r *testRoom) error {
			return tx.put(bucketEvent, eventKey(r.num, newest(tx, r)), nil)
		}},
		"wrong counts": {"the head counts", func(tx *Tx, r *testRoom) error {
			h, err := tx.Head(r.num)
			h.Joined++
			return errors.Join(err, tx.PutHead(r.num, h))
		}},
		"wrong latest": {"the timeline is", func(tx *Tx, r *testRoom) error {
			h, err := tx.Head(r.num)
			h.Latest -= 2
			return errors.Join(err, tx.PutHead(r.num, h))
		}},
		"wrong depth": {"depth", func(tx *Tx, r *testRoom) error {
			h, err := tx.Head(r.num)
			h.Depth++
			return errors.Join(err, tx.PutHead(r.num, h))
		}},
		"lost extremity": {"extremity", func(tx *Tx, r *testRoom) error {
			h, err := tx.Head(r.num)
			h.Extremities = append(h.Extremities, 9999)
			return errors.Join(err, tx.PutHead(r.num, h))
		}},
		"no head": {"no head", func(tx *Tx, r *testRoom) error {
			return tx.delete(bucketEvent, regionKey(r.num, regionHead))
		}},
		"number without name": {"does not lead back", func(tx *Tx, r *testRoom) error {
			return tx.delete(bucketNumber, append([]byte{numberUser}, bob...))
		}},
		"name without number": {"leads back to", func(tx *Tx, r *testRoom) error {
			return tx.delete(bucketNumber, numberKey(numberUser, uint32(tx.UserNum(bob))))
		}},
		"membership of another time": {"whose record is of event", func(tx *Tx, r *testRoom) error {
			_, err := r.putState(tx, bob, memberType, string(bob), `{"membership":"join"}`)
			return err
		}},
		"membership that the state has not": {"the state has", func(tx *Tx, r *testRoom) error {
			m := member(tx, r)
			h, err := tx.Head(r.num)
			if err != nil {
				return err
			}
			slot, _ := tx.Slot(r.num, memberType, string(bob))
			if h.Current, err = tx.Derive(r.num, h.Current, StateChange{Slot: slot}); err != nil {
				return err
			}
			h.Joined--
			return errors.Join(tx.PutHead(r.num, h), tx.PutLocalMembership(tx.UserNum(bob), m))
		}},
		"membership without mirror": {"there", func(tx *Tx, r *testRoom) error {
			return tx.delete(bucketRoom, localMemberKey(r.num, tx.UserNum(bob)))
		}},
		"mirror without membership": {"local member", func(tx *Tx, r *testRoom) error {
			return tx.delete(bucketUser, membershipKey(tx.UserNum(bob), r.num))
		}},
		"membership without place": {"has no place", func(tx *Tx, r *testRoom) error {
			return tx.delete(bucketUser, membershipAtKey(tx.UserNum(bob), member(tx, r).Position))
		}},
		"place without membership": {"membership index", func(tx *Tx, r *testRoom) error {
			return tx.put(bucketUser, membershipAtKey(tx.UserNum(bob), 1), appendU32(nil, uint32(r.num)))
		}},
		"membership unlike its event": {"says", func(tx *Tx, r *testRoom) error {
			m := member(tx, r)
			m.Membership = matrix.Ban
			return tx.writeMembership(tx.UserNum(bob), m)
		}},
		"relation of no event": {"relation", func(tx *Tx, r *testRoom) error {
			return tx.PutRelation(r.num, "$x", Relation{Child: 9998})
		}},
		"redaction by no event": {"pending redaction", func(tx *Tx, r *testRoom) error {
			return tx.PutPendingRedaction(r.num, "$y", 9999)
		}},
		"history of no event": {"history", func(tx *Tx, r *testRoom) error {
			return tx.PutHistory(r.num, Place{Position: 1, Num: 9999})
		}},
		"remote key of no kind": {"bucket remote: key 51", func(tx *Tx, _ *testRoom) error {
			return tx.put(bucketRemote, []byte("Q"), nil)
		}},
		"media key of no kind": {"bucket media: key 51", func(tx *Tx, _ *testRoom) error {
			return tx.put(bucketMedia, []byte("Q"), nil)
		}},
		"key of no kind": {"no known kind", func(tx *Tx, r *testRoom) error {
			return tx.put(bucketRoom, keyOf(uint32(r.num), '?'), nil)
		}},
		"unknown room": {"stands for nothing", func(tx *Tx, r *testRoom) error {
			return tx.put(bucketRoom, keyOf(9999, roomAlias), nil)
		}},
		"stream entry from the future": {"beyond the newest position", func(tx *Tx, r *testRoom) error {
			key, value := first(tx, bucketStream, nil)
			key[1] = 1
			return tx.put(bucketStream, key, value)
		}},
		"no signing key": {"signing key", func(tx *Tx, r *testRoom) error {
			key, _ := first(tx, bucketMeta, []byte(metaSigningKey))
			return tx.delete(bucketMeta, key)
		}},
		"no secret": {"secret", func(tx *Tx, r *testRoom) error {
			return tx.delete(bucketMeta, []byte(metaSecret))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, r := damagedStore(t)
			update(t, s, func(tx *Tx) error { return damage.do(tx, r) })
			var faults []string
			if err := s.Check(t.Context(), func(fault string) { faults = append(faults, fault) }); err != nil {
				faults = append(faults, err.Error())
			}
			if all := strings.Join(faults, "\n"); !strings.Contains(all, damage.want) {
				t.Errorf("Check says %q, want %q", all, damage.want)
			}
		})
	}
}

func TestCheckEndsWithItsContext(t *testing.T) {
	s := openTest(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Check(ctx, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("Check with a context that has ended: %v", err)
	}
}

// No record that a damaged file may hold makes its reader panic.
func FuzzRecords(f *testing.F) {
	version, _ := matrix.VersionByID("12")
	f.Add(packHead(Head{Version: version, Extremities: []EventNum{4}, Depth: 7, First: 2, Latest: 4, Joined: 1}))
	f.Add(packMembership(LocalMembership{Membership: matrix.Invite, Event: 3, Position: 9, Stripped: []byte(`[]`), Version: "9", PDU: []byte("{}")}))
	f.Add(appendEventHead(nil, &StoredEvent{Event: &matrix.Event{ID: "$short", Version: version}, HasSlot: true, RedactedBy: 2, Txn: TxnID{ID: "t"}}))
	f.Add(packEventPlace(3, 77))
	f.Add([]byte{streamEvent, 3, 0, 5, 1, 2})
	f.Fuzz(func(t *testing.T, v []byte) {
		if h, err := readHead(v); err == nil {
			if again, err := readHead(packHead(h)); err != nil || len(again.Extremities) != len(h.Extremities) {
				t.Errorf("%+v, then %+v: %v", h, again, err)
			}
		}
		if m, err := readMembership(1, v); err == nil {
			if _, err := readMembership(1, packMembership(m)); err != nil {
				t.Error(err)
			}
		}
		for _, version := range matrix.Versions() {
			r := reader{b: v}
			_ = new(StoredEvent).readHead(&r, version)
		}
		_, _, _ = readEventPlace(v)
		_, _ = readChange(make([]byte, 8), v)
		_, _ = readSigningKey("ed25519:x", v)
	})
}
