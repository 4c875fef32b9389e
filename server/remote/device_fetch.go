package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/e2ee"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of what is kept of one user.
const (
	maxUserDevices = 500
	maxUserBytes   = 256 << 10 // of names and keys together
)

// wantedKeys is a user whose keys are asked for.
type wantedKeys struct {
	user  matrix.UserID
	num   store.UserNum     // 0: nobody has met the user
	named []matrix.DeviceID // of these devices; none: of all
	share share
}

// fetched is what a server says of one of its users, held to its form.
type fetched struct {
	wantedKeys
	stream  int64 // store.UnknownStream where it is not said
	devices []store.RemoteDevice
	keys    map[store.Usage]store.CrossSigningKey // the master and the self-signing key, as far as there are any
}

// devicesAnswer is the answer of GET /user/devices/{userId}.
type devicesAnswer struct {
	UserID   matrix.UserID `json:"user_id"`
	StreamID int64         `json:"stream_id"`
	Devices  few[struct {
		DeviceID matrix.DeviceID `json:"device_id"`
		Keys     jsontext.Value  `json:"keys"`
		Name     string          `json:"device_display_name"`
	}] `json:"devices"`
	Master      jsontext.Value `json:"master_key"`
	SelfSigning jsontext.Value `json:"self_signing_key"`
}

// keysAnswer is the answer of POST /user/keys/query.
type keysAnswer struct {
	DeviceKeys  fewNamed[matrix.UserID, jsontext.Value] `json:"device_keys"` // by device
	Master      fewNamed[matrix.UserID, jsontext.Value] `json:"master_keys"`
	SelfSigning fewNamed[matrix.UserID, jsontext.Value] `json:"self_signing_keys"`
}

// keysRequest is the request of POST /user/keys/query.
type keysRequest struct {
	DeviceKeys map[matrix.UserID][]matrix.DeviceID `json:"device_keys"`
}

// askDevices asks a server for the devices of a user, with their stream ID. A server
// that does not know how is asked for the keys alone.
func (l *DeviceLists) askDevices(ctx context.Context, u wantedKeys) (fetched, error) {
	path := "/_matrix/federation/v1/user/devices/" + url.PathEscape(string(u.user))
	q := Request{Method: http.MethodGet, Path: path, MaxBytes: maxKeysAnswer}
	var answer devicesAnswer
	err := l.config.Ask(ctx, u.user.Server(), q, &answer)
	var refused *Error
	if errors.As(err, &refused) && (refused.Status == http.StatusNotFound || refused.Status == http.StatusMethodNotAllowed) {
		all, err := l.askKeys(ctx, u.user.Server(), []wantedKeys{u})
		if err != nil {
			return fetched{}, err
		}
		return all[0], nil
	}
	if err != nil {
		return fetched{}, err
	}
	if answer.UserID != u.user || answer.StreamID < 0 {
		return fetched{}, fmt.Errorf("%s says nothing of the devices of %s: %w", u.user.Server(), u.user, ErrUnreachable)
	}
	f := fetched{wantedKeys: u, stream: answer.StreamID}
	for _, d := range answer.Devices {
		f.add(d.DeviceID, d.Name, d.Keys)
	}
	f.sign(answer.Master, answer.SelfSigning)
	return f, nil
}

// askKeys asks a server for the keys of several of its users: of all their devices,
// as they may be kept. Users of whom it says nothing have none.
func (l *DeviceLists) askKeys(ctx context.Context, server matrix.ServerName, users []wantedKeys) ([]fetched, error) {
	request := keysRequest{make(map[matrix.UserID][]matrix.DeviceID, len(users))}
	for _, u := range users {
		request.DeviceKeys[u.user] = []matrix.DeviceID{}
	}
	q := Request{Method: http.MethodPost, Path: "/_matrix/federation/v1/user/keys/query", Body: request, MaxBytes: maxKeysAnswer}
	var answer keysAnswer
	if err := l.config.Ask(ctx, server, q, &answer); err != nil {
		return nil, err
	}
	all := make([]fetched, 0, len(users))
	for _, u := range users {
		f := fetched{wantedKeys: u, stream: store.UnknownStream}
		devices, err := fewMembers[matrix.DeviceID](answer.DeviceKeys[u.user])
		if err != nil {
			return nil, fmt.Errorf("keys of %s: %w: %w", u.user, ErrUnreachable, err)
		}
		for id, object := range devices {
			f.add(id, nameIn(object), object)
		}
		f.sign(answer.Master[u.user], answer.SelfSigning[u.user])
		all = append(all, f)
	}
	return all, nil
}

