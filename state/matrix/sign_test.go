package matrix

import (
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
)

// vectorKey is the key of the appendices, "Cryptographic Test Vectors".
func vectorKey(t testing.TB) SigningKey {
	t.Helper()
	seed, err := base64.RawStdEncoding.DecodeString("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
	if err != nil {
		t.Fatal(err)
	}
	return SigningKey{ID: "ed25519:1", Private: ed25519.NewKeyFromSeed(seed)}
}

func (k SigningKey) public() ed25519.PublicKey { return k.Private.Public().(ed25519.PublicKey) }

func version(t testing.TB, id string) *Version {
	t.Helper()
	v, ok := VersionByID(id)
	if !ok {
		t.Fatalf("no version %s", id)
	}
	return v
}

// The vectors of the appendices, "JSON Signing".
func TestSignJSONVectors(t *testing.T) {
	key := vectorKey(t)
	for _, tt := range []struct{ in, want string }{
		{`{}`, `{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}`},
		{`{"one": 1, "two": "Two"}`, `{"one":1,"signatures":{"domain":{"ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two"}`},
	} {
		got, err := SignJSON([]byte(tt.in), "domain", key)
		if err != nil || string(got) != tt.want {
			t.Errorf("SignJSON(%s) = %s, %v, want %s", tt.in, got, err, tt.want)
		}
		if err := VerifyJSON(got, "domain", "ed25519:1", key.public()); err != nil {
			t.Errorf("VerifyJSON: %v", err)
		}
	}
}

// The vectors of the appendices, "Event Signing".
func TestHashAndSignVectors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{
			`{"room_id":"!x:domain","sender":"@a:domain","origin":"domain","origin_server_ts":1000000,"signatures":{},"hashes":{},"type":"X","content":{},"prev_events":[],"auth_events":[],"depth":3,"unsigned":{"age_ts":1000000}}`,
			`{"auth_events":[],"content":{},"depth":3,"hashes":{"sha256":"5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},"origin":"domain","origin_server_ts":1000000,"prev_events":[],"room_id":"!x:domain","sender":"@a:domain","signatures":{"domain":{"ed25519:1":"KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"}},"type":"X","unsigned":{"age_ts":1000000}}`,
		},
		{
			`{"content":{"body":"Here is the message content"},"event_id":"$0:domain","origin":"domain","origin_server_ts":1000000,"type":"m.room.message","room_id":"!r:domain","sender":"@u:domain","signatures":{},"unsigned":{"age_ts":1000000}}`,
			`{"content":{"body":"Here is the message content"},"event_id":"$0:domain","hashes":{"sha256":"onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g"},"origin":"domain","origin_server_ts":1000000,"room_id":"!r:domain","sender":"@u:domain","signatures":{"domain":{"ed25519:1":"Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA"}},"type":"m.room.message","unsigned":{"age_ts":1000000}}`,
		},
	} {
		got, err := HashAndSign(version(t, "1"), []byte(tt.in), "domain", vectorKey(t))
		if err != nil || string(got) != tt.want {
			t.Errorf("HashAndSign(%s) = %s, %v, want %s", tt.in, got, err, tt.want)
		}
	}
}

func TestSignJSONKeepsOthers(t *testing.T) {
	key := vectorKey(t)
	first, err := SignJSON([]byte(`{"z":1,"unsigned":{"u":1},"signatures":"junk"}`), "b", key)
	if err != nil {
		t.Fatal(err)
	}
	second, err := SignJSON(first, "a", SigningKey{ID: "ed25519:2", Private: key.Private})
	if err != nil {
		t.Fatal(err)
	}
	third, err := SignJSON(second, "b", SigningKey{ID: "ed25519:0", Private: key.Private})
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range [][2]string{{"b", "ed25519:1"}, {"a", "ed25519:2"}, {"b", "ed25519:0"}} {
		if err := VerifyJSON(third, by[0], by[1], key.public()); err != nil {
			t.Errorf("%s: %v", by, err)
		}
	}
	if !strings.Contains(string(third), `"unsigned":{"u":1}`) {
		t.Errorf("unsigned is gone: %s", third)
	}
}

