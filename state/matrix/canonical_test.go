package matrix

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// The examples of the appendices, "Canonical JSON", and what they leave out.
func TestCanonical(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`{}`, `{}`},
		{`{"one": 1, "two": "Two"}`, `{"one":1,"two":"Two"}`},
		{`{"b": "2", "a": "1"}`, `{"a":"1","b":"2"}`},
		{`{"b":"2","a":"1"}`, `{"a":"1","b":"2"}`},
		{`{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe",
			"three_pids": [{"medium": "email", "address": "john.doe@example.org"},
			{"medium": "msisdn", "address": "123456789"}]}}}`,
			`{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}`},
		{`{"a": "日本語"}`, `{"a":"日本語"}`},
		{`{"本": 2, "日": 1}`, `{"日":1,"本":2}`},
		{`{"a": "\u65E5"}`, `{"a":"日"}`},
		{`{"a": null}`, `{"a":null}`},
		{`{"a": -0, "b": 1e10}`, `{"a":0,"b":10000000000}`},

		{` [ ] `, `[]`},
		{`"\/\u002f\b\f\n\r\t\"\\\u0000\u001F\u007f\u2028\ud83d\ude00<>&"`, `"//\b\f\n\r\t\"\\\u0000\u001f` + "\x7f\u2028😀" + `<>&"`},
		{`{"a\u0062":1,"aa":2,"b":{"d":[],"c":[{}]},"":0}`, `{"":0,"aa":2,"ab":1,"b":{"c":[{}],"d":[]}}`},
		// By code point, which is not the order of UTF-16.
		{`{"😀":1,"！":2}`, `{"！":2,"😀":1}`},
		{`[9007199254740991,-9007199254740991,2.0,1.50e1,0e99999,10E-1,900719925474099.1e1]`,
			`[9007199254740991,-9007199254740991,2,15,0,1,9007199254740991]`},
	} {
		got, err := Canonical([]byte(tt.in))
		if err != nil || string(got) != tt.want {
			t.Errorf("Canonical(%s) = %s, %v, want %s", tt.in, got, err, tt.want)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want error
	}{
		{``, ErrNotJSON},
		{`{`, ErrNotJSON},
		{`{"a"}`, ErrNotJSON},
		{`{"a":1,}`, ErrNotJSON},
		{`[1 2]`, ErrNotJSON},
		{`{} {}`, ErrNotJSON},
		{`nul`, ErrNotJSON},
		{`{a:1}`, ErrNotJSON},
		{`01`, ErrNotJSON},
		{`"` + "\xff" + `"`, ErrNotJSON},
		{`"\ud800"`, ErrNotJSON},
		{"\"\x01\"", ErrNotJSON},
		{"\ufeff{}", ErrNotJSON},
		{`{"a":1,"a":2}`, ErrBadJSON},
		{`{"b":0,"a":1,"\u0061":2}`, ErrBadJSON},
		{`9007199254740992`, ErrBadJSON},
		{`-9007199254740992`, ErrBadJSON},
		{`1.5`, ErrBadJSON},
		{`1e400`, ErrBadJSON},
		{`1e99999999999999999999`, ErrBadJSON},
		{`1e-5`, ErrBadJSON},
		{`9007199254740990.5`, ErrBadJSON},
		{strings.Repeat("[", maxNesting+1) + strings.Repeat("]", maxNesting+1), ErrBadJSON},
		{`"` + strings.Repeat("a", maxDocumentBytes) + `"`, ErrTooLarge},
	} {
		got, err := Canonical([]byte(tt.in))
		if !errors.Is(err, tt.want) {
			t.Errorf("Canonical(%.40s) = %.40s, %v, want %v", tt.in, got, err, tt.want)
		}
	}
	deep := strings.Repeat("[", maxNesting) + strings.Repeat("]", maxNesting)
	if _, err := Canonical([]byte(deep)); err != nil {
		t.Errorf("%d levels: %v", maxNesting, err)
	}
}

// From version 6 on numbers must be canonical as they stand; before, all are
// accepted and written as the servers of that time did.
func TestCanonicalForVersion(t *testing.T) {
	for _, tt := range []struct{ in, lenient, strict string }{
		{`1`, `1`, `1`},
		{`-1`, `-1`, `-1`},
		{`0`, `0`, `0`},
		{`9007199254740991`, `9007199254740991`, `9007199254740991`},
		{`-0`, `0`, ``},
		{`1e10`, `10000000000.0`, ``},
		{`1.0`, `1.0`, ``},
		{`-1.50`, `-1.5`, ``},
		{`-0.0`, `-0.0`, ``},
		{`0.0001`, `0.0001`, ``},
		{`0.00001`, `1e-05`, ``},
		{`1e15`, `1000000000000000.0`, ``},
		{`1e16`, `1e+16`, ``},
		{`1.5E300`, `1.5e+300`, ``},
		{`9007199254740992`, `9007199254740992`, ``},
		{`123456789012345678901234567890`, `123456789012345678901234567890`, ``},
		{`1e400`, ``, ``},
	} {
		for _, v := range Versions() {
			want := tt.lenient
			if v.StrictJSON {
				want = tt.strict
			}
			got, err := CanonicalFor(v, []byte(tt.in))
			if string(got) != want || (err == nil) != (want != "") {
				t.Errorf("version %s: CanonicalFor(%s) = %s, %v, want %q", v.ID, tt.in, got, err, want)
			}
		}
	}
}

// Canonical accepts what jsontext accepts, but for the limits that are ours, and
// what it writes is a fixed point that means the same.
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		`{"b":[1,-0,1e3,null,true],"a":{"\u65e5":"\ud83d\ude00\n"}}`, `[[[{}]]]`, `"\u0000"`, `{"a":1,"a":2}`,
		`1.5`, `-`, `{"":{"":""}}`, ` [ 1 , 2 ] `, `9007199254740992`, "\xff", `{"z":1,"y":{"b":0,"a":0},"x":2}`,
	} {
		f.Add([]byte(seed))
	}
	v5, _ := VersionByID("5")
	f.Fuzz(func(t *testing.T, src []byte) {
		before := bytes.Clone(src)
		out, err := CanonicalFor(v5, src)
		if !bytes.Equal(src, before) {
			t.Fatal("the input was changed")
		}
		valid := jsontext.Value(src).IsValid(jsontext.AllowDuplicateNames(true))
		if (err == nil) && !valid || errors.Is(err, ErrNotJSON) && valid {
			t.Fatalf("valid is %v, but the error %v", valid, err)
		}
		for _, n := range []numbers{integersOnly, integersRewritten, anyNumbers} {
			out, err = canonical(src, n)
			if err != nil {
				continue
			}
			again, err := canonical(out, n)
			if err != nil || !bytes.Equal(out, again) {
				t.Fatalf("not a fixed point: %s, then %s, %v", out, again, err)
			}
		}
	})
}

func BenchmarkCanonical(b *testing.B) {
	for _, tt := range []struct{ name, json string }{
		{"sorted", `{"a":{"b":[1,2,3],"c":"` + strings.Repeat("text ", 40) + `"},"d":"e","f":12345}`},
		{"unsorted", `{"f":12345,"d":"e","a":{"c":"` + strings.Repeat("text ", 40) + `","b":[1,2,3]}}`},
	} {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(tt.json)))
			for b.Loop() {
				if _, err := Canonical([]byte(tt.json)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
