package remote

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// liar is the server that lies here, victim one whose name it uses, and absent one of
// which it tells as a notary.
const (
	liar   = matrix.ServerName("lie.hostile.test:8448")
	victim = matrix.ServerName("victim.hostile.test:8448")
	absent = matrix.ServerName("other.test")
)

// liarKey is the liar's key. forgedKey goes by the same ID, and absentKey is absent's.
var liarKey, forgedKey, absentKey = seedKey("ed25519:liar", 66), seedKey("ed25519:liar", 67), seedKey("ed25519:a", 68)

// A lie is an answer in good form that must not be believed, or one that may.
type lie struct {
	name string
	text []byte
}

// lyingEvents are events of a room version that the liar must not make, and at the end
// one that it may.
func lyingEvents(t *testing.T, version string) []lie {
	now := time.Now()
	v, _ := matrix.VersionByID(version)
	good := eventFrom(t, version, liar, liarKey, now).JSON()
	both, err := matrix.SignEvent(v, eventFrom(t, version, ourName, forgedKey, now).JSON(), liar, liarKey)
	if err != nil {
		t.Fatal(err)
	}
	lies := []lie{
		{"signed by nobody", []byte(strings.Replace(string(good), `"signatures":{"lie.`, `"signatures":{"lee.`, 1))},
		{"signed with another key", eventFrom(t, version, liar, forgedKey, now).JSON()},
		{"signed with an unknown key", eventFrom(t, version, liar, seedKey("ed25519:x", 66), now).JSON()},
		{"in the name of another server", eventFrom(t, version, victim, liarKey, now).JSON()},
		{"in our name", eventFrom(t, version, ourName, liarKey, now).JSON()},
		{"in our name, and signed by the liar, too", both},
	}
	if v.EventIDs == matrix.EventIDGiven {
		lies = append(lies, lie{"under an ID of another server", chosen(t, v, "$x:"+string(victim), "@u:"+string(liar), "", liarKey)})
	}
	return append(lies, lie{"honest", good})
}

