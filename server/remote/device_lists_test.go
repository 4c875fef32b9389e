package remote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/e2ee"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// listPair is a server whose users have devices, and one that follows them: erin,
// who is here, shares a room with zoe, who is there.
type listPair struct {
	testing.TB
	here, there *homestead
	lists       *DeviceLists
	room        matrix.RoomID
	joiner      *Joiner       // here
	zoe         store.UserNum // there
	now         atomic.Int64  // of the clock here, in seconds

	mu    sync.Mutex // guards the fields below
	dead  bool       // the other server does not answer
	old   bool       // it knows keys/query alone
	asked map[string]int
	meet  func(path string) // called with each request before it is answered
}

const zoe matrix.UserID = "@zoe:there.test"

func newListPair(tb testing.TB) *listPair {
	tb.Helper()
	w := world{here: newHomestead(tb, here), there: newHomestead(tb, there)}
	p := &listPair{TB: tb, here: w[here], there: w[there], asked: make(map[string]int)}
	p.now.Store(1_790_000_000)
	p.room = p.there.create("10", 1)
	p.there.must(p.there.rooms.Join(tb.Context(), state.Join{Room: p.room, User: zoe}))
	p.there.must(p.there.store.Update(tb.Context(), func(tx *store.Tx) (err error) {
		p.zoe, err = tx.CreateAccount(zoe, store.Account{})
		return err
	}))
	p.device("FIRST", "phone", "1")
	j, _ := w.joiner(p.here)
	p.joiner = j
	p.join()
	p.open()
	return p
}

// join has erin join the room.
func (p *listPair) join() {
	p.Helper()
	p.here.must(p.joiner.Join(p.Context(), state.Join{Room: p.room, User: erin}, []matrix.ServerName{there}))
}

// leave has erin leave it, as both servers know.
func (p *listPair) leave() {
	p.Helper()
	left, err := p.here.rooms.ChangeMembership(p.Context(), state.MembershipChange{Room: p.room, Sender: erin, Target: erin, Membership: matrix.Leave})
	p.here.must(err)
	p.here.must(p.here.store.View(func(tx *store.Tx) error {
		room, num, _ := tx.EventByID(left)
		ev, err := tx.Event(room, num)
		if err == nil {
			p.there.take(p.room, ev.JSON())
		}
		return err
	}))
}

// open makes the lists anew, as a start does.
func (p *listPair) open() {
	p.lists = NewDeviceLists(DeviceListsConfig{
		Store: p.here.store, Ask: p.ask, Now: func() time.Time { return time.Unix(p.now.Load(), 0) },
	})
}

// device puts a device of zoe's.
func (p *listPair) device(id matrix.DeviceID, name, key string) {
	p.Helper()
	p.there.must(p.there.store.Update(context.Background(), func(tx *store.Tx) error {
		if err := tx.PutDevice(p.zoe, store.Device{ID: id, Name: name, Created: time.Unix(1, 0)}); err != nil || key == "" {
			return err
		}
		return tx.PutDeviceKeys(p.zoe, id, deviceKeysOf(zoe, id, key))
	}))
}

// deviceKeysOf returns keys of a device in their form.
func deviceKeysOf(user matrix.UserID, id matrix.DeviceID, key string) jsontext.Value {
	return jsontext.Value(fmt.Sprintf(
		`{"user_id":%q,"device_id":%q,"algorithms":["m.test"],"keys":{"ed25519:%s":%q},"signatures":{}}`, user, id, id, key))
}

// ask answers as the server there does.
func (p *listPair) ask(ctx context.Context, dest matrix.ServerName, q Request, answer any) error {
	p.mu.Lock()
	p.asked[q.Method]++
	dead, old, meet := p.dead, p.old, p.meet
	p.mu.Unlock()
	if dead || dest != there {
		return fmt.Errorf("%s: %w", dest, ErrUnreachable)
	}
	if old && q.Method == http.MethodGet {
		return &Error{Server: dest, Status: http.StatusNotFound, Code: "M_UNRECOGNIZED"}
	}
	var text []byte
	err := p.there.store.View(func(tx *store.Tx) (err error) {
		if q.Method == http.MethodGet {
			text, err = devicesOf(tx, q.Path)
		} else {
			text, err = keysOf(tx, q.Body.(keysRequest))
		}
		return err
	})
	if meet != nil {
		meet(q.Path)
	}
	return errors.Join(err, json.Unmarshal(text, answer))
}

