package server

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

// An identityServer says whose an address is, and whether its key still holds.
type identityServer struct {
	t     *testing.T
	addr  netip.Addr
	key   matrix.SigningKey
	holds bool
	asked []string // about which keys
}

// identify starts an identity server on the fabric. stop ends it.
func (f *fabric) identify(t *testing.T, addr string) (i *identityServer, stop func()) {
	i = &identityServer{
		t: t, addr: netip.MustParseAddr(addr), holds: true,
		key: matrix.SigningKey{ID: "ed25519:0", Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat("i", 32)))},
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked = append(i.asked, r.URL.Query().Get("public_key"))
		fmt.Fprintf(w, `{"valid":%t}`, i.holds)
	})}
	listener := f.listen(t, i.addr)
	go func() { _ = web.Serve(listener) }()
	return i, func() { _ = web.Close() }
}

func (i *identityServer) public() string {
	return base64.RawStdEncoding.EncodeToString(i.key.Private.Public().(ed25519.PublicKey))
}

// offer is the content of an invite by address.
func (i *identityServer) offer() map[string]any {
	return map[string]any{"display_name": "c...@e...", "key_validity_url": fmt.Sprintf("https://%s/valid", i.addr), "public_key": i.public()}
}

// proof is the body of a join by who was invited by address.
func (i *identityServer) proof(user, sender, token string) map[string]any {
	signed, err := matrix.SignJSON(fmt.Appendf(nil, `{"mxid":%q,"sender":%q,"token":%q}`, user, sender, token), i.addr.String(), i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return map[string]any{"third_party_signed": json.RawMessage(signed)}
}

// expect says that the server was asked about its key so often since the last time.
func (i *identityServer) expect(times int) {
	i.t.Helper()
	if !slices.Equal(i.asked, slices.Repeat([]string{i.public()}, times)) {
		i.t.Errorf("asked about %q", i.asked)
	}
	i.asked = nil
}

// Somebody who was invited by address joins from a server that is not in the room: the
// server of who invited makes an invite of the proof, once the identity server has said
// that its key still holds. The next one of that server is invited within the room.
func TestInviteByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFabric(t, 1)
		f.settle()
		identity, stop := f.identify(t, "10.0.1.1")
		defer stop()
		var users []*inhabitant
		for n := range 2 {
			at := newSimulated(t, f, n, 0)
			at.start()
			defer at.end()
			users = append(users, inhabit(t, at, "u"), inhabit(t, at, "v"))
		}
		alice, carol, dave := users[0], users[2], users[3]
		var made struct {
			Room string `json:"room_id"`
		}
		alice.must("POST", "/createRoom", map[string]any{"preset": "private_chat"}, &made)
		in := "/rooms/" + url.PathEscape(made.Room)
		for _, token := range []string{"one", "two"} {
			alice.must("PUT", in+"/state/m.room.third_party_invite/"+token, identity.offer(), nil)
		}
		join := func(user *inhabitant, token string) int {
			return user.ask("POST", "/join/"+url.PathEscape(made.Room), identity.proof(user.id, alice.id, token), nil)
		}

		identity.holds = false
		if status := join(carol, "one"); status != http.StatusForbidden {
			t.Errorf("with a key that was revoked: %d", status)
		}
		identity.expect(1)
		identity.holds = true
		if status := join(carol, "three"); status != http.StatusForbidden {
			t.Errorf("with a proof of no invite: %d", status)
		}
		identity.expect(0)
		for n, token := range []string{"one", "two"} {
			if status := join(users[2+n], token); status != http.StatusOK {
				t.Errorf("with the proof of %s: %d", token, status)
			}
			identity.expect(1)
		}
		time.Sleep(time.Hour)
		for _, user := range []*inhabitant{alice, carol, dave} {
			var joined struct{ Joined map[string]any }
			user.must("GET", in+"/joined_members", nil, &joined)
			if len(joined.Joined) != 3 || joined.Joined[carol.id] == nil || joined.Joined[dave.id] == nil {
				t.Errorf("%s has %v", user.id, joined.Joined)
			}
		}
	})
}