// add takes a device that has the form of one. Of keys that have not, the device is
// taken without.
func (f *fetched) add(id matrix.DeviceID, name string, object jsontext.Value) {
	if !isDeviceID(id) {
		return
	}
	d := store.RemoteDevice{ID: id, Name: cutName(name)}
	if e2ee.CheckDeviceKeys(object, f.user, id) == nil {
		d.Keys = object
	}
	f.devices = append(f.devices, d)
}

// sign takes the cross-signing keys that have the form of such, and bounds the whole:
// of devices in the order of their IDs, as many as there is room for.
func (f *fetched) sign(master, selfSigning jsontext.Value) {
	f.keys = crossSigningOf(f.user, master, selfSigning)
	slices.SortFunc(f.devices, func(a, b store.RemoteDevice) int { return strings.Compare(string(a.ID), string(b.ID)) })
	f.devices = slices.CompactFunc(f.devices, func(a, b store.RemoteDevice) bool { return a.ID == b.ID })
	size := 0
	for i, d := range f.devices {
		if size += len(d.ID) + len(d.Name) + len(d.Keys); i == maxUserDevices || size > maxUserBytes {
			f.devices = f.devices[:i]
			return
		}
	}
}

// shown returns what is shown of the user to who asked.
func (f *fetched) shown() (e2ee.Keys, error) {
	k := e2ee.Keys{
		Devices: make(map[matrix.DeviceID]jsontext.Value),
		Master:  f.keys[store.UsageMaster].JSON, SelfSigning: f.keys[store.UsageSelfSigning].JSON,
	}
	for _, d := range f.devices {
		if d.Keys == nil || len(f.named) > 0 && !slices.Contains(f.named, d.ID) {
			continue
		}
		object, err := e2ee.ShowDevice(d)
		if err != nil {
			return k, err
		}
		k.Devices[d.ID] = object
	}
	return k, nil
}

// put stores what was fetched, and says whether it changes anything.
func (f *fetched) put(tx *store.Tx) (changed bool, err error) {
	changed, err = tx.ReplaceRemoteDevices(f.num, f.devices)
	for _, usage := range []store.Usage{store.UsageMaster, store.UsageSelfSigning} {
		if err == nil {
			var one bool
			one, err = tx.PutRemoteCrossSigningKey(f.num, usage, f.keys[usage])
			changed = changed || one
		}
	}
	return changed, err
}

// size is about how many bytes put stores.
func (f *fetched) size() int {
	n := 0
	for _, d := range f.devices {
		n += len(d.Name) + len(d.Keys)
	}
	return n
}

// crossSigningOf returns the cross-signing keys that another server's user has: those
// of two objects that have the form of keys. A self-signing key that is not signed by
// the master key beside it is none.
func crossSigningOf(user matrix.UserID, master, selfSigning jsontext.Value) map[store.Usage]store.CrossSigningKey {
	keys := make(map[store.Usage]store.CrossSigningKey)
	public, err := e2ee.CheckCrossSigning(master, store.UsageMaster, user)
	if err == nil {
		keys[store.UsageMaster] = store.CrossSigningKey{Public: public, JSON: master}
	}
	own, ownErr := e2ee.CheckCrossSigning(selfSigning, store.UsageSelfSigning, user)
	if ownErr == nil && (err != nil || e2ee.Verify(selfSigning, user, public, public) == nil) {
		keys[store.UsageSelfSigning] = store.CrossSigningKey{Public: own, JSON: selfSigning}
	}
	return keys
}

// nameIn returns the name that stands unsigned in a device's keys.
func nameIn(object jsontext.Value) string {
	var keys struct {
		Unsigned struct {
			Name string `json:"device_display_name"`
		} `json:"unsigned"`
	}
	if json.Unmarshal(object, &keys) != nil {
		return ""
	}
	return keys.Unsigned.Name
}

// isDeviceID says whether another server's word for a device can be one.
func isDeviceID(id matrix.DeviceID) bool {
	return id != "" && len(id) <= matrix.MaxIDBytes && strings.IndexByte(string(id), 0) < 0
}

// cutName returns as much of a device's name as is kept.
func cutName(name string) string {
	if len(name) > e2ee.MaxDeviceName {
		name = strings.ToValidUTF8(name[:e2ee.MaxDeviceName], "")
	}
	return name
}
