package matrix

import "testing"

func BenchmarkParse(b *testing.B) {
	for _, id := range []string{"6", "12"} {
		b.Run("version "+id, func(b *testing.B) {
			v := version(b, id)
			pdu := benchEvent(b, v).JSON()
			b.ReportAllocs()
			b.SetBytes(int64(len(pdu)))
			for b.Loop() {
				if _, err := Parse(v, pdu); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseTrusted(b *testing.B) {
	v := version(b, "12")
	e := benchEvent(b, v)
	b.ReportAllocs()
	b.SetBytes(int64(len(e.JSON())))
	for b.Loop() {
		if _, err := ParseTrusted(v, e.JSON(), e.ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	e := benchEvent(b, version(b, "12"))
	b.ReportAllocs()
	for b.Loop() {
		if !e.VerifyContentHash() {
			b.Fatal("hash does not fit")
		}
	}
}

func BenchmarkSign(b *testing.B) {
	e := benchEvent(b, version(b, "12"))
	key := vectorKey(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := SignEvent(e.Version, e.JSON(), "example.org", key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	e := benchEvent(b, version(b, "12"))
	key := vectorKey(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := e.VerifySignature("example.org", key.ID, key.public()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMember(b *testing.B) {
	alice := "@alice:example.org"
	e := build(b, version(b, "12"), Draft{Type: "m.room.member", StateKey: &alice,
		Content: []byte(`{"membership":"join","displayname":"Alice","avatar_url":"mxc://example.org/abcdef"}`)})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Member(); err != nil {
			b.Fatal(err)
		}
	}
}

// benchEvent is an encrypted message, a PDU of about 1,100 bytes.
func benchEvent(t testing.TB, v *Version) *Event {
	t.Helper()
	text := "AwgAEnDh9QhY3qGs4s1rVnUO0fhAnHSSWfLn3DAnTtPEJU2aVZtZrZh0DbqD8hIcPDzCAyj6G8j2H5TqLFBMzJkg"
	return build(t, v, Draft{Type: "m.room.encrypted", Content: []byte(`{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"` +
		text + text + text + text + `","device_id":"ABCDEFGHIJ","sender_key":"` + text[:43] + `","session_id":"` + text[:43] + `"}`)})
}