// devicesOf is the answer of GET /user/devices/{userId}.
func devicesOf(tx *store.Tx, path string) ([]byte, error) {
	name, err := url.PathUnescape(path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		return nil, err
	}
	user, view := tx.UserNum(matrix.UserID(name)), e2ee.View{Tx: tx}
	list, err := tx.DeviceList(user)
	if err != nil {
		return nil, err
	}
	var devices []map[string]any
	err = tx.Devices(user, func(d store.Device) (bool, error) {
		keys, err := view.Device(user, d)
		if keys != nil {
			devices = append(devices, map[string]any{"device_id": d.ID, "keys": keys, "device_display_name": d.Name})
		}
		return true, err
	})
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"user_id": name, "stream_id": list.Device, "devices": devices}
	for name, usage := range map[string]store.Usage{"master_key": store.UsageMaster, "self_signing_key": store.UsageSelfSigning} {
		if key, err := view.CrossSigning(user, usage); err != nil {
			return nil, err
		} else if key != nil {
			answer[name] = key
		}
	}
	return json.Marshal(answer)
}

// keysOf is the answer of POST /user/keys/query.
func keysOf(tx *store.Tx, req keysRequest) ([]byte, error) {
	answer := keysAnswer{DeviceKeys: make(fewNamed[matrix.UserID, jsontext.Value]), Master: make(fewNamed[matrix.UserID, jsontext.Value])}
	for user, named := range req.DeviceKeys {
		keys, err := e2ee.View{Tx: tx}.User(tx.UserNum(user), named)
		if err != nil {
			return nil, err
		}
		if answer.DeviceKeys[user], err = json.Marshal(keys.Devices); err != nil {
			return nil, err
		}
		if keys.Master != nil {
			answer.Master[user] = keys.Master
		}
	}
	return json.Marshal(answer)
}

// query asks for zoe's keys as a client here does.
func (p *listPair) query() (keys e2ee.Keys, failed bool) {
	p.Helper()
	found, err := p.lists.Query(p.Context(), map[matrix.UserID][]matrix.DeviceID{zoe: nil})
	p.here.must(err)
	return found.Users[zoe], found.Failed[there] != nil
}

// truth is zoe's keys there.
func (p *listPair) truth() (keys e2ee.Keys) {
	p.Helper()
	p.there.must(p.there.store.View(func(tx *store.Tx) (err error) {
		keys, err = e2ee.View{Tx: tx}.User(p.zoe, nil)
		return err
	}))
	return keys
}

// same says whether two views of a user's keys are the same.
func same(a, b e2ee.Keys) bool {
	equal := func(a, b jsontext.Value) bool { return string(a) == string(b) }
	return maps.EqualFunc(a.Devices, b.Devices, equal) && equal(a.Master, b.Master)
}

// updates returns the EDUs of zoe's changes behind a position, in the order in which
// they are sent.
func (p *listPair) updates(after store.Position) (edus []jsontext.Value, upto store.Position) {
	p.Helper()
	p.there.must(p.there.store.View(func(tx *store.Tx) (err error) {
		upto = tx.Position()
		edus, err = DeviceUpdates(tx, p.zoe, after, upto)
		return err
	}))
	return edus, upto
}

// receive takes an EDU as it came.
func (p *listPair) receive(text jsontext.Value) {
	p.Helper()
	var e struct {
		Type    string         `json:"edu_type"`
		Content jsontext.Value `json:"content"`
	}
	p.here.must(json.Unmarshal(text, &e))
	take := p.lists.Receive
	if e.Type == typeSigningKeys {
		take = p.lists.ReceiveSigningKeys
	}
	p.here.must(take(p.Context(), there, e.Content))
}

// resync does what is due until nothing is, the clock being set forward.
func (p *listPair) resync() {
	p.Helper()
	for range 100 {
		due, _, err := p.lists.due()
		p.here.must(err)
		if len(due) == 0 {
			break
		}
		p.lists.resyncAll(p.Context(), due)
	}
	p.now.Add(int64(24 * time.Hour / time.Second))
}

