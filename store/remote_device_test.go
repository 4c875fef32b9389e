package store

import (
	"slices"
	"testing"
	"time"

	"hearth/state/matrix"
)

// The changes of a user's devices are a chain from the newest to the first, and the
// cross-signing keys stand beside it.
func TestDeviceChangesAreAChain(t *testing.T) {
	s := openDir(t, t.TempDir())
	var user UserNum
	update(t, s, func(tx *Tx) (err error) {
		if user, err = tx.CreateAccount("@a:hearth.test", Account{}); err != nil {
			return err
		}
		for _, d := range []matrix.DeviceID{"A", "B"} {
			if err := tx.PutDevice(user, Device{ID: d, Created: testTime}); err != nil {
				return err
			}
		}
		keys := map[Usage]CrossSigningKey{UsageMaster: {Public: "M", JSON: []byte(`{}`)}}
		if err := tx.PutCrossSigningKeys(user, keys); err != nil {
			return err
		}
		signatures := []KeySignature{
			{Target: user, Key: "A", KeyID: "ed25519:S", Signature: "1"},
			{Target: user, Key: "M", KeyID: "ed25519:A", Signature: "2"},
		}
		if err := tx.PutKeySignatures(user, signatures); err != nil {
			return err
		}
		return tx.DeleteDevice(user, "B")
	})
	view(t, s, func(tx *Tx) error {
		list, err := tx.DeviceList(user)
		if err != nil || list.Newest != list.Device || list.CrossSigning == 0 || list.CrossSigning >= list.Device {
			t.Errorf("the newest changes are %+v: %v", list, err)
		}
		var got []string
		want, last := list.Device, Position(0)
		err = tx.DeviceChangesBack(user, func(c Change) (bool, error) {
			if c.Position != want || c.CrossSigning || !c.IsDevices() {
				t.Errorf("the change of %s stands at %d, not at %d", c.Name, c.Position, want)
			}
			want, last = c.Previous, c.Position
			got = append(got, c.Name)
			return true, nil
		})
		if !slices.Equal(got, []string{"B", "A", "B", "A"}) || want != 0 || last == 0 {
			t.Errorf("the devices that changed are %q", got)
		}
		return err
	})
	checkStore(t, s)
}

// What format 3 noted is read: it does not say which device changed.
func TestDeviceListsOfFormat3(t *testing.T) {
	s := openDir(t, t.TempDir())
	var user UserNum
	var pos Position
	update(t, s, func(tx *Tx) (err error) {
		if user, err = tx.CreateAccount("@a:hearth.test", Account{}); err != nil {
			return err
		}
		if pos, err = tx.nextPosition(); err != nil {
			return err
		}
		at := appendU64(nil, uint64(pos))
		if err := tx.put(bucketStream, at, []byte{streamDevices, 0, byte(user)}); err != nil {
			return err
		}
		if err := tx.put(bucketUser, keyOf(uint32(user), userDevicesLatest), at); err != nil {
			return err
		}
		return tx.put(bucketUser, deviceListAtKey(pos), appendU32(nil, uint32(user)))
	})
	checkStore(t, s)
	update(t, s, func(tx *Tx) error { return tx.PutDevice(user, Device{ID: "A", Created: testTime}) })
	view(t, s, func(tx *Tx) error {
		var got []string
		err := tx.DeviceChangesBack(user, func(c Change) (bool, error) {
			got = append(got, c.Name)
			return true, nil
		})
		if !slices.Equal(got, []string{"A", ""}) {
			t.Errorf("the devices that changed are %q", got)
		}
		return err
	})
	checkStore(t, s)
}

