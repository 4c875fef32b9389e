package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// An identity server says whether its key holds; what says neither is no answer, and
// only HTTPS is asked.
func TestKeyHolds(t *testing.T) {
	for _, tt := range []struct {
		what, url, answer string
		status            int
		holds, told       bool
		asked             string
	}{
		{"a good key", "https://id.test/valid", `{"valid":true}`, 200, true, true, "/valid?public_key=a%2Bb"},
		{"a revoked key", "https://id.test/valid", `{"valid":false}`, 200, false, true, "/valid?public_key=a%2Bb"},
		{"a key it never had", "https://id.test/valid", `{"errcode":"M_NOT_FOUND"}`, 404, false, true, "/valid?public_key=a%2Bb"},
		{"another query", "https://id.test/?x=1&public_key=mine#x", `{"valid":true}`, 200, true, true, "/?public_key=a%2Bb&x=1"},
		{"nothing", "https://id.test/valid", `{}`, 200, false, false, "/valid?public_key=a%2Bb"},
		{"no boolean", "https://id.test/valid", `{"valid":"true"}`, 200, false, false, "/valid?public_key=a%2Bb"},
		{"a fault", "https://id.test/valid", `{"valid":true}`, 500, false, false, "/valid?public_key=a%2Bb"},
		{"too much", "https://id.test/valid", `{"valid":true,"x":"` + strings.Repeat("x", maxKeyHolds) + `"}`, 200, false, false, "/valid?public_key=a%2Bb"},
		{"no HTTPS", "http://id.test/valid", `{"valid":true}`, 200, false, false, ""},
		{"a password", "https://a:b@id.test/valid", `{"valid":true}`, 200, false, false, ""},
		{"no URL", "id.test", `{"valid":true}`, 200, false, false, ""},
		{"another host", "https://other.test/valid", `{"valid":true}`, 200, false, false, ""},
	} {
		i := newInternet(t)
		i.addrs["id.test"] = []string{"10.0.0.1"}
		var asked atomic.Value
		asked.Store("")
		i.serve("10.0.0.1:443", "id.test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Store(r.URL.String())
			w.WriteHeader(tt.status)
			fmt.Fprint(w, tt.answer)
		}))
		n := openNetwork(t, i, t.TempDir(), nil)
		holds, err := n.KeyHolds(t.Context(), tt.url, "a+b")
		if holds != tt.holds || (err == nil) != tt.told || err != nil && !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v, %v", tt.what, holds, err)
		}
		if asked.Load() != tt.asked {
			t.Errorf("%s: asked %s", tt.what, asked.Load())
		}
	}
}

// Who is silent about a key is not waited for for ever.
func TestKeyHoldsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInternet(t)
		i.addrs["id.test"] = []string{"10.0.0.1"}
		i.holes["10.0.0.1:443"] = true
		n := openNetwork(t, i, t.TempDir(), nil)
		defer n.stop()
		began := time.Now()
		_, err := n.KeyHolds(t.Context(), "https://id.test/valid", "key")
		if took := time.Since(began); !errors.Is(err, ErrUnreachable) || took > keyHoldsTimeout {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// A proof is shown to the server of who invited alone, once, and by who takes invites;
// that server is the first to join by.
func TestProofIsRedeemed(t *testing.T) {
	h := newHomestead(t, here)
	refusal := &Error{Server: there, Status: http.StatusForbidden, Code: "M_FORBIDDEN"}
	for _, tt := range []struct {
		what    string
		sender  matrix.UserID
		was     matrix.Membership
		blocks  bool
		answer  error
		asked   int
		servers []matrix.ServerName
		want    error
	}{
		{"taken", "@a:there.test", "", false, nil, 1, []matrix.ServerName{there, "other.test"}, nil},
		{"refused", "@a:there.test", "", false, refusal, 1, nil, refusal},
		{"invited before", "@a:there.test", matrix.Invite, false, nil, 0, []matrix.ServerName{"other.test"}, nil},
		{"by one of ours", "@a:here.test", "", false, nil, 0, []matrix.ServerName{"other.test"}, nil},
		{"of who takes no invites", "@a:there.test", "", true, nil, 0, nil, state.ErrInviteBlocked},
	} {
		user := matrix.UserID("@" + strings.ReplaceAll(tt.what, " ", "_") + ":" + string(here))
		h.must(h.store.Update(t.Context(), func(tx *store.Tx) error {
			num, err := tx.CreateOpenAccount(user, store.Account{})
			if err != nil {
				return err
			}
			room, err := tx.PutRoomNum("!far")
			if err == nil && tt.was != "" {
				err = tx.PutLocalMembership(num, store.LocalMembership{Room: room, Membership: tt.was})
			}
			if err == nil && tt.blocks {
				err = tx.PutAccountData(num, store.AccountData{Type: "m.invite_permission_config", Content: jsontext.Value(`{"default_action":"block"}`)})
			}
			return err
		}))
		asked := 0
		j := newJoiner(JoinerConfig{Store: h.store, Rooms: h.rooms})
		j.ask = func(_ context.Context, dest matrix.ServerName, q Request, _ any) error {
			if asked++; dest != there || !strings.HasSuffix(q.Path, "/exchange_third_party_invite/%21far") || !q.Insist {
				t.Errorf("%s: %s is asked for %s", tt.what, dest, q.Path)
			}
			return tt.answer
		}
		proof := &state.ThirdPartyProof{Room: "!far", Sender: tt.sender, User: user, Signed: jsontext.Value(`{}`)}
		servers, err := j.redeem(t.Context(), state.Join{Room: "!far", User: user, Proof: proof}, []matrix.ServerName{"other.test"})
		if !errors.Is(err, tt.want) || err == nil && !slices.Equal(servers, tt.servers) || asked != tt.asked {
			t.Errorf("%s: %v, %v, asked %d times", tt.what, servers, err, asked)
		}
	}
}
