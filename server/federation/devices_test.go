package federation

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// keyHouse is a server with a user, bob, who has a device with keys and one without.
func keyHouse(t testing.TB) (s *Server, bobNum store.UserNum) {
	t.Helper()
	st, err := store.Open(t.TempDir(), here, store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Check(t.Context(), func(fault string) { t.Error(fault) }); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	err = st.Update(t.Context(), func(tx *store.Tx) (err error) {
		if bobNum, err = tx.CreateAccount(bob, store.Account{}); err != nil {
			return err
		}
		for _, id := range []matrix.DeviceID{"PHONE", "TOASTER"} {
			if err := tx.PutDevice(bobNum, store.Device{ID: id, Name: "Bob's", Created: time.Unix(1, 0)}); err != nil {
				return err
			}
		}
		keys := `{"user_id":"@bob:here.test","device_id":"PHONE","algorithms":[],"keys":{},"signatures":{}}`
		if err := tx.PutDeviceKeys(bobNum, "PHONE", []byte(keys)); err != nil {
			return err
		}
		oneTime := []store.OneTimeKey{{Algorithm: "signed_curve25519", ID: "1", JSON: []byte(`{"key":"k"}`)}}
		if err := tx.AddOneTimeKeys(bobNum, "PHONE", oneTime); err != nil {
			return err
		}
		cross := make(map[store.Usage]store.CrossSigningKey)
		for _, usage := range store.Usages {
			cross[usage] = store.CrossSigningKey{Public: "P" + string(usage), JSON: []byte(fmt.Sprintf(`{"usage":[%q]}`, usage))}
		}
		if err := tx.PutCrossSigningKeys(bobNum, cross); err != nil {
			return err
		}
		// What bob signs about others is nobody's business, what he signs about himself
		// is everybody's.
		return tx.PutKeySignatures(bobNum, []store.KeySignature{
			{Target: bobNum, Key: "PHONE", KeyID: "ed25519:Pself_signing", Signature: "s1"},
			{Target: bobNum, Key: "Pmaster", KeyID: "ed25519:PHONE", Signature: "s2"},
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return &Server{store: st, limits: new(api.Limiter)}, bobNum
}

// call has a handler answer a request of another server.
func call(s *Server, h handler, method, user, body string) (int, string) {
	r := httptest.NewRequest(method, "/", strings.NewReader(body))
	r.SetPathValue("userID", user)
	w := httptest.NewRecorder()
	if err := h(s, w, r, peer); err != nil {
		return http.StatusBadRequest, err.Error()
	}
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestKeysForOtherServers(t *testing.T) {
	s, num := keyHouse(t)
	var stream store.Position
	if err := s.store.View(func(tx *store.Tx) error {
		list, err := tx.DeviceList(num)
		stream = list.Device
		return err
	}); err != nil {
		t.Fatal(err)
	}
	device := `{"user_id":"@bob:here.test","device_id":"PHONE","algorithms":[],"keys":{},` +
		`"signatures":{"@bob:here.test":{"ed25519:Pself_signing":"s1"}},"unsigned":{"device_display_name":"Bob's"}}`
	master := `{"usage":["master"],"signatures":{"@bob:here.test":{"ed25519:PHONE":"s2"}}}`
	for _, tt := range []struct {
		name       string
		handle     handler
		user, body string
		status     int
		want       string
	}{
		{
			name: "devices", handle: (*Server).getUserDevices, user: string(bob), status: 200,
			want: fmt.Sprintf(`{"user_id":"@bob:here.test","stream_id":%d,"devices":[{"device_id":"PHONE","device_display_name":"Bob's","keys":%s}],`+
				`"master_key":%s,"self_signing_key":{"usage":["self_signing"]}}`, stream, device, master),
		},
		{name: "another server's user", handle: (*Server).getUserDevices, user: string(alice), status: 400},
		{name: "nobody", handle: (*Server).getUserDevices, user: "@nobody:here.test", status: 400},
		{name: "no user", handle: (*Server).getUserDevices, user: "x", status: 400},
		{
			name: "query", handle: (*Server).queryUserEncryptionKeys, status: 200,
			body: `{"device_keys":{"@bob:here.test":[],"@alice:peer.test":[],"@nobody:here.test":["X"]}}`,
			want: `{"device_keys":{"@bob:here.test":{"PHONE":` + device + `}},"master_keys":{"@bob:here.test":` + master +
				`},"self_signing_keys":{"@bob:here.test":{"usage":["self_signing"]}}}`,
		},
		{name: "query of nothing", handle: (*Server).queryUserEncryptionKeys, body: `{}`, status: 400},
		{
			name: "claim", handle: (*Server).claimUserEncryptionKeys, status: 200,
			body: `{"one_time_keys":{"@bob:here.test":{"PHONE":"signed_curve25519","NONE":"signed_curve25519"},"@alice:peer.test":{"X":"y"}}}`,
			want: `{"one_time_keys":{"@bob:here.test":{"PHONE":{"signed_curve25519:1":{"key":"k"}}}}}`,
		},
		{
			name: "claim again", handle: (*Server).claimUserEncryptionKeys, status: 200,
			body: `{"one_time_keys":{"@bob:here.test":{"PHONE":"signed_curve25519"}}}`,
			want: `{"one_time_keys":{}}`,
		},
		{name: "claim of nothing", handle: (*Server).claimUserEncryptionKeys, body: `{}`, status: 400},
	} {
		status, got := call(s, tt.handle, "POST", tt.user, tt.body)
		if status != tt.status || tt.want != "" && got != tt.want {
			t.Errorf("%s: %d\n%s\nwant %d\n%s", tt.name, status, got, tt.status, tt.want)
		}
	}
}

// FuzzKeyRequests has other servers ask for keys in any way.
func FuzzKeyRequests(f *testing.F) {
	s, _ := keyHouse(f)
	f.Add(string(bob), `{"device_keys":{"@bob:here.test":["PHONE"]},"one_time_keys":{"@bob:here.test":{"PHONE":"x"}}}`)
	f.Fuzz(func(_ *testing.T, user, body string) {
		for _, h := range []handler{(*Server).getUserDevices, (*Server).queryUserEncryptionKeys, (*Server).claimUserEncryptionKeys} {
			call(s, h, "POST", user, body)
		}
	})
}
