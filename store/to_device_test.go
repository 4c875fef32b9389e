package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

func deviceMessage(n int) jsontext.Value {
	return jsontext.Value(fmt.Sprintf(`{"content":{"n":%d},"sender":"@bob:hearth.test","type":"m.test"}`, n))
}

// Messages come in order, each until it is acknowledged, whatever the sizes of
// what is sent, given and acknowledged.
func TestToDeviceQueue(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		s := openTest(t)
		user := addDevices(t, s, alice, "PHONE", "LAPTOP")
		var queue []string // what must be there
		sent, seen := 0, Position(0)
		for range 60 {
			switch rnd.IntN(3) {
			case 0:
				update(t, s, func(tx *Tx) error {
					for n := range 1 + rnd.IntN(5) {
						_, err := tx.AppendToDevice(user, "PHONE", deviceMessage(sent+n))
						if err != nil {
							return err
						}
						queue = append(queue, string(deviceMessage(sent+n)))
					}
					sent = sent + 5
					return nil
				})
			case 1:
				limit := 1 + rnd.IntN(8)
				view(t, s, func(tx *Tx) error {
					events, last, more, err := tx.ToDevice(user, "PHONE", tx.Position(), limit)
					want := queue[:min(limit, len(queue))]
					if !slices.EqualFunc(events, want, func(e jsontext.Value, w string) bool { return string(e) == w }) {
						t.Errorf("messages %s, want %s", events, want)
					}
					if more != (len(queue) > limit) {
						t.Errorf("more is %t of %d messages with limit %d", more, len(queue), limit)
					}
					seen = last
					return err
				})
			case 2:
				update(t, s, func(tx *Tx) error {
					before, _, _, err := tx.ToDevice(user, "PHONE", seen, 1000)
					if err != nil {
						return err
					}
					queue = queue[len(before):]
					return tx.DeleteToDevice(user, "PHONE", seen, 1000)
				})
			}
		}
		view(t, s, func(tx *Tx) error {
			events, _, _, err := tx.ToDevice(user, "LAPTOP", tx.Position(), 10)
			if len(events) != 0 {
				t.Errorf("the other device got %s", events)
			}
			return err
		})
	}
}

func TestToDeviceBounds(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice, "PHONE")
	large := jsontext.Value(`{"content":"` + strings.Repeat("x", 1<<20) + `"}`)
	for range 3 {
		update(t, s, func(tx *Tx) error {
			for range 30 {
				if _, err := tx.AppendToDevice(user, "PHONE", large); err != nil {
					return err
				}
			}
			return nil
		})
	}
	view(t, s, func(tx *Tx) error {
		load, err := tx.toDeviceLoad(user, "PHONE")
		if load.bytes > maxToDeviceBytes || load.count < 60 {
			t.Errorf("%d messages of %d bytes wait", load.count, load.bytes)
		}
		events, _, more, err2 := tx.ToDevice(user, "PHONE", tx.Position(), 100)
		if len(events) != 2 || !more {
			t.Errorf("%d large messages at once, more is %t", len(events), more)
		}
		return errors.Join(err, err2)
	})
}

func TestToDeviceToNobody(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice, "PHONE")
	update(t, s, func(tx *Tx) error {
		if sent, err := tx.AppendToDevice(user, "LAPTOP", deviceMessage(1)); sent || err != nil {
			t.Errorf("message to no device: %t, %v", sent, err)
		}
		return nil
	})
}

func TestTxn(t *testing.T) {
	s := openTest(t)
	user := addDevices(t, s, alice, "PHONE", "LAPTOP")
	put := func(device matrix.DeviceID, endpoint, id string) (repeated bool) {
		t.Helper()
		update(t, s, func(tx *Tx) (err error) {
			repeated, err = tx.PutTxn(TxnID{User: user, Device: device, Endpoint: endpoint, ID: id})
			return err
		})
		return repeated
	}
	tests := []struct {
		device       matrix.DeviceID
		endpoint, id string
		repeated     bool
	}{
		{"PHONE", "sendToDevice/m.a", "1", false},
		{"PHONE", "sendToDevice/m.a", "1", true},
		{"PHONE", "sendToDevice/m.b", "1", false},
		{"LAPTOP", "sendToDevice/m.a", "1", false},
		{"PHONE", "sendToDevice/m.a", "2", false},
		{"PHONE", "sendToDevice/m.a", "1", true},
	}
	for _, tt := range tests {
		if got := put(tt.device, tt.endpoint, tt.id); got != tt.repeated {
			t.Errorf("%v: repeated is %t", tt, got)
		}
	}
	for i := range maxDeviceTxns {
		put("PHONE", "sendToDevice/m.a", fmt.Sprint("later", i))
	}
	if !put("PHONE", "sendToDevice/m.a", "later0") {
		t.Error("a transaction among the newest is not remembered")
	}
	if put("PHONE", "sendToDevice/m.a", "1") {
		t.Error("an old transaction is remembered")
	}
}
