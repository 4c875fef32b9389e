package matrix

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// What is read in one walk is what parse makes of it, also where a byte is wrong.
func TestTrustedIsParsed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	key := "@bob:domain"
	const bytes = ` "\,:{}[]0-9.eu@$!x` + "\x00\n\xff"
	for _, v := range Versions() {
		for name, pdu := range map[string]string{
			"minimal":   minimal(v, nil),
			"message":   string(build(t, v, Draft{Type: "m.room.message", Content: []byte(`{"body":"h\u00e9llo \\ \"you\"","n":[1,-2,{"x":null}],"t":true,"f":false}`)}).JSON()),
			"encrypted": string(benchEvent(t, v).JSON()),
			"member":    string(build(t, v, Draft{Type: "m.room.member", StateKey: &key, Content: []byte(`{"membership":"join"}`)}).JSON()),
		} {
			e, err := Parse(v, []byte(pdu))
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := readTrusted(v, []byte(pdu), e.ID); ok == (v.EventIDs == EventIDGiven) {
				t.Errorf("version %s: %s was read in one walk: %t", v.ID, name, ok)
			}
			for range 4000 {
				damaged := []byte(pdu)
				damaged[random.IntN(len(damaged))] = bytes[random.IntN(len(bytes))]
				got, ok := readTrusted(v, damaged, e.ID)
				if !ok {
					continue
				}
				want, err := parse(v, damaged, e.ID)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("version %s, %s: %+v, %v, not %+v", v.ID, damaged, want, err, got)
				}
			}
		}
	}
}

// Bytes that no parse would have accepted are not accepted by the walk either.
func TestTrustedRefuses(t *testing.T) {
	v := version(t, "12")
	good := minimal(v, nil)
	for _, change := range []struct{ old, new string }{
		{`"depth":1`, `"depth":01`}, {`"depth":1`, `"depth":1.0`}, {`"depth":1`, `"depth":-1`}, {`"depth":1`, `"depth":9007199254740992`},
		{`"depth":1`, `"depth":1,"depth":1`}, {`"depth":1`, `"depth":"1"`}, {`"depth":1`, `"depth":-`},
		{`"hashes":{}`, `"hashes":[]`}, {`"hashes":{}`, `"hashes":{"a"}`}, {`"hashes":{}`, `"hashes":{,}`}, {`"hashes":{}`, `"hashes":{"a":tru}`},
		{`"hashes":{}`, `"hashes":{"a":` + strings.Repeat("[", maxNesting) + strings.Repeat("]", maxNesting) + `}`},
		{`"hashes":{}`, `"hashes":{"a":[1 2]}`}, {`"hashes":{}`, `"hashes":{"a":"\x"}`}, {`"hashes":{}`, `"hashes":{"a":"` + "\n" + `"}`},
		{`{`, ``}, {`{`, `{,`}, {good, good + "x"}, {good, ""}, {good, good[:len(good)-1]},
	} {
		damaged := strings.Replace(good, change.old, change.new, 1)
		if damaged == good {
			t.Fatalf("%s is not in %s", change.old, good)
		}
		if e, ok := readTrusted(v, []byte(damaged), "$x"); ok {
			t.Errorf("%s: %+v", damaged, e)
		}
	}
}