// chosen makes an event of version 1 or 2 with the ID of the liar's choice, which cites
// what it likes.
func chosen(t *testing.T, v *matrix.Version, id, sender, cites string, key matrix.SigningKey) []byte {
	t.Helper()
	var cited []string
	for _, c := range strings.Fields(cites) {
		cited = append(cited, fmt.Sprintf(`[%q,{}]`, c))
	}
	pdu := fmt.Sprintf(`{"auth_events":[%s],"content":{"body":"x"},"depth":5,"event_id":%q,"origin_server_ts":%d,"prev_events":[],`+
		`"room_id":%q,"sender":%q,"type":"m.room.message"}`, strings.Join(cited, ","), id, time.Now().UnixMilli(), hostileRoom, sender)
	signed, err := matrix.HashAndSign(v, []byte(pdu), matrix.UserID(sender).Server(), key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// lyingKeys are answers about keys that the liar must not give.
func lyingKeys(t *testing.T) []lie {
	until := time.Now().Add(time.Hour)
	good := string(keyAnswerOf(t, liar, until, nil, liarKey))
	return []lie{
		{"signed by nobody", []byte(strings.Replace(good, `"signatures":{"lie.`, `"signatures":{"lee.`, 1))},
		{"signed with another key", []byte(strings.Replace(good, publicOf(liarKey), publicOf(forgedKey), 1))},
		{"the keys of another server", keyAnswerOf(t, victim, until, nil, liarKey)},
		{"our keys", keyAnswerOf(t, ourName, until, nil, liarKey)},
		{"honest", []byte(good)},
	}
}

// lyingNotary are answers about other servers' keys that the liar must not give.
func lyingNotary(t *testing.T) []lie {
	until := time.Now().Add(time.Hour)
	vouch := func(text string, key matrix.SigningKey) []byte {
		signed, err := matrix.SignJSON([]byte(text), string(liar), key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	good := string(keyAnswerOf(t, absent, until, nil, absentKey))
	return []lie{
		{"not signed by the notary", []byte(good)},
		{"signed by the notary with another key", vouch(good, forgedKey)},
		{"not signed by the server", vouch(strings.Replace(good, `"signatures":{"other.`, `"signatures":{"othar.`, 1), liarKey)},
		{"signed by the server with another key", vouch(strings.Replace(good, publicOf(absentKey), publicOf(forgedKey), 1), liarKey)},
		{"of a server that nobody asked for", vouch(string(keyAnswerOf(t, victim, until, nil, absentKey)), liarKey)},
		{"of us", vouch(string(keyAnswerOf(t, ourName, until, nil, absentKey)), liarKey)},
		{"honest", vouch(good, liarKey)},
	}
}

// What is wrongly signed counts as nothing, whatever request it answers, and no key is
// believed to be a server's without that server. The same request is answered honestly
// in the end, and believed.
//
// Where what else a server may lie about is proven, by request; what is not named
// carries no signature, cannot contradict itself or leads to nothing:
//
//	well-known              in a ring: TestDelegationLeadsBack, TestWellKnownRedirects
//	key/v2/server           contradicting: TestParseServerKeys
//	key/v2/query            contradicting: TestNotaries
//	get_missing_events      other rooms, under the ID of another, on each other: state.TestHostileAnswers
//	event                   another than was asked for, citing each other: state.TestHostileAnswers
//	state_ids               two in one place, other rooms, no creates: state.TestHostileAnswers;
//	                        two creates: state.TestRejectedEventsAreInNoGivenState
//	backfill                other rooms, on each other: state.TestBackfillTakesWhatItNeeds
//	timestamp_to_event      another time or room than it says: client.TestLyingTimes
//	make_join, _knock,      for another user, room, version or membership: TestProposals, FuzzProposal
//	  _leave
//	send_join               wrongly signed: TestJoinHostileAnswers, TestJoinRestricted; two creates, one
//	                        place twice, other rooms: TestJoinContradictions; citing each other: TestJoinOfCircles
//	send_knock              both: state.TestMSC4311Faults
//	invite v1, v2           both: TestInvite
//	policy sign             wrongly signed: state.TestPolicySend
//	query/directory         contradicting: TestReadAlias
//	hierarchy               another room, a child twice: state.TestReadSpaceAnswer; spaces in each other:
//	                        state.TestHierarchyElsewhere
//	user/devices,           of other users and devices, wrongly signed: TestHostileKeyAnswers
//	  keys/query
//	keys/claim              of other users and devices: TestClaimAnswers
//	media                   a redirect that goes on: TestMedia, FuzzMediaLocation
//	send, send_leave, exchange_third_party_invite: the status alone is read
func TestLyingAnswers(t *testing.T) {
	for _, tt := range []struct {
		request, version string
		form             string // of the answer
		lies             func(*testing.T) []lie
	}{
		{"get_missing_events", "10", `{"events":[%s]}`, nil},
		{"get_missing_events", "1", `{"events":[%s]}`, nil},
		{"backfill", "12", `{"pdus":[%s]}`, nil},
		{"backfill", "2", `{"pdus":[%s]}`, nil},
		{"event", "11", `{"pdus":[%s]}`, nil},
		{"event", "1", `{"pdus":[%s]}`, nil},
		{"key/v2/server", "10", "%s", lyingKeys},
		{"key/v2/query", "10", `{"server_keys":[%s]}`, lyingNotary},
	} {
		t.Run(tt.request+"/"+tt.version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, stop := openHostileWorld(t)
				defer stop()
				w.version, _ = matrix.VersionByID(tt.version)
				w.name(liar)
				w.name(victim)
				if tt.lies == nil {
					tt.lies = func(t *testing.T) []lie { return lyingEvents(t, tt.version) }
				}
				if tt.request != "key/v2/server" {
					w.host.good = map[string]string{"/_matrix/key/v2/server": string(keyAnswerOf(t, liar, time.Now().Add(time.Hour), nil, liarKey))}
				}
				q := hostileRequests[slices.IndexFunc(hostileRequests, func(q hostileRequest) bool { return q.name == tt.request })]
				position := w.store.Position()
				for _, l := range tt.lies(t) {
					time.Sleep(time.Minute) // for whom keys are asked again
					w.host.become(func(to *hostileWriter) { to.whole(fmt.Sprintf(tt.form, l.text)) })
					got := w.measure(t, l.name, q.within, func() asked { return q.ask(w, liar) })
					believed := got.took > 0
					switch tt.request {
					case "key/v2/server":
						believed = got.err == nil || w.knowsKey(t, liar, liarKey)
					case "key/v2/query":
						believed = w.knowsKey(t, absent, absentKey)
					}
					if believed != (l.name == "honest") {
						t.Errorf("%s: believed %t, %+v", l.name, believed, got)
					}
				}
				for _, server := range []matrix.ServerName{victim, ourName} {
					for _, key := range []matrix.SigningKey{liarKey, absentKey} {
						if w.knowsKey(t, server, key) {
							t.Errorf("the key %s is one of %s", key.ID, server)
						}
					}
				}
				w.nothingLeft(t, position, false)
			})
		})
	}
}

// knowsKey says whether a server is believed to have a key of that ID.
func (w *hostileWorld) knowsKey(t *testing.T, server matrix.ServerName, key matrix.SigningKey) (known bool) {
	t.Helper()
	if err := w.store.View(func(tx *store.Tx) error {
		_, err := tx.VerifyKey(server, key.ID)
		known = err == nil
		return nil
	}); err != nil {
		t.Error(err)
	}
	return known
}