// news says whether erin is told behind a position that zoe's devices have changed.
func (p *listPair) news(after store.Position) (is bool, now store.Position) {
	p.Helper()
	p.here.must(p.here.store.View(func(tx *store.Tx) error {
		now = tx.Position()
		user := tx.UserNum(zoe)
		return tx.DeviceListChanges(after, func(u store.UserNum) (bool, error) {
			is = is || u == user
			return !is, nil
		})
	}))
	return is, now
}

// stale says how the list stands here.
func (p *listPair) list() (list store.RemoteDeviceList, known bool) {
	p.Helper()
	p.here.must(p.here.store.View(func(tx *store.Tx) (err error) {
		list, known, err = tx.RemoteDeviceList(tx.UserNum(zoe))
		return err
	}))
	return list, known
}

// Whatever is lost, repeated or comes out of order, and whenever the other server is
// away: who asks for keys when told of a change has, in the end, those that there
// are.
func TestDeviceListsFollow(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		p := newListPair(t)
		held, _ := p.query() // by the client
		var seen, sent store.Position
		var late []jsontext.Value
		follow := func() {
			news, now := p.news(seen)
			if !news {
				return
			}
			if keys, failed := p.query(); !failed {
				held, seen = keys, now
			}
		}
		for range 60 {
			id := matrix.DeviceID([]string{"A", "B", "C"}[rnd.IntN(3)])
			switch rnd.IntN(9) {
			case 0:
				p.there.must(p.there.store.Update(t.Context(), func(tx *store.Tx) error { return tx.DeleteDevice(p.zoe, id) }))
			case 1, 2:
				p.device(id, "phone", fmt.Sprint(rnd.IntN(3)))
			case 3:
				p.crossSigning(fmt.Sprint(rnd.IntN(3)))
			case 4:
				p.dead = !p.dead
			case 5:
				p.resync()
			case 6:
				p.open()
			case 7:
				follow()
			case 8:
				p.lists.Heard(there)
			}
			edus, upto := p.updates(sent)
			for _, one := range edus {
				switch rnd.IntN(6) {
				case 0: // lost
				case 1:
					late = append(late, one)
				case 2:
					p.receive(one)
					p.receive(one)
				default:
					p.receive(one)
				}
			}
			sent = upto
			if len(late) > 0 && rnd.IntN(3) == 0 {
				p.receive(late[0])
				late = late[1:]
			}
		}
		// All is well again, and each kind of thing changes once more.
		p.dead = false
		p.device("LAST", "phone", "9")
		p.crossSigning("9")
		edus, _ := p.updates(sent)
		for _, one := range append(edus, late...) {
			p.receive(one)
		}
		p.resync()
		p.resync()
		follow()
		list, known := p.list()
		if known && list.Stale {
			t.Errorf("seed %d: the list is stale", seed)
		}
		if want := p.truth(); !same(held, want) {
			t.Errorf("seed %d: the client has\n%v\nwant\n%v", seed, held, want)
		}
		if got, failed := p.query(); failed || !same(got, p.truth()) {
			t.Errorf("seed %d: who asks gets\n%v\nwant\n%v", seed, got, p.truth())
		}
	}
}

// crossSigning sets zoe's master key.
func (p *listPair) crossSigning(seed string) {
	p.Helper()
	p.there.must(p.there.store.Update(context.Background(), func(tx *store.Tx) error {
		public := strings.Repeat(seed, 42) + "A"
		object := fmt.Sprintf(`{"user_id":%q,"usage":["master"],"keys":{"ed25519:%s":%q}}`, zoe, public, public)
		return tx.PutCrossSigningKeys(p.zoe, map[store.Usage]store.CrossSigningKey{
			store.UsageMaster: {Public: public, JSON: jsontext.Value(object)},
		})
	}))
}

