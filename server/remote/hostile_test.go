package remote

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/e2ee"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// asked is what came of a request: how many things were taken of the answer.
type asked struct {
	took int
	err  error
}

// hostileWorld is our server and one that is hostile.
type hostileWorld struct {
	*testNetwork
	host    *hostileHost
	rooms   *state.Rooms
	version *matrix.Version // of the room that is asked about
	joiner  *Joiner
	lists   *DeviceLists
	bob     matrix.UserID
	ctx     context.Context // of the request
	// streams: its answer may be long, and is allocated piece by piece.
	streams bool
	blind   bool   // nobody looks at its answer, but for the status
	base    uint64 // the memory in use before the first request
}

const hostileRoom = matrix.RoomID("!room:hostile.test")

// A hostileRequest is one that we make to other servers.
type hostileRequest struct {
	name   string
	within time.Duration     // it must be over
	empty  bool              // an answer that says nothing is no error to it
	good   map[string]string // what is answered well before, by the beginning of the path
	lists  []string          // that an answer has
	ask    func(w *hostileWorld, dest matrix.ServerName) asked
}

// hostileRequests are all of them.
var hostileRequests = []hostileRequest{
	{name: "well-known", within: wellKnownTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		var h store.Host
		w.delegate(w.ctx, matrix.ServerName(dest.Host()), &h)
		if h.Failures == 0 {
			return asked{took: 1}
		}
		return asked{0, ErrUnreachable}
	}},
	{name: "key/v2/server", within: keyTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		return asked{0, w.fetchKeys(w.ctx, dest, true)}
	}},
	{name: "key/v2/query", lists: []string{"server_keys"}, within: keyTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		err := w.askNotary(w.ctx, dest, keyQuery{map[matrix.ServerName]map[string]keyCriteria{"other.test": {"ed25519:a": {}}}})
		return asked{0, err}
	}, empty: true},
	{name: "get_missing_events", lists: []string{"events"}, within: 2 * missingTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) (a asked) {
		a.err = w.Source(w.version, dest).Missing(w.ctx, state.MissingEvents{Room: hostileRoom, Latest: []matrix.EventID{"$a"}, Limit: 10}, func(*matrix.Event) error { a.took++; return nil })
		return a
	}, empty: true},
	{name: "event", lists: []string{"pdus"}, within: eventTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) (a asked) {
		a.err = w.Source(w.version, dest).Events(w.ctx, hostileRoom, []matrix.EventID{"$a", "$b"}, func(*matrix.Event) error { a.took++; return nil })
		return a
	}, empty: true},
	{name: "state_ids", lists: []string{"pdu_ids"}, within: stateIDsTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) (a asked) {
		a.err = w.Source(w.version, dest).StateIDs(w.ctx, hostileRoom, "$a", func(matrix.EventID) error { a.took++; return nil })
		return a
	}, empty: true},
	{name: "backfill", lists: []string{"pdus"}, within: backfillTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) (a asked) {
		a.err = w.Backfill(w.ctx, w.version, dest, hostileRoom, "$a", 10, func(*matrix.Event) error { a.took++; return nil })
		return a
	}, empty: true},
	{name: "timestamp_to_event", within: backfillTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		id, _, err := w.EventByTimestamp(w.ctx, dest, hostileRoom, 7, true)
		return asked{len(id), err}
	}},
	{name: "make_join", within: makeTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked { return w.join(dest) }},
	{name: "send_join", lists: []string{"state", "auth_chain"}, within: sendTimeout + 2*streamStall, good: hostileProposal("10", "join"), ask: func(w *hostileWorld, dest matrix.ServerName) asked { return w.join(dest) }},
	{name: "make_knock", within: makeTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked { return w.knock(dest) }},
	{name: "send_knock", lists: []string{"knock_room_state"}, within: 2 * makeTimeout, good: hostileProposal("10", "knock"), ask: func(w *hostileWorld, dest matrix.ServerName) asked { return w.knock(dest) }, empty: true},
	{name: "make_leave", within: makeTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked { return w.leave(dest) }},
	{name: "send_leave", within: 2 * makeTimeout, good: hostileProposal("10", "leave"), ask: func(w *hostileWorld, dest matrix.ServerName) asked { return w.leave(dest) }, empty: true},
	{name: "invite v2", within: defaultTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked { return w.invite(dest, "10") }},
	{name: "invite v1", within: 2 * defaultTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked { return w.invite(dest, "1") }},
	{name: "policy sign", within: policyTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		got, err := w.SignByPolicy(w.ctx, dest, w.event("10", "m.room.message", nil, `{}`))
		return asked{len(got), err}
	}, empty: true},
	{name: "query/directory", lists: []string{"servers"}, within: askTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		room, _, err := w.Alias(w.ctx, matrix.RoomAlias("#a:"+dest))
		return asked{len(room), err}
	}},
	{name: "query/profile", within: askTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		_, err := w.Profile(w.ctx, matrix.UserID("@a:"+dest))
		return asked{0, err}
	}, empty: true},
	{name: "publicRooms", lists: []string{"chunk"}, within: askTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		page, err := w.PublicRooms(w.ctx, dest, PublicRoomsRequest{})
		return asked{len(page.Chunk), err}
	}, empty: true},
	{name: "hierarchy", lists: []string{"children", "inaccessible_children"}, within: spaceTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		_, _, err := w.Space(w.ctx, matrix.RoomID("!"+dest.Host()+":hostile.test"), []matrix.ServerName{dest})
		return asked{0, err}
	}},
	{name: "user/devices", lists: []string{"devices"}, within: defaultTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		f, err := w.lists.askDevices(w.ctx, wantedKeys{user: matrix.UserID("@a:" + dest)})
		return asked{len(f.devices), err}
	}},
	{name: "keys/query", within: defaultTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		user := matrix.UserID("@a:" + dest)
		found, err := w.lists.Query(w.ctx, map[matrix.UserID][]matrix.DeviceID{user: nil})
		if err != nil {
			return asked{0, err}
		}
		return asked{len(found.Users[user].Devices), found.Failed[dest]}
	}, empty: true},
	{name: "keys/claim", within: defaultTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		got, failed := w.lists.Claim(w.ctx, e2ee.Claims{matrix.UserID("@a:" + dest): {"D": "signed_curve25519"}})
		return asked{len(got), failed[dest]}
	}, empty: true},
	{name: "media", within: mediaTimeout + 2*streamStall, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		file, err := w.Media(w.ctx, dest, "abc", MediaQuery{MaxBytes: 1 << 20})
		if err != nil {
			return asked{0, err}
		}
		n, err := io.Copy(io.Discard, file.Body)
		if n > 1<<20 {
			err = nil
		}
		file.Body.Close()
		return asked{0, err}
	}},
	{name: "send", within: transactionTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		var answer struct {
			PDUs map[matrix.EventID]struct {
				Error string `json:"error"`
			} `json:"pdus"`
		}
		err := w.Do(w.ctx, dest, Request{Method: "PUT", Path: "/_matrix/federation/v1/send/1", Body: jsontext.Value("{}"), Timeout: transactionTimeout}, &answer)
		return asked{0, err} // what it says of which event is logged
	}, empty: true},
	{name: "exchange_third_party_invite", within: defaultTimeout, ask: func(w *hostileWorld, dest matrix.ServerName) asked {
		return asked{0, w.Do(w.ctx, dest, Request{Method: "PUT", Path: "/_matrix/federation/v1/exchange_third_party_invite/!a:b", Body: jsontext.Value("{}")}, nil)}
	}, empty: true},
}

