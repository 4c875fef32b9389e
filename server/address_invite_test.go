package server

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hearth/state/matrix"
)

// Somebody who was invited by address joins from a server that is not in the room: the
// server of who invited makes an invite of the proof, once the identity server has said
// that its key still holds. The next one of that server is invited within the room.
func TestInviteByAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFabric(t, 1)
		f.settle()
		var at [3]*simulated
		var users [3]*inhabitant
		for n := range at {
			at[n] = newSimulated(t, f, n, 0)
			at[n].start()
			defer at[n].end()
			users[n] = inhabit(t, at[n], "u")
		}
		alice, bob := users[0], users[1]
		key := matrix.SigningKey{ID: "ed25519:0", Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat("i", 32)))}
		public := base64.RawStdEncoding.EncodeToString(key.Private.Public().(ed25519.PublicKey))
		holds := true
		var asked []string
		listener := f.listen(t, netip.MustParseAddr("10.0.1.1"))
		web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.Query().Get("public_key"))
			fmt.Fprintf(w, `{"valid":%t}`, holds)
		})}
		go func() { _ = web.Serve(listener) }()
		defer func() { _ = web.Close() }()

		must := func(what string, status int) {
			t.Helper()
			if status != http.StatusOK {
				t.Fatalf("%s: %d", what, status)
			}
		}
		var made struct {
			Room string `json:"room_id"`
		}
		must("create", alice.ask("POST", "/createRoom", map[string]any{"preset": "private_chat", "invite": []string{bob.id}}, &made))
		in := "/rooms/" + url.PathEscape(made.Room)
		must("join", bob.ask("POST", in+"/join", map[string]any{}, nil))
		for _, token := range []string{"one", "two"} {
			must("invite", alice.ask("PUT", in+"/state/m.room.third_party_invite/"+token, map[string]any{
				"display_name": "c...@e...", "key_validity_url": "https://10.0.1.1/valid", "public_key": public,
			}, nil))
		}
		time.Sleep(time.Minute)

		join := func(user *inhabitant, token, sender string) int {
			signed, err := matrix.SignJSON(fmt.Appendf(nil, `{"mxid":%q,"sender":%q,"token":%q}`, user.id, sender, token), "10.0.1.1", key)
			if err != nil {
				t.Fatal(err)
			}
			var proof map[string]any
			if err := json.Unmarshal(signed, &proof); err != nil {
				t.Fatal(err)
			}
			body := map[string]any{"third_party_signed": proof}
			return user.ask("POST", "/join/"+url.PathEscape(made.Room)+"?via="+string(at[1].name()), body, nil)
		}
		carol, dave := users[2], inhabit(t, at[2], "v")
		holds = false
		if status := join(carol, "one", alice.id); status != http.StatusForbidden || len(asked) == 0 {
			t.Errorf("with a key that was revoked: %d, asked %q", status, asked)
		}
		holds, asked = true, nil
		if status := join(carol, "three", alice.id); status != http.StatusForbidden || len(asked) > 0 {
			t.Errorf("with a proof of no invite: %d, asked %q", status, asked)
		}
		must("join by the server of who invited", join(carol, "one", alice.id))
		if len(asked) != 1 || asked[0] != public {
			t.Errorf("asked %q", asked)
		}
		asked = nil
		must("join of the server's second user", join(dave, "two", alice.id))
		if len(asked) != 1 {
			t.Errorf("asked %q", asked)
		}
		time.Sleep(time.Hour)
		for n, user := range []*inhabitant{alice, bob, dave} {
			var joined struct{ Joined map[string]any }
			must("members", user.ask("GET", in+"/joined_members", nil, &joined))
			if len(joined.Joined) != 4 || joined.Joined[carol.id] == nil || joined.Joined[dave.id] == nil {
				t.Errorf("server %d has %v", n, joined.Joined)
			}
		}
	})
}
