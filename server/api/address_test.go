package api

import (
	"context"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestClientIP(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	tests := []struct {
		remote  string
		headers []string
		want    string
	}{
		{"192.0.2.1:99", nil, "192.0.2.1"},
		{"192.0.2.1:99", []string{"203.0.113.9"}, "192.0.2.1"},
		{"10.0.0.1:99", nil, "10.0.0.1"},
		{"10.0.0.1:99", []string{"203.0.113.9"}, "203.0.113.9"},
		{"10.0.0.1:99", []string{"203.0.113.66, 203.0.113.9"}, "203.0.113.9"},
		{"10.0.0.1:99", []string{"203.0.113.66", "203.0.113.9, 10.1.1.1"}, "203.0.113.9"},
		{"10.0.0.1:99", []string{"10.9.9.9, 10.1.1.1"}, "10.9.9.9"},
		{"10.0.0.1:99", []string{"203.0.113.9, nonsense"}, "10.0.0.1"},
		{"10.0.0.1:99", []string{"203.0.113.9, nonsense, 10.1.1.1"}, "10.1.1.1"},
		{"10.0.0.1:99", []string{"203.0.113.9:1234"}, "203.0.113.9"},
		{"10.0.0.1:99", []string{"[2001:db8::1]:1234"}, "2001:db8::1"},
		{"10.0.0.1:99", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"10.0.0.1:99", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"10.0.0.1:99", []string{",,,"}, "10.0.0.1"},
		{"[::ffff:10.0.0.1]:99", []string{"203.0.113.9"}, "203.0.113.9"},
		{"[::1]:99", []string{"203.0.113.9"}, "203.0.113.9"},
		{"@", []string{"203.0.113.9"}, "203.0.113.9"},
		{"@", nil, "invalid IP"},
		{"", []string{"203.0.113.66, 203.0.113.9"}, "203.0.113.9"},
	}
	for _, tt := range tests {
		r := httptest.NewRequest("GET", "/", nil)
		r = r.WithContext(WithTrustedProxies(context.Background(), trusted))
		r.RemoteAddr = tt.remote
		r.Header["X-Forwarded-For"] = tt.headers
		if got := ClientIP(r).String(); got != tt.want {
			t.Errorf("%s %q: got %s, want %s", tt.remote, tt.headers, got, tt.want)
		}
	}
}