// What is here and good is not asked for again, and a change that follows is made
// here without asking.
func TestDeviceListsAskOnce(t *testing.T) {
	p := newListPair(t)
	p.query()
	p.query()
	if p.asked[http.MethodPost] != 1 || p.asked[http.MethodGet] != 0 {
		t.Errorf("asked %v for what is here", p.asked)
	}
	_, sent := p.updates(0)
	_, seen := p.news(0)
	change := func(name string) {
		t.Helper()
		p.device("FIRST", name, "")
		edus, upto := p.updates(sent)
		for _, one := range edus {
			p.receive(one)
		}
		sent = upto
		p.resync()
		news := false
		if news, seen = p.news(seen); !news {
			t.Errorf("nobody is told of the name %s", name)
		}
		if got, _ := p.query(); !same(got, p.truth()) {
			t.Errorf("the keys are %v, want %v", got, p.truth())
		}
	}
	change("one") // it came without a stream ID, so that it cannot be known what the change follows
	if p.asked[http.MethodGet] != 1 {
		t.Errorf("asked %v for the stream ID", p.asked)
	}
	change("two")
	change("three")
	if p.asked[http.MethodGet] != 1 || p.asked[http.MethodPost] != 1 {
		t.Errorf("asked %v for changes in their order", p.asked)
	}
	// An introduction says nothing new.
	var intro jsontext.Value
	p.there.must(p.there.store.View(func(tx *store.Tx) (err error) {
		intro, err = IntroduceDevices(tx, p.zoe)
		return err
	}))
	p.receive(intro)
	if news, _ := p.news(seen); news {
		t.Error("an introduction is news")
	}
	if list, _ := p.list(); list.Stale {
		t.Error("an introduction makes the list stale")
	}
}

// A change that comes while the list is being fetched is not lost.
func TestDeviceListsChangeWhileFetched(t *testing.T) {
	p := newListPair(t)
	once := sync.Once{}
	p.meet = func(string) { // the answer is made already
		once.Do(func() {
			_, sent := p.updates(0)
			p.device("SECOND", "phone", "2")
			edus, _ := p.updates(sent)
			for _, one := range edus {
				p.receive(one)
			}
		})
	}
	p.query()
	p.resync()
	p.resync()
	if got, _ := p.query(); !same(got, p.truth()) {
		t.Errorf("the keys are %v, want %v", got, p.truth())
	}
	if p.asked[http.MethodGet] == 0 {
		t.Error("the list was not fetched again")
	}
}

// A list is good while a room has been shared since before it was fetched. Of users
// who share none nothing is kept.
func TestDeviceListsWhileARoomIsShared(t *testing.T) {
	p := newListPair(t)
	p.query()
	if list, known := p.list(); !known || list.Stale {
		t.Fatalf("the list is %+v, %v", list, known)
	}
	p.leave()
	p.device("FIRST", "phone", "2") // nobody tells us
	if got, _ := p.query(); !same(got, p.truth()) {
		t.Errorf("the keys are %v, want %v", got, p.truth())
	}
	edus, _ := p.updates(0)
	_, seen := p.news(0)
	for _, one := range edus {
		p.receive(one)
	}
	if news, _ := p.news(seen); news {
		t.Error("a change of a user who shares no room is news")
	}
	p.here.must(p.lists.sweep(t.Context()))
	if list, known := p.list(); known {
		t.Errorf("the list is kept: %+v", list)
	}
}

// Who comes back to a room has missed what changed meanwhile.
func TestDeviceListsAfterARejoin(t *testing.T) {
	p := newListPair(t)
	p.query()
	p.leave()
	p.device("FIRST", "phone", "2") // nobody tells us
	p.join()
	if got, failed := p.query(); failed || !same(got, p.truth()) {
		t.Errorf("the keys are %v, want %v", got, p.truth())
	}
	p.query()
	if p.asked[http.MethodPost] != 2 {
		t.Errorf("asked %v", p.asked)
	}
}

// Of a list that is not here a change is news, and an introduction is not: that the
// room is shared was.
func TestDeviceListsThatAreNotHere(t *testing.T) {
	p := newListPair(t)
	var intro jsontext.Value
	p.there.must(p.there.store.View(func(tx *store.Tx) (err error) {
		intro, err = IntroduceDevices(tx, p.zoe)
		return err
	}))
	p.receive(intro)
	news, seen := p.news(0)
	if news {
		t.Error("an introduction is news")
	}
	_, sent := p.updates(0)
	p.device("FIRST", "tablet", "")
	edus, _ := p.updates(sent)
	p.receive(edus[0])
	if news, _ := p.news(seen); !news {
		t.Error("a change is no news")
	}
	if len(p.asked) > 0 {
		t.Errorf("asked %v although nobody here did", p.asked)
	}
}

// A server that knows no GET /user/devices is asked for the keys.
func TestDeviceListsOfOldServers(t *testing.T) {
	p := newListPair(t)
	p.query()
	p.old = true
	_, sent := p.updates(0)
	p.device("SECOND", "phone", "2")
	edus, _ := p.updates(sent)
	p.receive(edus[0])
	p.resync()
	if got, _ := p.query(); !same(got, p.truth()) {
		t.Errorf("the keys are %v, want %v", got, p.truth())
	}
}