func TestVerifyJSONRefuses(t *testing.T) {
	key := vectorKey(t)
	signed, err := SignJSON([]byte(`{"one":1}`), "domain", key)
	if err != nil {
		t.Fatal(err)
	}
	good := string(signed)
	_, other, _ := ed25519.GenerateKey(nil)
	for _, tt := range []struct {
		name, json, entity, keyID string
		public                    ed25519.PublicKey
		want                      error
	}{
		{"changed", strings.Replace(good, `"one":1`, `"one":2`, 1), "domain", "ed25519:1", key.public(), ErrBadSignature},
		{"other entity", good, "other", "ed25519:1", key.public(), ErrBadSignature},
		{"other key ID", good, "domain", "ed25519:2", key.public(), ErrBadSignature},
		{"other key", good, "domain", "ed25519:1", other.Public().(ed25519.PublicKey), ErrBadSignature},
		{"short key", good, "domain", "ed25519:1", key.public()[:31], ErrBadSignature},
		{"other algorithm", strings.Replace(good, "ed25519:1", "rsa:1", 1), "domain", "rsa:1", key.public(), ErrBadSignature},
		{"no object", strings.Replace(good, `{"ed25519:1"`, `[{"ed25519:1"`, 1), "domain", "ed25519:1", key.public(), ErrNotJSON},
		{"array", `[]`, "domain", "ed25519:1", key.public(), ErrBadJSON},
		{"signatures array", `{"signatures":["domain"]}`, "domain", "ed25519:1", key.public(), ErrBadSignature},
		{"line break", strings.Replace(good, `K`, `\nK`, 1), "domain", "ed25519:1", key.public(), ErrBadSignature},
	} {
		err := VerifyJSON([]byte(tt.json), tt.entity, tt.keyID, tt.public)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	padded := strings.Replace(good, `"}}`, `=="}}`, 1)
	if err := VerifyJSON([]byte(padded), "domain", "ed25519:1", key.public()); err != nil {
		t.Errorf("padded base64: %v", err)
	}
}

func TestEventSignatures(t *testing.T) {
	key := vectorKey(t)
	for _, v := range Versions() {
		e := build(t, v, Draft{Type: "m.room.message", Content: []byte(`{"body":"hello","msgtype":"m.text"}`)})
		if err := e.VerifySignature("example.org", key.ID, key.public()); err != nil {
			t.Errorf("version %s: %v", v.ID, err)
		}
		redacted, err := e.RedactedCopy()
		if err != nil {
			t.Fatal(err)
		}
		if err := redacted.VerifySignature("example.org", key.ID, key.public()); err != nil {
			t.Errorf("version %s, redacted: %v", v.ID, err)
		}
		countersigned, err := SignEvent(v, e.JSON(), "other.org", key)
		if err != nil {
			t.Fatal(err)
		}
		both, err := Parse(v, countersigned)
		if err != nil || both.ID != e.ID {
			t.Fatalf("version %s: the ID changed from %s to %v, %v", v.ID, e.ID, both, err)
		}
		signers, err := both.Signatures()
		if err != nil || len(signers) != 2 || !slices.Equal(signers["other.org"], []string{key.ID}) {
			t.Errorf("version %s: signatures %v, %v", v.ID, signers, err)
		}
		changed := strings.Replace(string(e.JSON()), `"depth":7`, `"depth":8`, 1)
		fake, err := ParseTrusted(v, []byte(changed), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := fake.VerifySignature("example.org", key.ID, key.public()); !errors.Is(err, ErrBadSignature) {
			t.Errorf("version %s, changed: %v", v.ID, err)
		}
	}
}

// Who must have signed what, in each version: S is the sender's server, I that of the
// event's ID, A that of the user who authorised the join.
//
// "For room versions 3 and later, unless the event is a 3rd party invite, only the
// signature(s) from the originating server are required for verification. Room
// versions 1 and 2 also require that a signature is present from the domain in the
// `event_id`." (Server-server API, "Validating hashes and signatures on received
// events".) "If `content` has a `join_authorised_via_users_server` key: If the event is
// not validly signed by the homeserver of the user ID denoted by the key, reject."
// (Rule 4.2 of versions 8 to 11 and 5.2 of 12, whatever the membership.)
func TestRequiredSigners(t *testing.T) {
	const via = `"join_authorised_via_users_server":"@bob:there.org"`
	names := map[ServerName]string{"example.org": "S", "ids.org": "I", "there.org": "A"}
	target, sender := "@target:there.org", "@alice:example.org"
	for _, tt := range []struct {
		name, typ string
		stateKey  *string
		content   string
		want      string // versions 1 to 12
	}{
		{"message", "m.room.message", nil, `{}`, "SI SI S S S S S S S S S S"},
		{"state", "m.room.name", new(string), `{}`, "SI SI S S S S S S S S S S"},
		{"what only looks like a member event", "m.x", &target, `{"membership":"invite","third_party_invite":{},` + via + `}`, "SI SI S S S S S S S S S S"},
		{"join", "m.room.member", &sender, `{"membership":"join"}`, "SI SI S S S S S S S S S S"},
		{"invite", "m.room.member", &target, `{"membership":"invite"}`, "SI SI S S S S S S S S S S"},
		{"third-party invite", "m.room.member", &target, `{"membership":"invite","third_party_invite":{"signed":{}}}`, "I I - - - - - - - - - -"},
		{"third-party invite of no form, which the rules refuse", "m.room.member", &target, `{"membership":"invite","third_party_invite":null}`, "I I - - - - - - - - - -"},
		{"third-party invite in a join", "m.room.member", &sender, `{"membership":"join","third_party_invite":{"signed":{}}}`, "SI SI S S S S S S S S S S"},
		{"third-party invite in a ban", "m.room.member", &target, `{"membership":"ban","third_party_invite":{"signed":{}}}`, "SI SI S S S S S S S S S S"},
		{"restricted join", "m.room.member", &sender, `{"membership":"join",` + via + `}`, "SI SI S S S S S SA SA SA SA SA"},
		{"restricted join by a user of one's own server", "m.room.member", &sender,
			`{"membership":"join","join_authorised_via_users_server":"@bob:example.org"}`, "SI SI S S S S S S S S S S"},
		{"restricted join by nobody, which the rules refuse", "m.room.member", &sender,
			`{"membership":"join","join_authorised_via_users_server":7}`, "SI SI S S S S S S S S S S"},
		{"leave that says who authorised the join", "m.room.member", &sender, `{"membership":"leave",` + via + `}`, "SI SI S S S S S SA SA SA SA SA"},
		{"third-party invite with both", "m.room.member", &target, `{"membership":"invite","third_party_invite":{},` + via + `}`, "I I - - - - - A A A A A"},
	} {
		var got []string
		for _, v := range Versions() {
			draft := Draft{Room: "!room:example.org", Sender: UserID(sender), Type: tt.typ, StateKey: tt.stateKey, Content: []byte(tt.content)}
			e, err := draft.Build(v, Placing{}, "ids.org", vectorKey(t))
			if err != nil {
				t.Fatal(err)
			}
			signers := ""
			for _, server := range e.RequiredSigners() {
				signers += names[server]
			}
			got = append(got, cmp.Or(signers, "-"))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s needs %s, want %s", tt.name, s, tt.want)
		}
	}
}

// build makes an event of @alice:example.org with parents and a depth of 7.
func build(t testing.TB, v *Version, d Draft) *Event {
	t.Helper()
	d.Room, d.Sender, d.OriginServerTS = "!room:example.org", "@alice:example.org", 1700000000000
	e, err := d.Build(v, placing(v), "example.org", vectorKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func placing(v *Version) Placing {
	p := Placing{Depth: 7}
	for _, s := range []string{"one", "two", "three"} {
		hash := Hash([]byte(strings.Repeat(s[:1], 32)))
		id := hash.eventID(v.EventIDs)
		if v.EventIDs == EventIDGiven {
			id = EventID("$" + s + ":example.org")
		}
		p.Prev, p.PrevHashes = append(p.Prev, id), append(p.PrevHashes, hash)
		p.Auth, p.AuthHashes = append(p.Auth, id), append(p.AuthHashes, hash)
	}
	return p
}