// hostileProposal is a good answer to make_join and its like.
func hostileProposal(version, membership string) map[string]string {
	return map[string]string{"/_matrix/federation/v1/make_": fmt.Sprintf(
		`{"room_version":%q,"event":{"type":"m.room.member","room_id":%q,"sender":"@bob:here.example","state_key":"@bob:here.example",`+
			`"content":{"membership":%q},"depth":7,"prev_events":["$a"],"auth_events":["$b"]}}`, version, hostileRoom, membership)}
}

func (w *hostileWorld) join(dest matrix.ServerName) asked {
	return asked{0, w.joiner.Join(w.ctx, state.Join{Room: hostileRoom, User: w.bob}, []matrix.ServerName{dest})}
}

func (w *hostileWorld) knock(dest matrix.ServerName) asked {
	return asked{0, w.joiner.Knock(w.ctx, state.Join{Room: hostileRoom, User: w.bob}, []matrix.ServerName{dest})}
}

func (w *hostileWorld) leave(dest matrix.ServerName) asked {
	_, err := w.joiner.leaveAt(w.ctx, hostileRoom, w.bob, "", []matrix.ServerName{dest})
	return asked{0, err}
}

func (w *hostileWorld) invite(dest matrix.ServerName, version string) asked {
	user := "@a:" + string(dest)
	got, err := w.Invite(w.ctx, w.event(version, "m.room.member", &user, `{"membership":"invite"}`), nil)
	return asked{len(got), err}
}

