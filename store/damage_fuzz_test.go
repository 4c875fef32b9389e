package store

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"hearth/state/matrix"
)

// FuzzDamage puts a record of any content under any key of any bucket, over what
// is there, and has everything read. Whatever a damaged file holds, readers call it
// damaged or take it for something; none panics or goes on without end.
func FuzzDamage(f *testing.F) {
	s := openDir(f, f.TempDir())
	f.Cleanup(func() { _ = s.Close() }) // what it holds is no more of use
	r := putTestRoom(f, s, "12", alice, bob)
	update(f, s, func(tx *Tx) error { return r.putSomeOfAll(tx, alice, bob) })
	checkStore(f, s)
	view(f, s, func(tx *Tx) error {
		for name := range bucketName(buckets) {
			seen := make(map[string]bool)
			err := tx.scan(name, nil, nil, func(key, value []byte) (bool, error) {
				if kind := string(key[:min(len(key), 5)]); !seen[kind] || name == bucketStream {
					seen[kind] = true
					f.Add(uint8(name), bytes.Clone(key), bytes.Clone(value))
				}
				return true, nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	for bucket, known := range keyKinds {
		for _, kind := range []byte(known.kinds) {
			f.Add(uint8(bucket), append(keyOf(1, kind), "D\x00rest"...), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
		}
		for _, kind := range []byte(known.zero) {
			f.Add(uint8(bucket), append(keyOf(0, kind), make([]byte, 32)...), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
		}
	}
	f.Fuzz(func(t *testing.T, bucket uint8, key, value []byte) {
		btx, err := s.bolt.Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = btx.Rollback() }() // the next input finds the store whole
		tx := &Tx{store: s, bolt: btx}
		if tx.put(bucketName(bucket)%buckets, key, value) != nil {
			return // bbolt itself refuses the key
		}
		began := time.Now()
		tx.readAll(t, r)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("reading took %v", took)
		}
	})
}

// putSomeOfAll adds what a room does not bring with it.
func (r *testRoom) putSomeOfAll(tx *Tx, one, two matrix.UserID) error {
	a, errA := tx.CreateAccount(one, Account{PasswordHash: "hash", Created: testTime})
	b, errB := tx.CreateAccount(two, Account{PasswordHash: "hash", Created: testTime})
	num, err := r.send(tx, one, `{"body":"x"}`, TxnID{User: a, Device: "D", ID: "1"})
	if err := errors.Join(errA, errB, err); err != nil {
		return err
	}
	_, errReceipt := tx.PutReceipt(r.num, Receipt{User: b, Type: ReceiptRead, Event: "$event", Num: 2})
	_, errFilter := tx.PutFilter(a, []byte(`{}`))
	return errors.Join(errReceipt, errFilter,
		tx.PutRelation(r.num, "$parent", Relation{Child: num, Sender: a, Type: threadType}),
		tx.PutPendingRedaction(r.num, "$target", num),
		tx.PutAccountData(b, AccountData{Room: r.num, Type: "m.x", Content: []byte(`{}`)}),
		tx.PutUnread(b, r.num, Unread{Upto: 4, Events: []UnreadEvent{{Num: 4}}}),
		tx.PutAlias("#room:hearth.test", r.num, b), tx.PutPublished(r.num, true),
		tx.PutProfileField(a, "displayname", []byte(`"A"`)),
		tx.PutPresence(a, Presence{Status: "here", LastActive: testTime}),
		tx.AddRegistrationToken(RegistrationToken{Token: "t", Allowed: 1, Created: testTime}),
		putDeviceOfAll(tx, a),
	)
}

// putDeviceOfAll adds a device with all that devices have.
func putDeviceOfAll(tx *Tx, user UserNum) error {
	const device = "D"
	if err := putDevice(tx, user, device); err != nil {
		return err
	}
	version, errBackup := tx.CreateBackup(user, "m.test", []byte(`{}`))
	_, errKeys := tx.PutRoomKeys(user, version, []RoomKey{{Room: "!r:hearth.test", Session: "s", Data: []byte(`{}`)}})
	_, errSent := tx.AppendToDevice(user, device, []byte(`{"type":"m.x"}`))
	key := OneTimeKey{Algorithm: "signed_curve25519", ID: "AAAA", JSON: []byte(`{}`)}
	return errors.Join(errBackup, errKeys, errSent,
		tx.PutLogin(user, device, newTokens("1")),
		tx.PutLoginToken(HashToken("login"), user, testTime, testTime.Add(time.Minute)),
		tx.PutDeviceKeys(user, device, []byte(`{}`)),
		tx.AddOneTimeKeys(user, device, []OneTimeKey{key}),
		tx.PutFallbackKey(user, device, key),
		tx.PutCrossSigningKeys(user, map[Usage]CrossSigningKey{UsageMaster: {Public: "P", JSON: []byte(`{}`)}}),
		tx.PutPusher(user, Pusher{PusherID: PusherID{"app", "key"}, Kind: "http", Data: []byte(`{}`), Device: device}),
	)
}

// readAll reads what Check reads, and by the ways that Check does not go.
func (tx *Tx) readAll(t *testing.T, r *testRoom) {
	c := &checker{Tx: tx, ctx: t.Context(), report: func(string) {}}
	for _, check := range checks {
		_ = check(c) // damage, as it may say
	}
	_ = tx.Timeline(r.num, 0, func(*StoredEvent) (bool, error) { return true, nil })
	_ = tx.TimelineBack(r.num, 0, func(*StoredEvent) (bool, error) { return true, nil })
	_ = tx.Relations(r.num, "$parent", Place{}, func(Relation) (bool, error) { return true, nil })
	if head, err := tx.Head(r.num); err == nil {
		_ = tx.WalkState(r.num, head.Current, StateAll, func(Slot, EventNum) (bool, error) { return true, nil })
		_ = tx.DiffSnapshots(r.num, 0, head.Current, func(Slot, EventNum, EventNum) (bool, error) { return true, nil })
	}
	for _, name := range []matrix.UserID{alice, bob} {
		user := tx.UserNum(name)
		_, _ = tx.Account(user)
		_ = tx.LocalMemberships(user, func(LocalMembership) (bool, error) { return true, nil })
		_, _ = tx.Unread(user, r.num)
		_, _, _ = tx.PendingRedaction(r.num, "$target")
	}
}
