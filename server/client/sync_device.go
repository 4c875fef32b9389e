package client

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/store"
)

// deviceSync is what /sync says about devices and keys.
//
// Spec: CS Send-to-Device messaging and End-to-End Encryption, Extensions to
// /sync.
type deviceSync struct {
	ToDevice       toDeviceSection `json:"to_device,omitzero"`
	DeviceLists    deviceLists     `json:"device_lists,omitzero"`
	OneTimeKeys    map[string]int  `json:"device_one_time_keys_count"`
	UnusedFallback []string        `json:"device_unused_fallback_key_types"`

	// delivered is the position of the last message in ToDevice, where others
	// wait behind it; else 0.
	delivered store.Position
}

// toDeviceSection holds messages to the device.
type toDeviceSection struct {
	Events []jsontext.Value `json:"events,omitzero"`
}

// maxToDeviceEvents is how many messages a sync brings.
//
// Spec: CS Send-to-Device messaging, Server behaviour.
const maxToDeviceEvents = 100

// keyAlgorithm is the algorithm of one-time keys that clients have; its count is
// told even when there is none, as some clients upload keys only on being told 0.
const keyAlgorithm = "signed_curve25519"

// syncDevices finds what a device is told behind since: the messages that wait
// for it, whose devices have changed, and how its own keys stand. news says
// whether a sync that waits shall be answered.
func (s *Server) syncDevices(tx *store.Tx, who session, since, upto store.Position) (d deviceSync, news bool, err error) {
	events, last, more, err := tx.ToDevice(who.num, who.device, upto, maxToDeviceEvents)
	if err != nil {
		return d, false, err
	}
	d.ToDevice.Events = events
	if more {
		d.delivered = last
	}
	if since != 0 {
		if d.DeviceLists, err = findDeviceLists(tx, who, since); err != nil {
			return d, false, fmt.Errorf("device lists of %s: %w", who.user, err)
		}
	}
	if d.OneTimeKeys, err = keyCounts(tx, who); err != nil {
		return d, false, err
	}
	if d.UnusedFallback, err = tx.UnusedFallbackKeys(who.num, who.device); err != nil {
		return d, false, err
	}
	return d, len(events) > 0 || !d.DeviceLists.empty(), nil
}

// keyCounts returns how many one-time keys a device has left, zero included.
func keyCounts(tx *store.Tx, who session) (map[string]int, error) {
	counts, err := tx.OneTimeKeyCounts(who.num, who.device)
	if err != nil {
		return nil, err
	}
	counts[keyAlgorithm] += 0
	return counts, nil
}

// maxAcknowledged bounds how many messages one request acknowledges. A sync
// brings fewer.
const maxAcknowledged = 1000

// acknowledgeToDevice removes the messages that the device has: those up to the
// position that its token since says. It writes only where there are any.
//
// Spec: CS Send-to-Device messaging, Server behaviour.
func (s *Server) acknowledgeToDevice(ctx context.Context, who session, since store.Position) error {
	waiting := false
	err := s.store.View(func(tx *store.Tx) error {
		events, _, _, err := tx.ToDevice(who.num, who.device, since, 1)
		waiting = len(events) > 0
		return err
	})
	if err != nil || !waiting {
		return err
	}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		return tx.DeleteToDevice(who.num, who.device, since, maxAcknowledged)
	})
	if err != nil {
		return fmt.Errorf("acknowledge messages to %s of %s: %w", who.device, who.user, err)
	}
	return nil
}