// event is one of bob's.
func (w *hostileWorld) event(version, typ string, key *string, content string) *matrix.Event {
	v, _ := matrix.VersionByID(version)
	draft := matrix.Draft{Room: hostileRoom, Sender: w.bob, Type: typ, StateKey: key, Content: jsontext.Value(content), OriginServerTS: 1}
	ev, err := draft.Build(v, matrix.Placing{Prev: []matrix.EventID{"$a:b"}, Auth: []matrix.EventID{"$b:b"}, Depth: 2}, ourName, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return ev
}

// openHostileWorld runs our server beside a hostile one, at ports 443 and 8448 of every
// name in hostile.test.
func openHostileWorld(t *testing.T) (w *hostileWorld, stop func()) {
	i := newInternet(t)
	dir := t.TempDir()
	w = &hostileWorld{testNetwork: openNetwork(t, i, dir, nil), host: &hostileHost{t: t}, bob: "@bob:here.example"}
	w.version, _ = matrix.VersionByID("10")
	stopHost := w.host.serve(i, "10.6.6.6:8448", "*.hostile.test")
	stopWeb := w.host.serve(i, "10.6.6.6:443", "*.hostile.test")
	w.rooms = state.New(state.Config{Store: w.store, Server: ourName, Key: w.key})
	w.joiner = NewJoiner(JoinerConfig{Network: w.Network, Store: w.store, Rooms: w.rooms, Dir: filepath.Join(dir, "joins")})
	w.lists = NewDeviceLists(DeviceListsConfig{Store: w.store, Ask: w.Do})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.joiner.Run(ctx) }()
	w.base = inUse()
	return w, func() {
		cancel()
		<-done
		w.stop()
		stopHost()
		stopWeb()
	}
}

// Whatever a server does instead of answering, each of our requests ends in its time,
// with an error or with nothing taken, in little memory, and leaves nothing behind. With
// -short each request meets some of it.
func TestHostileAnswers(t *testing.T) {
	for number, q := range hostileRequests {
		t.Run(q.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, stop := openHostileWorld(t)
				w.host.good = q.good
				w.streams = slices.Contains([]string{"get_missing_events", "backfill", "state_ids", "send_join"}, q.name)
				w.blind = slices.Contains([]string{"send_leave", "exchange_third_party_invite"}, q.name)
				position := w.store.Position()
				for k, h := range append(slices.Clip(hostilities), endlessLists(q.lists...)...) {
					switch {
					case testing.Short() && k%8 != number%8:
						continue
					case w.streams && strings.HasPrefix(h.name, "endless members"):
						continue // to these it is no other than an endless list, and long
					}
					name := fmt.Sprintf("h%d.hostile.test", k)
					w.host.become(h.answer)
					w.name(matrix.ServerName(name))
					w.provoke(t, h.name, q.within, q.empty, func() asked { return q.ask(w, matrix.ServerName(name+":8448")) })
				}
				w.nothingLeft(t, position, q.name == "send_join" || q.name == "send_knock")
				stop()
			})
		})
	}
}

// name has the hostile server be found by a name.
func (w *hostileWorld) name(server matrix.ServerName) {
	w.internet.mu.Lock()
	defer w.internet.mu.Unlock()
	w.addrs[server.Host()] = []string{"10.6.6.6"}
}

// nothingLeft says that requests have left nothing behind. Where they may tell users,
// the stream may have grown.
func (w *hostileWorld) nothingLeft(t *testing.T, position store.Position, tells bool) {
	t.Helper()
	time.Sleep(5 * time.Minute) // for connections that idle
	synctest.Wait()
	files, err := os.ReadDir(filepath.Join(w.store.Dir(), "joins"))
	if len(files) > 0 {
		t.Errorf("%d files are left, %v", len(files), err)
	}
	if !tells && w.store.Position() != position {
		t.Errorf("the stream has grown from %d to %d", position, w.store.Position())
	}
	err = w.store.View(func(tx *store.Tx) error {
		return tx.Joins(func(j store.RoomJoin) (bool, error) {
			t.Errorf("a join is left: %+v", j)
			return true, nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

// Bounds of what one answer may cost.
const (
	hostileHeap = 12 << 20 // bytes in use at a time
	hostileSum  = 96 << 20 // bytes allocated in all, of what is no stream
)

// provoke makes one request that must bring nothing.
func (w *hostileWorld) provoke(t *testing.T, hostility string, within time.Duration, empty bool, ask func() asked) {
	t.Helper()
	got := w.measure(t, hostility, within, ask)
	if got.took > 0 || got.err == nil && !w.blind && !(empty && silent(hostility)) {
		t.Errorf("%s: took %d, %v", hostility, got.took, got.err)
	}
}

// measure makes one request and looks at what it has cost.
func (w *hostileWorld) measure(t *testing.T, hostility string, within time.Duration, ask func() asked) asked {
	t.Helper()
	w.host.begin()
	var cancel context.CancelFunc
	w.ctx, cancel = context.WithTimeout(t.Context(), 24*time.Hour)
	defer cancel()
	began := time.Now()
	got := ask()
	if took := time.Since(began); took > within+time.Second {
		t.Errorf("%s: it took %v", hostility, took)
	}
	peak, sum := w.host.cost()
	if sum > hostileSum && !w.streams {
		t.Errorf("%s: %d MiB were allocated", hostility, sum>>20)
	}
	if peak > w.base+hostileHeap {
		t.Errorf("%s: %d MiB were in use", hostility, (peak-w.base)>>20)
	}
	return got
}

// silent says whether a hostility may be taken for an answer that says nothing.
func silent(hostility string) bool {
	switch hostility {
	case "null", "deep within", "no Unicode", "two", "endless trailers", "endless refusal", "no content":
		return true
	}
	return strings.HasPrefix(hostility, "all is ")
}
