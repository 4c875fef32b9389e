package auth_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// The keys of an identity server, and its name.
var (
	identityKey  = matrix.SigningKey{ID: "ed25519:0", Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat("i", 32)))}
	ephemeralKey = matrix.SigningKey{ID: "ed25519:0", Private: ed25519.NewKeyFromSeed([]byte(strings.Repeat("e", 32)))}
)

const identityServer = "id.example"

func public(k matrix.SigningKey, encoding *base64.Encoding) string {
	return encoding.EncodeToString(k.Private.Public().(ed25519.PublicKey))
}

// offered is a room to which bob has invited an address, with those keys in the
// content of his m.room.third_party_invite.
func (r *room) offered(keys string) *room {
	r.crowd()
	r.put(r.event(bob, "m.room.third_party_invite", key("token"), `{"display_name":"e...@e...",`+keys+`}`))
	return r
}

// signed is what an identity server says of eve, signed with k.
func (r *room) signed(k matrix.SigningKey) string {
	return r.sign(fmt.Sprintf(`{"mxid":%q,"token":"token"}`, eve), k)
}

func (r *room) sign(object string, keys ...matrix.SigningKey) string {
	for _, k := range keys {
		signed, err := matrix.SignJSON([]byte(object), identityServer, k)
		if err != nil {
			r.t.Fatal(err)
		}
		object = string(signed)
	}
	return object
}

// accepts checks sender's invite of eve with that third_party_invite.
func (r *room) accepts(sender matrix.UserID, thirdParty string) error {
	return r.check(r.change(sender, eve, "invite", `,"third_party_invite":`+thirdParty))
}

// single is the room with its key in public_key, list with its keys in public_keys.
func single(encoding *base64.Encoding) string {
	return fmt.Sprintf(`"public_key":%q`, public(identityKey, encoding))
}

var list = fmt.Sprintf(`"public_keys":[{"public_key":%q},{"public_key":7},7,{"public_key":"AAAA"},{"public_key":"?"},{"public_key":%q}]`,
	public(ephemeralKey, base64.RawStdEncoding), public(identityKey, base64.RawStdEncoding))

// invited checks bob's invite of eve with a good signature.
func invited(keys string) func(r *room) error {
	return func(r *room) error {
		r.offered(keys)
		return r.accepts(bob, `{"display_name":"Eve","signed":`+r.signed(identityKey)+`}`)
	}
}

// said checks bob's invite of eve with that third_party_invite.
func said(thirdParty string) func(r *room) error {
	return func(r *room) error { return r.offered(single(base64.RawStdEncoding)).accepts(bob, thirdParty) }
}

var good = invited(single(base64.RawStdEncoding))

