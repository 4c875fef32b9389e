package remote

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestPrivacy(t *testing.T) {
	for _, tt := range []struct {
		public bool
		addrs  string
	}{
		{true, "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.0 192.167.0.1 198.17.0.1 198.20.0.1 " +
			"223.255.255.255 9.255.255.255 11.0.0.0 128.0.0.1 169.253.0.1"},
		{true, "2606:4700::1111 2a00:1450::1 2001:4860::8888 64:ff9b::808:808 2002:808:808::1 ::ffff:8.8.8.8"},
		{false, "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.0.1 169.254.169.254"},
		{false, "172.16.0.1 172.31.255.255 192.0.0.8 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255"},
		{false, "198.51.100.7 203.0.113.9 224.0.0.1 239.1.2.3 240.0.0.1 255.255.255.255"},
		{false, ":: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.1.1.1 ::ffff:192.168.0.1 ::ffff:0:7f00:1"},
		{false, "fc00::1 fd12:3456::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1 100::1 2001::1 2001:10::1 2001:db8::1 3fff::1 5f00::1"},
		{false, "64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1 64:ff9b:1::808:808 2002:7f00:1:: 2002:c0a8:101::1 2002:a00:1::"},
		{false, "2606:4700::1%eth0 4000::1"},
	} {
		for _, text := range strings.Fields(tt.addrs) {
			if is := privacy(netip.MustParseAddr(text)); (is == "") != tt.public {
				t.Errorf("%s is %q, want public: %v", text, is, tt.public)
			}
		}
	}
}

// Whatever the URL calls this host, and wherever a redirect leads, the dialer
// refuses unless the owner allows it.
func TestDialerRefusesThisHost(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "inside") }))
	defer web.Close()
	port := web.Listener.Addr().(*net.TCPAddr).Port
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		at := fmt.Sprintf("http://%s:%d/", host, port)
		if _, err := NewDialer(false).Client(ClientConfig{}).Get(at); !errors.Is(err, ErrPrivateAddress) {
			t.Errorf("%s: %v", at, err)
		}
		res, err := NewDialer(true).Client(ClientConfig{}).Get(at)
		if err != nil {
			t.Errorf("%s, allowed: %v", at, err)
			continue
		}
		res.Body.Close()
	}
}

// The environment's proxy is not asked: it would reach what we must not.
func TestClientUsesNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	transport := NewDialer(false).Client(ClientConfig{}).Transport.(*http.Transport)
	if transport.Proxy != nil {
		t.Error("requests go through the environment's proxy")
	}
}

func TestRedirects(t *testing.T) {
	var web *httptest.Server
	web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/once":
			http.Redirect(w, r, web.URL+"/end", http.StatusFound)
		case "/file":
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		default:
			fmt.Fprint(w, "end")
		}
	}))
	defer web.Close()
	three := NewDialer(true).Client(ClientConfig{Redirects: 3})
	for _, tt := range []struct {
		client *http.Client
		path   string
		want   string // the body; "": refused
	}{
		{three, "/once", "end"},
		{three, "/loop", ""},
		{three, "/file", ""},
		{NewDialer(true).Client(ClientConfig{}), "/once", "<a href"},
	} {
		res, err := tt.client.Get(web.URL + tt.path)
		if tt.want == "" {
			if !errors.Is(err, ErrRedirect) {
				t.Errorf("%s: %v", tt.path, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.path, err)
			continue
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if !strings.HasPrefix(string(body), tt.want) {
			t.Errorf("%s: %q", tt.path, body)
		}
	}
	from := &http.Request{URL: &url.URL{Scheme: "https"}}
	to := &http.Request{URL: &url.URL{Scheme: "http"}}
	if err := checkRedirect(to, []*http.Request{from}, 3); !errors.Is(err, ErrRedirect) {
		t.Errorf("from https to http: %v", err)
	}
}