// A list that cannot be fetched is tried less and less often, at once when its server
// speaks or we start, and forgotten in the end.
func TestDeviceListsBackOff(t *testing.T) {
	p := newListPair(t)
	p.query()
	p.dead = true
	_, sent := p.updates(0)
	p.device("SECOND", "phone", "2")
	edus, _ := p.updates(sent)
	p.receive(edus[0])
	try := func(want bool) {
		t.Helper()
		due, next, err := p.lists.due()
		p.here.must(err)
		if (len(due) > 0) != want || next <= 0 {
			t.Errorf("%d lists are due, the next in %v", len(due), next)
		}
		p.lists.resyncAll(t.Context(), due)
	}
	try(true)
	try(false)
	p.now.Add(60)
	try(true)
	p.now.Add(40)
	try(false)
	p.lists.Heard(there)
	try(true)
	try(false)
	p.open()
	try(true)
	if keys, failed := p.query(); !failed || len(keys.Devices) != 1 {
		t.Errorf("of a server that is away there is %v, failed is %v", keys.Devices, failed)
	}
	for range resyncTries {
		p.resync()
	}
	if list, known := p.list(); known {
		t.Errorf("the list is kept: %+v", list)
	}
}

// Who asks at the same time shares one request.
func TestDeviceListsAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newListPair(t)
		begun, goOn := make(chan struct{}), make(chan struct{})
		p.meet = func(string) {
			begun <- struct{}{}
			<-goOn
		}
		var group sync.WaitGroup
		ask := func() {
			group.Go(func() {
				if keys, failed := p.query(); failed || len(keys.Devices) != 1 {
					t.Errorf("the keys are %v, failed is %v", keys, failed)
				}
			})
		}
		ask()
		<-begun
		for range 5 {
			ask()
		}
		synctest.Wait() // all wait for the one answer
		close(goOn)
		group.Wait()
		if p.asked[http.MethodPost] != 1 {
			t.Errorf("asked %v", p.asked)
		}
	})
}

// The changes of a user are told in a chain, each device once.
func TestDeviceUpdates(t *testing.T) {
	p := newListPair(t)
	_, start := p.updates(0)
	p.device("A", "phone", "1")
	p.device("B", "", "")
	p.crossSigning("1")
	_, middle := p.updates(0)
	p.device("A", "phone", "2")
	p.there.must(p.there.store.Update(t.Context(), func(tx *store.Tx) error { return tx.DeleteDevice(p.zoe, "B") }))
	read := func(after store.Position) (all []string, prev [][]int64, ids []int64) {
		edus, _ := p.updates(after)
		for _, text := range edus {
			var e struct {
				Type    string       `json:"edu_type"`
				Content deviceUpdate `json:"content"`
			}
			p.here.must(json.Unmarshal(text, &e))
			if e.Type != typeDeviceUpdate {
				all = append(all, e.Type)
				continue
			}
			all = append(all, fmt.Sprint(e.Content.DeviceID, " ", e.Content.Deleted, " ", len(e.Content.Keys) > 0))
			prev, ids = append(prev, e.Content.PrevID), append(ids, e.Content.StreamID)
		}
		return all, prev, ids
	}
	all, prev, ids := read(start)
	if !slices.Equal(all, []string{"A false true", "B true false", typeSigningKeys}) {
		t.Errorf("told of %q", all)
	}
	if len(prev) != 2 || len(prev[0]) != 1 || prev[0][0] > int64(start) || !slices.Equal(prev[1], ids[:1]) {
		t.Errorf("the chain is %v, relative to %v", ids, prev)
	}
	if all, _, _ := read(middle); !slices.Equal(all, []string{"A false true", "B true false"}) {
		t.Errorf("told of %q behind the middle", all)
	}
	for i := range maxUpdates + 5 {
		p.device(matrix.DeviceID(fmt.Sprintf("X%03d", i)), "", "1")
	}
	if all, prev, _ := read(start); len(all) != maxUpdates+1 || len(prev[0]) != 1 || prev[0][0] <= int64(middle) {
		t.Errorf("told of %d changes, the first relative to %v", len(all), prev[0])
	}
}
