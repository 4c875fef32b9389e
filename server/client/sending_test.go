package client

import (
	"testing"
	"testing/synctest"
	"time"
)

// A sync waits until all that its own device sends is answered, but not for
// others, and not for long.
func TestSyncWaitsForOwnAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sending
		phone, laptop := deviceName{1, "PHONE"}, deviceName{1, "LAPTOP"}
		waits := func(device deviceName) time.Duration {
			began := time.Now()
			s.settle(t.Context(), device)
			return time.Since(began)
		}
		for _, after := range []time.Duration{10 * time.Millisecond, 30 * time.Millisecond} {
			end := s.begin(phone)
			time.AfterFunc(after, end)
		}
		if took := waits(laptop); took != 0 {
			t.Errorf("another device waited %v", took)
		}
		if took := waits(phone); took != 30*time.Millisecond {
			t.Errorf("the device waited %v", took)
		}
		if took := waits(phone); took != 0 || len(s.devices) != 0 {
			t.Errorf("with nothing under way it waited %v; left is %v", took, s.devices)
		}
		end := s.begin(phone)
		if took := waits(phone); took != maxSendingWait {
			t.Errorf("for a request that hangs it waited %v", took)
		}
		end()
	})
}
