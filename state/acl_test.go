package state

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

func TestACL(t *testing.T) {
	const all = `"allow":["*"]`
	for _, tt := range []struct {
		content string
		allowed string // servers
		denied  string
	}{
		{`{` + all + `}`, "a.test a.test:8448 1.2.3.4 [::1]:8448 A.Test", ""},
		{`{}`, "", "a.test 1.2.3.4"},
		{`{"allow":["a.test"]}`, "a.test A.TEST a.test:1", "b.test xa.test a.test.b a.tes 1.2.3.4"},
		{`{"allow":["A.tesT"]}`, "a.test", "b.test"},
		{`{` + all + `,"deny":["evil.com"]}`, "good.com sub.evil.com evil.com.org", "evil.com evil.com:8448 evil.com:1234 EVIL.com"},
		{`{` + all + `,"deny":["*.evil.com","e?il.org"]}`, "evil.com eil.org evvil.org", "a.evil.com a.b.evil.com evil.org e-il.org:1"},
		{`{"allow":["evil.com"],"deny":["evil.com"]}`, "", "evil.com"},
		{`{` + all + `,"allow_ip_literals":false}`, "a.test 1.2.3.4.test", "1.2.3.4 1.2.3.4:8448 [::1] [::1]:8448 [2001:DB8::1]"},
		{`{` + all + `,"allow_ip_literals":true}`, "1.2.3.4 [::1]:8448", ""},
		{`{` + all + `,"allow_ip_literals":"false"}`, "1.2.3.4", ""},
		{`{` + all + `,"deny":["1.2.*","[::1]"]}`, "1.3.2.4 [::2]", "1.2.3.4 1.2.3.4:80 [::1]:8448"},
		{`{"allow":"*"}`, "", "a.test"},
		{`{"allow":[1,null,["*"],"a.*"],"deny":{"*":1}}`, "a.test", "b.test"},
		{`{"allow":["**a**t*"]}`, "a.test xat", "ta b.test"},
		{`{"allow":["a.test:8448"]}`, "", "a.test:8448 a.test"},
		{`{"allow":["*"],"deny":["?.test"]}`, "aa.test .test", "a.test"},
	} {
		for _, list := range []struct {
			servers string
			want    bool
		}{{tt.allowed, true}, {tt.denied, false}} {
			for _, server := range strings.Fields(list.servers) {
				if got := aclAllows(jsontext.Value(tt.content), matrix.ServerName(server)); got != list.want {
					t.Errorf("%s: %s is allowed: %v", tt.content, server, got)
				}
			}
		}
	}
}

// The pattern with the most ways to match costs no more than another: trying them all
// would never end.
func TestACLGlobIsBounded(t *testing.T) {
	matches := make(chan bool, 1)
	go func() { matches <- aclGlob(strings.Repeat("*a", 125)+"*b", strings.Repeat("a", 255)) }()
	select {
	case is := <-matches:
		if is {
			t.Error("it matches")
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}

// Whatever an ACL's content is, it is decided about, and as its patterns written as
// regular expressions say.
func FuzzACL(f *testing.F) {
	f.Add(`{"allow":["*"],"deny":["*.evil.com"]}`, "a.evil.com:8448", "*.evil.?om")
	f.Add(`{"allow_ip_literals":false,"allow":[1]}`, "[::1]:80", "**?*")
	f.Fuzz(func(t *testing.T, content, server, pattern string) {
		if jsontext.Value(content).IsValid() {
			aclAllows(jsontext.Value(content), matrix.ServerName(server))
		}
		ascii := func(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r > 126 }) }
		if len(pattern) > 40 || len(server) > 255 || !ascii(pattern) || !ascii(server) {
			return
		}
		quoted := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
		if want := regexp.MustCompile(`(?s)^` + quoted + `$`).MatchString(server); aclGlob(pattern, server) != want {
			t.Errorf("%q matches %q: want %v", pattern, server, want)
		}
	})
}
