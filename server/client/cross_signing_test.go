package client

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"hearth/server/e2ee"
	"hearth/state/matrix"
)

// testKey is a signing key of a test.
type testKey struct {
	public  string
	private ed25519.PrivateKey
}

func newTestKey(tb testing.TB) testKey {
	tb.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return testKey{base64.RawStdEncoding.EncodeToString(public), private}
}

// sign adds a user's signature with the key, under a name, to an object.
func (k testKey) sign(tb testing.TB, object, user, name string) string {
	tb.Helper()
	signed, err := matrix.SignJSON([]byte(object), user, matrix.SigningKey{ID: e2ee.SigningKeyPrefix + name, Private: k.private})
	if err != nil {
		tb.Fatal(err)
	}
	return string(signed)
}

// object returns the key as a cross-signing key of a user.
func (k testKey) object(user, usage string) string {
	return fmt.Sprintf(`{"user_id":%q,"usage":[%q],"keys":{"ed25519:%[3]s":%[3]q}}`, user, usage, k.public)
}

// signingUser is a user with one device and all cross-signing keys.
type signingUser struct {
	s                          *testServer
	id, token, deviceID        string
	device, master, self, user testKey
}

func newSigningUser(t *testing.T, s *testServer, name string) *signingUser {
	t.Helper()
	u := &signingUser{s: s, token: s.account(t, name, "secret"), id: "@" + name + ":" + string(testServerName), deviceID: strings.ToUpper(name)}
	u.device, u.master, u.self, u.user = newTestKey(t), newTestKey(t), newTestKey(t), newTestKey(t)
	u.post(t, "keys/upload", `{"device_keys":`+u.deviceKeys(t)+`}`, 200)
	return u
}

// post sends a request and fails the test on another status.
func (u *signingUser) post(t *testing.T, path, body string, status int) *httptest.ResponseRecorder {
	t.Helper()
	w := u.s.do("POST", "/_matrix/client/v3/"+path, u.token, body)
	if w.Code != status {
		t.Fatalf("%s: %d %s, want %d", path, w.Code, w.Body, status)
	}
	return w
}

func (u *signingUser) deviceKeys(t *testing.T) string {
	object := fmt.Sprintf(`{"user_id":%q,"device_id":%q,"algorithms":[],"keys":{"ed25519:%s":%q}}`,
		u.id, u.deviceID, u.deviceID, u.device.public)
	return u.device.sign(t, object, u.id, u.deviceID)
}

func (u *signingUser) masterKey() string { return u.master.object(u.id, "master") }
func (u *signingUser) selfKey(t *testing.T) string {
	return u.master.sign(t, u.self.object(u.id, "self_signing"), u.id, u.master.public)
}
func (u *signingUser) userKey(t *testing.T) string {
	return u.master.sign(t, u.user.object(u.id, "user_signing"), u.id, u.master.public)
}

func (u *signingUser) crossSigning(t *testing.T) string {
	return `{"master_key":` + u.masterKey() + `,"self_signing_key":` + u.selfKey(t) + `,"user_signing_key":` + u.userKey(t) + `}`
}

// keysOf returns what the user sees of a user's keys.
func (u *signingUser) keysOf(t *testing.T, user string) (keys seenKeys) {
	t.Helper()
	w := u.post(t, "keys/query", fmt.Sprintf(`{"device_keys":{%q:[]}}`, user), 200)
	if err := json.Unmarshal(w.Body.Bytes(), &keys); err != nil {
		t.Fatal(err)
	}
	return keys
}

// seenKeys are the signatures in an answer to keys/query.
type seenKeys struct {
	DeviceKeys  map[string]map[string]seenKey `json:"device_keys"`
	Master      map[string]seenKey            `json:"master_keys"`
	SelfSigning map[string]seenKey            `json:"self_signing_keys"`
	UserSigning map[string]seenKey            `json:"user_signing_keys"`
}

type seenKey struct {
	Signatures map[string]map[string]string `json:"signatures"`
}

func (k seenKey) signed(user, name string) bool {
	return k.Signatures[user][e2ee.SigningKeyPrefix+name] != ""
}