// A list of another server's user is kept with its devices and keys until it is
// forgotten, and what changes nothing says so.
func TestRemoteDevices(t *testing.T) {
	s := openDir(t, t.TempDir())
	var user UserNum
	master := CrossSigningKey{Public: "M", JSON: []byte(`{}`)}
	step := func(name string, want bool, fn func(tx *Tx) (bool, error)) {
		t.Helper()
		update(t, s, func(tx *Tx) error {
			changed, err := fn(tx)
			if changed != want {
				t.Errorf("%s: something changed is %v", name, changed)
			}
			return err
		})
	}
	update(t, s, func(tx *Tx) (err error) {
		if user, err = tx.PutUserNum("@b:other.test"); err != nil {
			return err
		}
		return tx.PutRemoteDeviceList(user, RemoteDeviceList{Stream: UnknownStream, Stale: true}, testTime)
	})
	devices := []RemoteDevice{{ID: "A", Name: "a", Keys: []byte(`{}`)}, {ID: "B"}}
	step("replace", true, func(tx *Tx) (bool, error) { return tx.ReplaceRemoteDevices(user, devices) })
	step("replace again", false, func(tx *Tx) (bool, error) { return tx.ReplaceRemoteDevices(user, devices) })
	step("put the same", false, func(tx *Tx) (bool, error) { return tx.PutRemoteDevice(user, devices[0]) })
	step("fewer", true, func(tx *Tx) (bool, error) { return tx.ReplaceRemoteDevices(user, devices[:1]) })
	step("delete another", false, func(tx *Tx) (bool, error) { return tx.DeleteRemoteDevice(user, "B") })
	step("a key", true, func(tx *Tx) (bool, error) { return tx.PutRemoteCrossSigningKey(user, UsageMaster, master) })
	step("a key again", false, func(tx *Tx) (bool, error) { return tx.PutRemoteCrossSigningKey(user, UsageMaster, master) })
	view(t, s, func(tx *Tx) error {
		list, known, err := tx.RemoteDeviceList(user)
		if err != nil || !known || !list.Stale || list.Stream != UnknownStream {
			t.Errorf("the list is %+v, %v: %v", list, known, err)
		}
		due := 0
		return tx.StaleDevices(func(d StaleDevices) (bool, error) {
			if due++; d.User != user || !d.Due.Equal(testTime) || d.Tries != 0 {
				t.Errorf("to do: %+v", d)
			}
			return true, nil
		})
	})
	checkStore(t, s)
	update(t, s, func(tx *Tx) error {
		later := StaleDevices{User: user, Due: testTime.Add(time.Hour), Tries: 3}
		if err := tx.PutStaleDevices(later); err != nil {
			return err
		}
		// A list that is stale already keeps its place on the to-do list.
		return tx.PutRemoteDeviceList(user, RemoteDeviceList{Stream: 7, Stale: true}, testTime)
	})
	view(t, s, func(tx *Tx) error {
		return tx.StaleDevices(func(d StaleDevices) (bool, error) {
			if d.Tries != 3 || !d.Due.Equal(testTime.Add(time.Hour)) {
				t.Errorf("to do: %+v", d)
			}
			return true, nil
		})
	})
	update(t, s, func(tx *Tx) error {
		return tx.PutRemoteDeviceList(user, RemoteDeviceList{Stream: 8}, testTime)
	})
	checkStore(t, s)
	update(t, s, func(tx *Tx) error { return tx.ForgetRemoteDevices(user) })
	view(t, s, func(tx *Tx) error {
		if _, known, err := tx.RemoteDeviceList(user); known || err != nil || tx.HasRemoteDevice(user, "A") {
			t.Errorf("the list is known still: %v: %v", known, err)
		}
		return nil
	})
	checkStore(t, s)
}

// A message to devices is delivered once, whatever other servers and senders call
// theirs.
func TestServerMessages(t *testing.T) {
	s := openDir(t, t.TempDir())
	update(t, s, func(tx *Tx) error {
		one, err := tx.PutServerNum("one.test")
		if err != nil {
			return err
		}
		two, err := tx.PutServerNum("two.test")
		if err != nil {
			return err
		}
		for _, m := range []struct {
			server ServerNum
			sender matrix.UserID
			id     string
			want   bool
		}{
			{one, "@a:one.test", "1", false},
			{one, "@a:one.test", "1", true},
			{one, "@a:one.test", "2", false},
			{one, "@b:one.test", "1", false},
			{two, "@a:one.test", "1", false},
			{one, "@a:one.test", "1", true},
		} {
			if repeated, err := tx.PutServerMessage(m.server, m.sender, m.id); repeated != m.want || err != nil {
				t.Errorf("message %s of %s: repeated is %v: %v", m.id, m.sender, repeated, err)
			}
		}
		return nil
	})
	checkStore(t, s)
}