var thirdPartyCases = []ruleCase{
	{rule: auth.ThirdPartyBanned, name: "banned", text: `"@eve:e.example" is banned from this room`, run: func(r *room) error {
		r.member(eve, "ban")
		return good(r)
	}},
	{rule: auth.ThirdPartyBanned, name: "not banned", ok: true, run: good},
	{rule: auth.ThirdPartyBanned, name: "in the room already", ok: true, run: func(r *room) error {
		r.member(eve, "join")
		return good(r)
	}},
	{rule: auth.ThirdPartyBanned, name: "inviter has left", ok: true, run: func(r *room) error {
		r.offered(single(base64.RawStdEncoding)).member(bob, "leave")
		return r.accepts(bob, `{"signed":`+r.signed(identityKey)+`}`)
	}},
	{rule: auth.ThirdPartyNoSigned, name: "empty", run: said(`{}`)},
	{rule: auth.ThirdPartyNoSigned, name: "null", run: said(`null`)},
	{rule: auth.ThirdPartyNoSigned, name: "a string", run: said(`"signed"`)},
	{rule: auth.ThirdPartyNoSigned, name: "signed", ok: true, run: good},
	{rule: auth.ThirdPartyNoToken, name: "no token", run: said(`{"signed":{"mxid":"@eve:e.example"}}`)},
	{rule: auth.ThirdPartyNoToken, name: "no user", run: said(`{"signed":{"token":"token"}}`)},
	{rule: auth.ThirdPartyNoToken, name: "signed is null", run: said(`{"signed":null}`)},
	{rule: auth.ThirdPartyNoToken, name: "both", ok: true, run: good},
	{rule: auth.ThirdPartyOtherUser, name: "other user", run: said(`{"signed":{"mxid":"@dave:d.example","token":"token"}}`)},
	{rule: auth.ThirdPartyOtherUser, name: "no string", run: said(`{"signed":{"mxid":null,"token":"token"}}`)},
	{rule: auth.ThirdPartyOtherUser, name: "the user", ok: true, run: good},
	{rule: auth.ThirdPartyUnknown, name: "other token", run: said(`{"signed":{"mxid":"@eve:e.example","token":"other"}}`)},
	{rule: auth.ThirdPartyUnknown, name: "no string", run: said(`{"signed":{"mxid":"@eve:e.example","token":["token"]}}`)},
	{rule: auth.ThirdPartyUnknown, name: "the token", ok: true, run: good},
	{rule: auth.ThirdPartyOtherSender, name: "other sender", text: "The invite by address is from @bob:b.example",
		run: func(r *room) error {
			r.offered(single(base64.RawStdEncoding))
			return r.accepts(carol, `{"signed":`+r.signed(identityKey)+`}`)
		}},
	{rule: auth.ThirdPartyOtherSender, name: "the sender", ok: true, run: good},
	{rule: auth.ThirdPartyBadSignature, name: "other key", run: func(r *room) error {
		r.offered(single(base64.RawStdEncoding))
		return r.accepts(bob, `{"signed":`+r.signed(ephemeralKey)+`}`)
	}},
	{rule: auth.ThirdPartyBadSignature, name: "something else signed", run: func(r *room) error {
		r.offered(single(base64.RawStdEncoding))
		return r.accepts(bob, `{"signed":`+strings.Replace(r.signed(identityKey), "{", `{"also":1,`, 1)+`}`)
	}},
	{rule: auth.ThirdPartyBadSignature, name: "no signature", run: said(`{"signed":{"mxid":"@eve:e.example","token":"token"}}`)},
	{rule: auth.ThirdPartyBadSignature, name: "odd signatures", run: said(
		`{"signed":{"mxid":"@eve:e.example","signatures":{"a":7,"b":{"ed25519:1":7,"rsa:1":"x"},"c":["ed25519:1"]},"token":"token"}}`)},
	{rule: auth.ThirdPartyBadSignature, name: "no keys", run: invited(`"public_keys":{}`)},
	{rule: auth.ThirdPartyBadSignature, name: "one key", ok: true, run: good},
	{rule: auth.ThirdPartyBadSignature, name: "key in the other alphabet", ok: true, run: invited(single(base64.RawURLEncoding))},
	{rule: auth.ThirdPartyBadSignature, name: "key with padding", ok: true, run: invited(single(base64.StdEncoding))},
	{rule: auth.ThirdPartyBadSignature, name: "one of a list", ok: true, run: invited(list)},
	{rule: auth.ThirdPartyBadSignature, name: "second signature", ok: true, run: func(r *room) error {
		r.offered(single(base64.RawStdEncoding))
		other := matrix.SigningKey{ID: "ed25519:1", Private: identityKey.Private}
		return r.accepts(bob, `{"signed":`+r.sign(r.signed(ephemeralKey), other)+`}`)
	}},
	{rule: auth.ThirdPartyBadSignature, name: "more keys than are tried", run: func(r *room) error {
		keys := strings.Repeat(fmt.Sprintf(`{"public_key":%q},`, public(ephemeralKey, base64.RawStdEncoding)), 500)
		return invited(`"public_keys":[` + keys + fmt.Sprintf(`{"public_key":%q}]`, public(identityKey, base64.RawStdEncoding)))(r)
	}},
}