func TestCrossSigningUpload(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := newSigningUser(t, s, "alice")
	other := newTestKey(t)
	named := newTestKey(t)
	named.public = "ALICE"
	refused := []struct {
		name, body string
		status     int
		code       string
	}{
		{"no master key", `{"self_signing_key":` + alice.selfKey(t) + `}`, 400, "M_MISSING_PARAM"},
		{"nothing", `{}`, 400, "M_MISSING_PARAM"},
		{"another user's", `{"master_key":` + alice.master.object("@bob:hearth.test", "master") + `}`, 400, "M_INVALID_PARAM"},
		{"another usage", `{"master_key":` + alice.master.object(alice.id, "self_signing") + `}`, 400, "M_INVALID_PARAM"},
		{"no key", `{"master_key":` + named.object(alice.id, "master") + `}`, 400, "M_INVALID_PARAM"},
		{"not an object", `{"master_key":"text"}`, 400, "M_INVALID_PARAM"},
		{
			"signed by another key",
			`{"master_key":` + alice.masterKey() + `,"self_signing_key":` + other.sign(t, alice.self.object(alice.id, "self_signing"), alice.id, alice.master.public) + `}`,
			400, "M_INVALID_SIGNATURE",
		},
		{
			"not signed",
			`{"master_key":` + alice.masterKey() + `,"user_signing_key":` + alice.user.object(alice.id, "user_signing") + `}`,
			400, "M_INVALID_SIGNATURE",
		},
	}
	for _, tt := range refused {
		w := s.do("POST", "/_matrix/client/v3/keys/device_signing/upload", alice.token, tt.body)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.code) {
			t.Errorf("%s: %d %s, want %d %s", tt.name, w.Code, w.Body, tt.status, tt.code)
		}
	}
	const path = "keys/device_signing/upload"
	alice.post(t, path, alice.crossSigning(t), 200)
	before := s.store.Position()
	alice.post(t, path, alice.crossSigning(t), 200)
	alice.post(t, path, `{"self_signing_key":`+alice.selfKey(t)+`}`, 200)
	if s.store.Position() != before {
		t.Error("a repeat counts as a change")
	}
	alice.self = newTestKey(t)
	w := alice.post(t, path, alice.crossSigning(t), 401)
	var ask struct {
		Session string `json:"session"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &ask); err != nil || ask.Session == "" {
		t.Fatalf("no session: %v", err)
	}
	auth := `,"auth":{"type":"m.login.password","session":"` + ask.Session + `","identifier":{"type":"m.id.user","user":"alice"},"password":`
	body := strings.TrimSuffix(alice.crossSigning(t), "}") + auth
	alice.post(t, path, body+`"wrong"}}`, 401)
	alice.post(t, path, body+`"secret"}}`, 200)
	if !alice.keysOf(t, alice.id).SelfSigning[alice.id].signed(alice.id, alice.master.public) {
		t.Error("the new self-signing key is not there")
	}
}

// A device cannot take the name of a cross-signing key, nor the other way round.
func TestDeviceNamedLikeKey(t *testing.T) {
	s := newTestServer(t, Config{})
	alice := newSigningUser(t, s, "alice")
	login := func(device string) int {
		body := fmt.Sprintf(`{"type":"m.login.password","user":"alice","password":"secret","device_id":%q}`, device)
		return s.do("POST", "/_matrix/client/v3/login", "", body).Code
	}
	if code := login(alice.self.public); code != 200 {
		t.Fatalf("login: %d", code)
	}
	w := alice.post(t, "keys/device_signing/upload", alice.crossSigning(t), 403)
	if !strings.Contains(w.Body.String(), "M_FORBIDDEN") {
		t.Errorf("keys named like a device: %s", w.Body)
	}
	alice.self = newTestKey(t)
	alice.post(t, "keys/device_signing/upload", alice.crossSigning(t), 200)
	if code := login(alice.user.public); code != 403 {
		t.Errorf("login as a device named like a key: %d, want 403", code)
	}
}

func TestSignatures(t *testing.T) {
	s := newTestServer(t, Config{})
	alice, bob, carol := newSigningUser(t, s, "alice"), newSigningUser(t, s, "bob"), newSigningUser(t, s, "carol")
	for _, u := range []*signingUser{alice, bob, carol} {
		u.post(t, "keys/device_signing/upload", u.crossSigning(t), 200)
	}
	upload := func(user, key, object, code string) {
		t.Helper()
		w := alice.post(t, "keys/signatures/upload", fmt.Sprintf(`{%q:{%q:%s}}`, user, key, object), 200)
		var answer signaturesResponse
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Failures == nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		if got := answer.Failures[matrix.UserID(user)][key].Code; got != code {
			t.Errorf("signature about %s %s: failure %q, want %q", user, key, got, code)
		}
	}
	sign := func(k testKey, object, name string) string { return k.sign(t, object, alice.id, name) }
	strange := newTestKey(t)

	upload(alice.id, "NONE", alice.deviceKeys(t), "M_NOT_FOUND")
	upload("@nobody:hearth.test", "X", `{}`, "M_NOT_FOUND")
	upload("@dave:other.test", "X", `{}`, "M_NOT_FOUND")
	upload(bob.id, "BOB", sign(alice.user, bob.deviceKeys(t), alice.user.public), "M_NOT_FOUND")
	upload(bob.id, bob.self.public, sign(alice.user, bob.selfKey(t), alice.user.public), "M_NOT_FOUND")
	upload(alice.id, "ALICE", sign(alice.self, bob.deviceKeys(t), alice.self.public), "M_INVALID_PARAM")
	upload(alice.id, "ALICE", `"text"`, "M_INVALID_PARAM")
	upload(alice.id, "ALICE", sign(strange, alice.deviceKeys(t), alice.self.public), "M_INVALID_SIGNATURE")
	upload(alice.id, "ALICE", sign(alice.user, alice.deviceKeys(t), alice.user.public), "M_INVALID_SIGNATURE")
	upload(bob.id, bob.master.public, sign(alice.self, bob.masterKey(), alice.self.public), "M_INVALID_SIGNATURE")
	upload(bob.id, bob.master.public, bob.masterKey(), "M_INVALID_SIGNATURE")
	upload(alice.id, "ALICE", alice.deviceKeys(t), "") // nothing new, nothing wrong

	before := s.store.Position()
	upload(alice.id, "ALICE", sign(alice.self, alice.deviceKeys(t), alice.self.public), "")
	upload(alice.id, alice.master.public, sign(alice.device, alice.masterKey(), "ALICE"), "")
	upload(bob.id, bob.master.public, sign(alice.user, bob.masterKey(), alice.user.public), "")
	if s.store.Position() == before {
		t.Error("signatures are no news")
	}
	before = s.store.Position()
	upload(bob.id, bob.master.public, sign(alice.user, bob.masterKey(), alice.user.public), "")
	if s.store.Position() != before {
		t.Error("a repeated signature is news")
	}

	for _, u := range []*signingUser{alice, bob, carol} {
		keys := u.keysOf(t, alice.id)
		device := keys.DeviceKeys[alice.id]["ALICE"]
		if !device.signed(alice.id, "ALICE") || !device.signed(alice.id, alice.self.public) {
			t.Errorf("%s sees on alice's device: %v", u.id, device)
		}
		if !keys.Master[alice.id].signed(alice.id, "ALICE") {
			t.Errorf("%s sees on alice's master key: %v", u.id, keys.Master)
		}
		if _, sees := keys.UserSigning[alice.id]; sees != (u == alice) {
			t.Errorf("%s sees alice's user-signing key: %t", u.id, sees)
		}
		if sees := u.keysOf(t, bob.id).Master[bob.id].signed(alice.id, alice.user.public); sees != (u == alice) {
			t.Errorf("%s sees what alice signed about bob: %t", u.id, sees)
		}
	}

	// A new self-signing key ends what the old one signed.
	old := alice.self
	alice.self = newTestKey(t)
	w := alice.post(t, "keys/device_signing/upload", alice.crossSigning(t), 401)
	_, rest, _ := strings.Cut(w.Body.String(), `"session":"`)
	session, _, _ := strings.Cut(rest, `"`)
	alice.post(t, "keys/device_signing/upload", `{"auth":{"type":"m.login.password","session":"`+session+`","password":"secret"}}`, 200)
	device := bob.keysOf(t, alice.id).DeviceKeys[alice.id]["ALICE"]
	if device.signed(alice.id, old.public) || !device.signed(alice.id, "ALICE") {
		t.Errorf("signatures after the change of keys: %v", device)
	}
}

// Who is signed about by others learns nothing of it, not even that something
// has changed; the signer's other devices do.
func TestSignaturesInSync(t *testing.T) {
	s := newTestServer(t, Config{})
	alice, bob := newSigningUser(t, s, "alice"), newSigningUser(t, s, "bob")
	for _, u := range []*signingUser{alice, bob} {
		u.post(t, "keys/device_signing/upload", u.crossSigning(t), 200)
	}
	since := streamToken{pos: s.store.Position()}.String()
	object := alice.user.sign(t, bob.masterKey(), alice.id, alice.user.public)
	alice.post(t, "keys/signatures/upload", fmt.Sprintf(`{%q:{%q:%s}}`, bob.id, bob.master.public, object), 200)
	for _, u := range []*signingUser{alice, bob} {
		w := s.do("GET", "/_matrix/client/v3/sync?since="+since, u.token, "")
		if told := strings.Contains(w.Body.String(), `"changed":["@bob:hearth.test"]`); told != (u == alice) {
			t.Errorf("%s is told of the signature: %t: %s", u.id, told, w.Body)
		}
	}
}
