package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/e2ee"
	"hearth/state/matrix"
	"hearth/store"
)

// answerWith has the lists be answered with one text, whatever they ask.
func (p *listPair) answerWith(text []byte) {
	p.lists.config.Ask = func(_ context.Context, dest matrix.ServerName, q Request, answer any) error {
		if int64(len(text)) > q.MaxBytes {
			return fmt.Errorf("%s: %w", dest, ErrUnreachable)
		}
		if err := json.Unmarshal(text, answer); err != nil {
			return fmt.Errorf("%s: %w: %w", dest, ErrUnreachable, err)
		}
		return nil
	}
}

// Of an answer that is not as it has to be there is kept and shown what is: other
// users' keys, keys of other devices, too many and too large ones are left out.
func TestHostileKeyAnswers(t *testing.T) {
	good := string(deviceKeysOf(zoe, "GOOD", "1"))
	key := func(user, usage, public string) string {
		return fmt.Sprintf(`{"user_id":%q,"usage":[%q],"keys":{"ed25519:%s":%q}}`, user, usage, public, public)
	}
	public, other := strings.Repeat("1", 42)+"A", strings.Repeat("2", 42)+"A"
	many := make([]string, 10_000)
	for i := range many {
		id := matrix.DeviceID(fmt.Sprintf("D%05d", i))
		many[i] = fmt.Sprintf("%q:%s", id, deviceKeysOf(zoe, id, "1"))
	}
	for _, tt := range []struct {
		name, devices, more string
		want                int
		master              bool
		self                bool
	}{
		{name: "in order", devices: `"GOOD":` + good, want: 1},
		{name: "of another device", devices: `"BAD":` + good},
		{name: "of another user", devices: `"GOOD":` + string(deviceKeysOf("@x:there.test", "GOOD", "1"))},
		{name: "no object", devices: `"GOOD":7,"B":null,"C":[]`},
		{name: "huge", devices: `"GOOD":` + string(deviceKeysOf(zoe, "GOOD", strings.Repeat("x", e2ee.MaxDeviceKeys)))},
		{name: "a name with NUL", devices: `"GOOD\u0000":` + good + `,"":` + good},
		{name: "10,000 devices", devices: strings.Join(many, ","), want: maxUserDevices},
		{
			name: "cross-signing", more: `,"master_keys":{"@zoe:there.test":` + key(string(zoe), "master", public) + `}`,
			master: true,
		},
		{name: "another's master key", more: `,"master_keys":{"@zoe:there.test":` + key("@x:there.test", "master", public) + `}`},
		{
			name: "a self-signing key that is not signed",
			more: `,"master_keys":{"@zoe:there.test":` + key(string(zoe), "master", public) +
				`},"self_signing_keys":{"@zoe:there.test":` + key(string(zoe), "self_signing", other) + `}`,
			master: true,
		},
		{name: "users whom nobody asked for", more: `,"master_keys":{"@erin:here.test":` + key("@erin:here.test", "master", public) + `}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newListPair(t)
			p.answerWith([]byte(`{"device_keys":{"@zoe:there.test":{` + tt.devices + `}}` + tt.more + `}`))
			for round := range 2 { // the second comes from what is kept
				found, err := p.lists.Query(t.Context(), map[matrix.UserID][]matrix.DeviceID{zoe: nil})
				p.here.must(err)
				keys := found.Users[zoe]
				if tt.want == maxUserDevices {
					if n := len(keys.Devices); n == 0 || n > maxUserDevices {
						t.Errorf("round %d: %d devices", round, n)
					}
				} else if len(keys.Devices) != tt.want || len(found.Users) != 1 || len(found.Failed) > 0 {
					t.Errorf("round %d: %d users, %d devices, %v", round, len(found.Users), len(keys.Devices), found.Failed)
				}
				if (keys.Master != nil) != tt.master || (keys.SelfSigning != nil) != tt.self {
					t.Errorf("round %d: master key %s, self-signing key %s", round, keys.Master, keys.SelfSigning)
				}
			}
		})
	}
}

// Where the store takes nothing, lists are not asked for again and again.
func TestResyncWithoutDisk(t *testing.T) {
	p := newListPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	list := stale{wantedKeys: wantedKeys{user: "@x:else.test", num: 99}}
	if !p.lists.resyncAll(ctx, []stale{list}) {
		t.Error("a list that nobody needs is not forgotten")
	}
	cancel() // nothing is written now
	if p.lists.resyncAll(ctx, []stale{list}) {
		t.Error("that nothing was written is not noticed")
	}
}

// What is no proper JSON is not handed on to users.
func TestHostileText(t *testing.T) {
	claimed := make(e2ee.Claimed)
	for i, key := range []string{"\"\xff\"", `{"key":"a","key":"b"}`, "{\"key\":\"\xff\"}"} {
		takeKey(claimed, zoe, "D", "a", map[string]jsontext.Value{fmt.Sprint("a:", i): jsontext.Value(key)})
	}
	if len(claimed) > 0 {
		t.Errorf("claimed %s", claimed)
	}
	profile, ok := readProfile([]byte("{\"displayname\":\"\xff\",\"a\":{\"b\":1,\"b\":2},\"c\":\"é\"}"))
	if text, err := json.Marshal(profile); !ok || err != nil || string(text) != `{"c":"é"}` {
		t.Errorf("profile %s, %v", text, err)
	}
}

// EDUs about what is not their server's are refused, and change nothing.
func TestHostileDeviceEDUs(t *testing.T) {
	p := newListPair(t)
	p.query()
	_, before := p.news(0)
	for _, content := range []string{
		`7`, `{}`, `{"user_id":"@zoe:there.test"}`,
		`{"user_id":"@erin:here.test","device_id":"A","stream_id":1}`,
		`{"user_id":"@x:else.test","device_id":"A","stream_id":1}`,
		`{"user_id":"zoe","device_id":"A","stream_id":1}`,
		`{"user_id":"@zoe:there.test","device_id":"","stream_id":1}`,
		`{"user_id":"@zoe:there.test","device_id":"A\u0000B","stream_id":1}`,
		`{"user_id":"@zoe:there.test","device_id":"A","stream_id":-1}`,
		`{"user_id":"@zoe:there.test","device_id":"A","stream_id":1,"prev_id":[` + strings.Repeat("1,", maxPrevIDs) + `1]}`,
	} {
		if err := p.lists.Receive(t.Context(), there, jsontext.Value(content)); !errors.Is(err, ErrBadEDU) {
			t.Errorf("%.100s: %v", content, err)
		}
		if err := p.lists.ReceiveSigningKeys(t.Context(), there, jsontext.Value(content)); !errors.Is(err, ErrBadEDU) {
			t.Errorf("signing keys %.100s: %v", content, err)
		}
	}
	if _, after := p.news(0); after != before {
		t.Error("something was written")
	}
}

// A server that tells of ever new devices fills nothing: its list is fetched again,
// and that has a bound.
func TestDeviceListsOfManyDevices(t *testing.T) {
	p := newListPair(t)
	p.query()
	p.resync()
	p.here.must(p.here.store.Update(t.Context(), func(tx *store.Tx) error {
		user := tx.UserNum(zoe)
		for i := range maxUserDevices {
			if _, err := tx.PutRemoteDevice(user, store.RemoteDevice{ID: matrix.DeviceID(fmt.Sprint(i))}); err != nil {
				return err
			}
		}
		list, _, err := tx.RemoteDeviceList(user)
		list.Stream = 100
		return errors.Join(err, tx.PutRemoteDeviceList(user, list, p.lists.config.Now()))
	}))
	content := `{"user_id":"@zoe:there.test","device_id":"ONEMORE","stream_id":101,"prev_id":[100]}`
	p.here.must(p.lists.Receive(t.Context(), there, jsontext.Value(content)))
	if list, _ := p.list(); !list.Stale {
		t.Errorf("the list is %+v", list)
	}
}

// Claimed keys are those that were asked for.
func TestClaimAnswers(t *testing.T) {
	p := newListPair(t)
	for _, tt := range []struct{ answer, want string }{
		{`{"@zoe:there.test":{"A":{"signed_curve25519:1":{"key":"k"}}}}`, `{"@zoe:there.test":{"A":{"signed_curve25519:1":{"key":"k"}}}}`},
		{`{"@zoe:there.test":{"B":{"signed_curve25519:1":{"key":"k"}}}}`, `{}`},
		{`{"@erin:here.test":{"A":{"signed_curve25519:1":{"key":"k"}}}}`, `{}`},
		{`{"@zoe:there.test":{"A":{"curve25519:1":"k"}}}`, `{}`},
		{`{"@zoe:there.test":{"A":{"signed_curve25519:1":7}}}`, `{}`},
		{`{"@zoe:there.test":{"A":{"signed_curve25519:1":{"key":"` + strings.Repeat("k", e2ee.MaxOneTimeKey) + `"}}}}`, `{}`},
	} {
		p.answerWith([]byte(`{"one_time_keys":` + tt.answer + `}`))
		claimed, failed := p.lists.Claim(t.Context(), e2ee.Claims{zoe: {"A": "signed_curve25519"}})
		got, err := json.Marshal(claimed, json.Deterministic(true))
		if string(got) != tt.want || len(failed) > 0 || err != nil {
			t.Errorf("%.100s: claimed %s, failed %v: %v", tt.answer, got, failed, err)
		}
	}
	p.answerWith([]byte(`[]`))
	if _, failed := p.lists.Claim(t.Context(), e2ee.Claims{zoe: {"A": "x"}}); !errors.Is(failed[there], ErrUnreachable) {
		t.Errorf("an answer that is none: %v", failed)
	}
}

// FuzzDeviceAnswers answers each of our requests for keys with anything. The store is
// in order after it, and the answer to who asked within its bounds.
func FuzzDeviceAnswers(f *testing.F) {
	p := newListPair(f)
	f.Add([]byte(`{"device_keys":{"@zoe:there.test":{"A":` + string(deviceKeysOf(zoe, "A", "1")) + `}},"master_keys":{},"self_signing_keys":{}}`))
	f.Add([]byte(`{"user_id":"@zoe:there.test","stream_id":5,"devices":[{"device_id":"A","keys":` + string(deviceKeysOf(zoe, "A", "1")) +
		`,"device_display_name":"x"},{"device_id":"A"}],"master_key":{},"self_signing_key":null}`))
	f.Add([]byte(`{"one_time_keys":{"@zoe:there.test":{"A":{"x:1":{"key":"k","signatures":{}}}}}}`))
	wanted := wantedKeys{user: zoe}
	f.Fuzz(func(t *testing.T, answer []byte) {
		defer p.in(t)()
		p.answerWith(answer)
		p.lists.Claim(t.Context(), e2ee.Claims{zoe: {"A": "x"}})
		for _, ask := range []func() (fetched, error){
			func() (fetched, error) { return p.lists.askDevices(t.Context(), wanted) },
			func() (fetched, error) {
				all, err := p.lists.askKeys(t.Context(), there, []wantedKeys{wanted})
				if err != nil {
					return fetched{}, err
				}
				return all[0], nil
			},
		} {
			got, err := ask()
			if err != nil {
				continue
			}
			if len(got.devices) > maxUserDevices || got.size() > maxUserBytes {
				t.Errorf("%d devices of %d bytes", len(got.devices), got.size())
			}
			if _, err := got.shown(); err != nil {
				t.Errorf("it cannot be shown: %v", err)
			}
		}
		p.putFetched(t)
	})
}

// in has a fuzz target's faults told to its own test, until what it returns is called.
func (p *listPair) in(t *testing.T) (back func()) {
	was := p.TB
	set := func(tb testing.TB) { p.TB, p.here.TB, p.there.TB = tb, tb, tb }
	set(t)
	return func() { set(was) }
}

// putFetched has what a server answers be kept, and looks whether all is in order.
func (p *listPair) putFetched(t *testing.T) {
	t.Helper()
	p.here.must(p.here.store.Update(t.Context(), func(tx *store.Tx) error { return tx.ForgetRemoteDevices(tx.UserNum(zoe)) }))
	if _, err := p.lists.Query(t.Context(), map[matrix.UserID][]matrix.DeviceID{zoe: nil}); err != nil {
		t.Error(err)
	}
	if _, err := p.lists.Query(t.Context(), map[matrix.UserID][]matrix.DeviceID{zoe: nil}); err != nil {
		t.Error(err)
	}
}

// FuzzDeviceEDUs takes anything as an EDU about devices.
func FuzzDeviceEDUs(f *testing.F) {
	p := newListPair(f)
	p.device("A", "phone", "1")
	p.crossSigning("1")
	edus, _ := p.updates(0)
	for _, text := range edus {
		var e struct {
			Content jsontext.Value `json:"content"`
		}
		p.here.must(json.Unmarshal(text, &e))
		f.Add([]byte(e.Content))
	}
	p.query()
	f.Fuzz(func(t *testing.T, content []byte) {
		defer p.in(t)()
		for _, take := range []Receiver{p.lists.Receive, p.lists.ReceiveSigningKeys} {
			if err := take(t.Context(), there, content); err != nil && !errors.Is(err, ErrBadEDU) {
				t.Error(err)
			}
		}
		if _, failed := p.query(); failed {
			t.Error("the keys cannot be asked for")
		}
	})
}

// Receiver takes an EDU.
type Receiver = func(ctx context.Context, origin matrix.ServerName, content jsontext.Value) error
