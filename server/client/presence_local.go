package client

import (
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// When the presence of local users changes by itself.
const (
	activeFor    = time.Minute      // currently active, after the user did something
	idleAfter    = 5 * time.Minute  // then online turns into unavailable
	connectedFor = 30 * time.Second // still there, after a sync or a word of the device
	sendAgain    = 25 * time.Minute // other servers are told that it lasts
)

// maxPresenceDevices bounds the devices of one user that are looked at.
const maxPresenceDevices = 64

// localPresence is the presence of a local user: as it was last told, and what it
// is made of.
type localPresence struct {
	Presence
	serial  uint64    // of the last change; 0: none
	sent    time.Time // when other servers were last told
	status  string    // what Status is to be
	renamed bool      // the profile has changed
	dirty   bool      // it is newer than what is stored
	devices map[matrix.DeviceID]*devicePresence
}

// devicePresence is one device that is connected, or was a moment ago.
type devicePresence struct {
	state PresenceState // what the device says
	syncs int           // that wait
	until time.Time     // connected so long even without
}

func newLocalPresence(user matrix.UserID, stored store.Presence) *localPresence {
	return &localPresence{
		Presence: Presence{User: user, State: Offline, Status: stored.Status, LastActive: stored.LastActive},
		status:   stored.Status,
		devices:  make(map[matrix.DeviceID]*devicePresence),
	}
}

// device returns the entry of a device, nil where the user has too many.
func (u *localPresence) device(id matrix.DeviceID) *devicePresence {
	d := u.devices[id]
	if d == nil && len(u.devices) < maxPresenceDevices {
		d = &devicePresence{state: Offline}
		u.devices[id] = d
	}
	return d
}

// connect notes that a device begins a sync and what it says of itself. Who comes
// online thereby counts as active.
func (u *localPresence) connect(id matrix.DeviceID, state PresenceState, now time.Time) {
	d := u.device(id)
	if d == nil {
		return
	}
	if state == Online && d.state != Online {
		u.active(now)
	}
	d.state = state
	d.syncs++
}

// disconnect notes that a sync of a device has ended.
func (u *localPresence) disconnect(id matrix.DeviceID, now time.Time) {
	d := u.devices[id]
	if d == nil {
		return
	}
	d.syncs = max(0, d.syncs-1)
	d.until = now.Add(connectedFor)
}

// set takes what the user says on a device. "When setting the status, the activity
// time is updated to reflect that activity".
func (u *localPresence) set(id matrix.DeviceID, state PresenceState, status string, now time.Time) {
	u.dirty = u.dirty || u.status != status
	u.status = status
	u.active(now)
	if d := u.device(id); d != nil {
		d.state = state
		d.until = now.Add(connectedFor)
	}
}

// act notes that the user has done something on a device. "Any activity that bumps
// the last active time on any of the user's clients will cause the server to
// automatically set their presence to online"; but who is not connected, or wants
// to be seen as offline, stays so.
func (u *localPresence) act(id matrix.DeviceID, now time.Time) {
	u.active(now)
	if d := u.devices[id]; d != nil && d.state == Unavailable {
		d.state = Online
	}
}

func (u *localPresence) active(now time.Time) {
	u.LastActive = now.Truncate(time.Millisecond)
	u.dirty = true
}

// settle makes one presence of the devices as of now, and says whether there is
// anything to tell. While the user is currently active, the time of that is not.
func (u *localPresence) settle(now time.Time) (news bool) {
	is := Offline
	for id, d := range u.devices {
		if d.syncs == 0 && !now.Before(d.until) {
			delete(u.devices, id)
		} else if d.state.rank() > is.rank() {
			is = d.state
		}
	}
	idle := now.Sub(u.LastActive)
	if is == Online && idle >= idleAfter {
		is = Unavailable
	}
	active := is == Online && idle < activeFor
	news = u.renamed || is != u.State || active != u.Active || u.status != u.Status
	u.State, u.Active, u.Status, u.renamed = is, active, u.status, false
	return news
}
