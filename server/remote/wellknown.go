package remote

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of asking for a well-known document, and how long answers are kept.
const (
	wellKnownTimeout   = 8 * time.Second
	maxWellKnown       = 32 << 10 // bytes
	wellKnownRedirects = 5

	wellKnownDefault = 24 * time.Hour
	wellKnownLeast   = 5 * time.Minute // a server that allows less is not asked for each request
	wellKnownMost    = 48 * time.Hour

	noWellKnownFirst = time.Minute // doubled with each failure
	noWellKnownMost  = time.Hour
	// maxStale is how many failures in a row, over some two hours, a document that
	// was there before outlives.
	maxStale = 7
)

// delegate asks for a server's well-known document and puts what it says into h. A
// server that does not answer keeps the document that it had for a while; one that
// answers otherwise has none.
//
// Spec: SS Resolving server names, step 3.
func (n *Network) delegate(ctx context.Context, server matrix.ServerName, h *store.Host) {
	ctx, cancel := context.WithTimeout(ctx, wellKnownTimeout)
	defer cancel()
	name, keep, err := n.askWellKnown(ctx, server)
	if err == nil {
		h.Delegated, h.Failures, h.DelegatedUntil = name, 0, n.now().Add(keep)
		return
	}
	h.Failures = min(h.Failures+1, 32)
	if name == unanswered && h.Failures <= maxStale {
		name = h.Delegated
	} else {
		name = ""
	}
	wait := min(noWellKnownFirst<<min(h.Failures-1, 10), noWellKnownMost)
	h.Delegated, h.DelegatedUntil = name, n.now().Add(jittered(wait, n.server, server, h.Failures))
}

// unanswered is the name that stands for there being no answer at all.
const unanswered matrix.ServerName = "?"

// askWellKnown returns the name in a server's well-known document, and how long it
// may be kept. Where nobody answers, the name is unanswered.
func (n *Network) askWellKnown(ctx context.Context, server matrix.ServerName) (matrix.ServerName, time.Duration, error) {
	url := "https://" + server.Host() + "/.well-known/matrix/server"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", 0, fmt.Errorf("well-known document of %s: %w", server, err)
	}
	res, err := n.documents.Do(req)
	if err != nil {
		return unanswered, 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		name := matrix.ServerName("")
		if res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests {
			name = unanswered
		}
		return name, 0, fmt.Errorf("well-known document of %s: status %d", server, res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxWellKnown+1))
	if err != nil {
		return unanswered, 0, fmt.Errorf("well-known document of %s: %w", server, err)
	}
	name, err := parseWellKnown(body)
	if err != nil {
		return "", 0, fmt.Errorf("well-known document of %s: %w", server, err)
	}
	return name, keepFor(res.Header, n.now()), nil
}

// parseWellKnown reads a document.
func parseWellKnown(body []byte) (matrix.ServerName, error) {
	if len(body) > maxWellKnown {
		return "", matrix.ErrTooLarge
	}
	var doc struct {
		Server string `json:"m.server"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return "", err
	}
	return matrix.ParseServerName(doc.Server)
}

// keepFor returns how long an answer may be kept, by its header and our bounds.
func keepFor(h http.Header, now time.Time) time.Duration {
	keep := wellKnownDefault
	if expires, err := http.ParseTime(h.Get("Expires")); err == nil {
		keep = expires.Sub(now)
	} else if h.Get("Expires") != "" {
		keep = 0 // RFC 9111: what is no date has expired
	}
	for _, line := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
			switch name {
			case "no-store", "no-cache":
				return wellKnownLeast
			case "max-age":
				if s, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
					keep = time.Duration(s) * time.Second
				}
			}
		}
	}
	return min(max(keep, wellKnownLeast), wellKnownMost)
}

// newDocumentClient returns the client for documents: each host is asked once and
// left.
func (n *Network) newDocumentClient() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            n.dialName,
			TLSClientConfig:        n.tlsConfig(""),
			TLSHandshakeTimeout:    handshakeTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			Protocols:              protocols,
		},
		CheckRedirect: func(to *http.Request, via []*http.Request) error {
			return checkRedirect(to, via, wellKnownRedirects)
		},
	}
}

// dialName connects to "host:port".
func (n *Network) dialName(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	return n.connect(ctx, host, uint16(number))
}
