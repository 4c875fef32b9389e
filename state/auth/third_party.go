package auth

import (
	"crypto/ed25519"
	"encoding/base64"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// maxSignatureTries bounds how many pairs of a signature and a key are tried for
// one third-party invite. The rules know no bound, but two events of the largest
// size hold hundreds of thousands of pairs, seconds of work each time the invite
// is checked. Identity servers give one signature and two keys.
const maxSignatureTries = 64

// thirdPartyInvite applies the rules for an invite to whom an identity server has
// told the invited address belongs. They do not ask whether its sender is still in
// the room, nor whether the invited user is already.
func (m *memberChange) thirdPartyInvite() error {
	// ThirdPartyBanned. v1-5 5.3.1.1, v6-7 4.3.1.1, v8-11 4.4.1.1, v12 5.4.1.1: "If
	// *target user* is banned, reject."
	if m.was == matrix.Ban {
		return m.refuse(ThirdPartyBanned, "%s is banned from this room", quote(string(m.target)))
	}
	// ThirdPartyNoSigned. v1-5 5.3.1.2, v6-7 4.3.1.2, v8-11 4.4.1.2, v12 5.4.1.2: "If
	// `content.third_party_invite` does not have a `signed` property, reject."
	signed, has := property(m.content.ThirdPartyInvite, "signed")
	if !has {
		return m.refuse(ThirdPartyNoSigned, "The invite by address is not signed")
	}
	// ThirdPartyNoToken. v1-5 5.3.1.3, v6-7 4.3.1.3, v8-11 4.4.1.3, v12 5.4.1.3: "If
	// `signed` does not have `mxid` and `token` properties, reject."
	user, hasUser := property(signed, "mxid")
	token, hasToken := property(signed, "token")
	if !hasUser || !hasToken {
		return m.refuse(ThirdPartyNoToken, "The invite by address lacks a user or a token")
	}
	// ThirdPartyOtherUser. v1-5 5.3.1.4, v6-7 4.3.1.4, v8-11 4.4.1.4, v12 5.4.1.4: "If
	// `mxid` does not match `state_key`, reject."
	if !isString(user, string(m.target)) {
		return m.refuse(ThirdPartyOtherUser, "The invite by address is for another user")
	}
	// ThirdPartyUnknown. v1-5 5.3.1.5, v6-7 4.3.1.5, v8-11 4.4.1.5, v12 5.4.1.5: "If
	// there is no `m.room.third_party_invite` event in the current room state with
	// `state_key` matching `token`, reject."
	var invite *matrix.Event
	if key, ok := stringOf(token); ok {
		var err error
		if invite, err = m.get(typeThirdPartyInvite, key); err != nil {
			return err
		}
	}
	if invite == nil {
		return m.refuse(ThirdPartyUnknown, "The invite by address is not in this room")
	}
	// ThirdPartyOtherSender. v1-5 5.3.1.6, v6-7 4.3.1.6, v8-11 4.4.1.6, v12 5.4.1.6: "If
	// `sender` does not match `sender` of the `m.room.third_party_invite`, reject."
	if m.ev.Sender != invite.Sender {
		return m.refuse(ThirdPartyOtherSender, "The invite by address is from %s", invite.Sender)
	}
	// v1-5 5.3.1.7, v6-7 4.3.1.7, v8-11 4.4.1.7, v12 5.4.1.7: "If any signature in
	// `signed` matches any public key in the `m.room.third_party_invite` event, allow."
	// ThirdPartyBadSignature. v1-5 5.3.1.8, v6-7 4.3.1.8, v8-11 4.4.1.8, v12 5.4.1.8:
	// "Otherwise, reject."
	for range InviteSigners(invite, signed) {
		return nil
	}
	return m.refuse(ThirdPartyBadSignature, "The invite by address is not signed with a key that this room knows")
}

// An InviteKey is a key that may sign for an m.room.third_party_invite event.
type InviteKey struct {
	Text string // as the event has it
	// Validity is the URL that tells whether the key is still good; empty where there is
	// none to ask.
	Validity string
	public   ed25519.PublicKey
}

// inviteKeys are the keys that may sign for an m.room.third_party_invite event: "A
// single public key in the `public_key` property. A list of public keys in the
// `public_keys` property" (rule 7's continuation, 7.1 and 7.2).
func inviteKeys(invite *matrix.Event) []InviteKey {
	var keys []InviteKey
	add := func(object jsontext.Value) {
		v, _ := property(object, "public_key")
		text, _ := stringOf(v)
		if public, ok := decodeKey(text); ok {
			v, _ := property(object, "key_validity_url")
			url, _ := stringOf(v)
			keys = append(keys, InviteKey{Text: text, Validity: url, public: public})
		}
	}
	add(invite.Content)
	list, _ := property(invite.Content, "public_keys")
	var objects []jsontext.Value
	if list.Kind() == '[' && json.Unmarshal(list, &objects) == nil {
		for _, object := range objects {
			add(object)
		}
	}
	return keys
}

// decodeKey reads a key in "Unpadded Base64, using the standard or URL-safe
// alphabets" (client-server API, m.room.third_party_invite), padded or not.
func decodeKey(text string) (ed25519.PublicKey, bool) {
	alphabet := base64.RawStdEncoding
	if strings.ContainsAny(text, "-_") {
		alphabet = base64.RawURLEncoding
	}
	key, err := alphabet.DecodeString(strings.TrimRight(text, "="))
	return key, err == nil && len(key) == ed25519.PublicKeySize
}

// InviteSigners are the keys of an m.room.third_party_invite event with which an
// identity server has signed whose the address is: signed, of a member event's
// third_party_invite.
func InviteSigners(invite *matrix.Event, signed jsontext.Value) iter.Seq[InviteKey] {
	return func(yield func(InviteKey) bool) {
		keys, tries := inviteKeys(invite), 0
		raw, _ := property(signed, "signatures")
		for server, ids := range sortedObject(raw) {
			for id := range sortedObject(ids) {
				if !strings.HasPrefix(id, "ed25519:") {
					continue
				}
				for _, key := range keys {
					if tries++; tries > maxSignatureTries {
						return
					}
					if matrix.VerifyJSON(signed, server, id, key.public) == nil && !yield(key) {
						return
					}
				}
			}
		}
	}
}

// sortedObject walks the properties of a JSON object by name, so that the tries
// that are left out are the same on each run; nothing if v is no object.
func sortedObject(v jsontext.Value) func(yield func(string, jsontext.Value) bool) {
	var object map[string]jsontext.Value
	if v.Kind() != '{' || json.Unmarshal(v, &object) != nil {
		return func(func(string, jsontext.Value) bool) {}
	}
	return func(yield func(string, jsontext.Value) bool) {
		for _, name := range slices.Sorted(maps.Keys(object)) {
			if !yield(name, object[name]) {
				return
			}
		}
	}
}
