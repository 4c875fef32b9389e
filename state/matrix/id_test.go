package matrix

import (
	"errors"
	"strings"
	"testing"
)

func TestParseIDs(t *testing.T) {
	long := strings.Repeat("a", MaxIDBytes)
	for _, tt := range []struct {
		kind string
		good []string
		bad  []string
	}{
		{"room", []string{
			"!abc:example.org", "!Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ", "!a:b:c", "! \t\x01:example.org",
			"!" + long[:MaxIDBytes-1], "!é:example.org",
		}, []string{"", "!", "abc", "#abc:example.org", "!\x00:example.org", "!" + long, "!\xff"}},
		{"event", []string{
			"$abc:example.org", "$CD66HAED5npg6074c6pDtLKalHjVfYb2q4Q3LZgrW6o",
			"$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk",
		}, []string{"", "$", "!abc", "$" + long, "$\x00"}},
		{"user", []string{
			"@alice:example.org", "@:example.org", "@Älice\x01 !:example.org:8448", "@a:[1234:5678::abcd]:5678", "@a:1.2.3.4",
			"@" + long[:MaxIDBytes-9] + ":aaa.org",
		}, []string{
			"", "@", "@alice", "@alice:", "@alice:exa mple", "alice:example.org", "@al\x00ice:example.org",
			"@alice:example.org:port", "@" + long[:MaxIDBytes-8] + ":aaa.org", "@a:b:c:d", "@a\xff:example.org",
		}},
		{"alias", []string{"#room:example.org", "#räume 1:example.org"},
			[]string{"", "#", "#room", "room:example.org", "#ro\x00om:example.org"}},
		{"server", []string{
			"matrix.org", "matrix.org:8888", "1.2.3.4", "1.2.3.4:1234", "[1234:5678::abcd]", "[1234:5678::abcd]:5678",
			"localhost", "MATRIX.org", "a-b.c:1", "[::ffff:1.2.3.4]", long,
		}, []string{
			"", ":80", "matrix.org:", "matrix.org:123456", "matrix.org:80a", "matrix_org", "mätrix.org", "[::1", "::1",
			"[::1]x", "[fe80::1%eth0]", "[1.2.3.4]", "[]", "a/b", "a b", long + "a", "[::1]]", "a:80:80",
		}},
		{"device", []string{"ABCDEF", "my device", "é"}, []string{"", "a\x00", long + "a", "\xff"}},
	} {
		for _, s := range tt.good {
			if err := parseKind(tt.kind, s); err != nil {
				t.Errorf("%s %q: %v", tt.kind, s, err)
			}
		}
		for _, s := range tt.bad {
			if err := parseKind(tt.kind, s); !errors.Is(err, ErrBadID) {
				t.Errorf("%s %q: %v, want ErrBadID", tt.kind, s, err)
			}
		}
	}
}

func parseKind(kind, s string) (err error) {
	switch kind {
	case "room":
		_, err = ParseRoomID(s)
	case "event":
		_, err = ParseEventID(s)
	case "user":
		_, err = ParseUserID(s)
	case "alias":
		_, err = ParseRoomAlias(s)
	case "server":
		_, err = ParseServerName(s)
	case "device":
		_, err = ParseDeviceID(s)
	}
	return err
}

func TestIDParts(t *testing.T) {
	user, alias := UserID("@alice:example.org:8448"), RoomAlias("#room:[::1]:80")
	if user.Localpart() != "alice" || user.Server() != "example.org:8448" || user.Server().Host() != "example.org" {
		t.Errorf("%s: %q, %q, %q", user, user.Localpart(), user.Server(), user.Server().Host())
	}
	if alias.Localpart() != "room" || alias.Server() != "[::1]:80" || alias.Server().Host() != "[::1]" {
		t.Errorf("%s: %q, %q, %q", alias, alias.Localpart(), alias.Server(), alias.Server().Host())
	}
	if UserID("").Localpart() != "" || UserID("").Server() != "" || ServerName("[::1]").Host() != "[::1]" {
		t.Error("zero values have parts")
	}
	for _, tt := range []struct {
		room   RoomID
		server ServerName
		ok     bool
	}{
		{"!abc:example.org", "example.org", true},
		{"!Nhcu5BS-UMnFX7hBVfVSoXiD7OgH6iRT-xyIuqDnpYQ", "", false},
	} {
		if server, ok := tt.room.Server(); server != tt.server || ok != tt.ok {
			t.Errorf("%s: %q, %v", tt.room, server, ok)
		}
	}
	if server, ok := EventID("$abc:example.org").Server(); server != "example.org" || !ok {
		t.Errorf("event ID: %q, %v", server, ok)
	}
}

func TestNewUserID(t *testing.T) {
	if u, err := NewUserID("alice._=-/+0", "example.org"); err != nil || u != "@alice._=-/+0:example.org" {
		t.Errorf("%q, %v", u, err)
	}
	for _, tt := range []struct {
		localpart string
		server    ServerName
	}{
		{"", "example.org"}, {"Alice", "example.org"}, {"älice", "example.org"}, {"al ice", "example.org"},
		{"al:ice", "example.org"}, {"alice", ""}, {"alice", "a b"}, {strings.Repeat("a", 250), "example.org"},
	} {
		if u, err := NewUserID(tt.localpart, tt.server); !errors.Is(err, ErrBadID) {
			t.Errorf("NewUserID(%q, %q) = %q, %v", tt.localpart, tt.server, u, err)
		}
	}
}

// What parses has parts that make it up again, and hostile text gives short errors.
func FuzzIDs(f *testing.F) {
	for _, s := range []string{"@alice:example.org", "#r:[::1]:80", "!x", "$\x00", "@:1.2.3.4:99999", "a:b:c", "[::%a]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, kind := range []string{"room", "event", "user", "alias", "server", "device"} {
			if err := parseKind(kind, s); err != nil && len(err.Error()) > 400 {
				t.Errorf("an error of %d bytes: %v", len(err.Error()), err)
			}
		}
		if u, err := ParseUserID(s); err == nil {
			if made := "@" + u.Localpart() + ":" + string(u.Server()); made != s {
				t.Errorf("%q falls into the parts of %q", s, made)
			}
			if _, err := ParseServerName(string(u.Server())); err != nil {
				t.Errorf("%q: %v", s, err)
			}
		}
		if n, err := ParseServerName(s); err == nil && n.Host() == "" {
			t.Errorf("%q has no host", s)
		}
	})
}
