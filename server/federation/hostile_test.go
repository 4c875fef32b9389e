package federation

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// flood is a body without an end, and says how much of it was taken.
type flood struct {
	text  string
	taken int
}

func (f *flood) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], f.text)
	}
	if f.taken += n; f.taken > 64<<20 {
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}

// Whatever another server sends to any endpoint, it gets an error of the 400s with a
// code, and costs no more than the body may have; so does who has signed nothing.
func TestHostileRequests(t *testing.T) {
	g := newGate(t)
	parameter := regexp.MustCompile(`\{(\w+)\??\}`)
	fill := map[string]string{
		"roomID": "!a:here.test", "userID": "@a:here.test", "eventID": "$a", "txnID": "1", "serverName": "here.test", "keyID": "ed25519:a",
		"mediaID": "abc", "queryType": "x",
	}
	objects := []string{
		`7`, `null`, `"x"`, `[]`, `{`, ``, "{\"\xff", `{"a":1`, strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 100_000),
		`{"pdus":7}`, `{"pdus":{"a":7}}`, `{"edus":"x"}`, "<html>",
	}
	for _, rt := range routes {
		method, pattern, _ := strings.Cut(rt.pattern, " ")
		uri := parameter.ReplaceAllStringFunc(pattern, func(p string) string { return fill[strings.Trim(p, "{}?")] })
		signed := func(body string) string {
			return fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, peer, here, peerKey.ID, g.signRaw(method, uri, body))
		}
		if rt.access == open && method == "GET" {
			continue // its body is not looked at
		}
		for _, claim := range []string{
			"", "X-Matrix", "Bearer x", "X-Matrix origin=peer.test", `X-Matrix origin="peer.test`, "X-Matrix " + strings.Repeat("a=b,", 10_000),
			`X-Matrix origin=peer.test,key="ed25519:peer",sig="` + strings.Repeat("A", 86) + `"`, `X-Matrix origin="@",key=a,sig=b`,
		} {
			if status, code := g.hostile(t, method, uri, strings.NewReader("{}"), claim); rt.access != open && (status != 401 || code != "M_UNAUTHORIZED") {
				t.Errorf("%s with %.60q: %d %s", rt.pattern, claim, status, code)
			}
		}
		if method != "GET" {
			for _, body := range objects {
				status, code := g.hostile(t, method, uri, strings.NewReader(body), signed(body))
				if status == 200 && strings.HasSuffix(uri, "/publicRooms") {
					continue // nothing of its body need be there
				}
				if status < 400 || status >= 500 || !strings.HasPrefix(code, "M_") {
					t.Errorf("%s with %.40q: %d %s", rt.pattern, body, status, code)
				}
			}
		}
		if full := int(max(rt.body, maxBody)); rt.access != open {
			body := `{"a":[` + strings.Repeat("0,", full/2-8) + `0]}` // as much as may come, in the smallest parts
			forged := fmt.Sprintf(`X-Matrix origin="%s",key="%s",sig="%s"`, peer, peerKey.ID, strings.Repeat("A", 86))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			status, code := g.hostile(t, method, uri, strings.NewReader(body), forged)
			runtime.ReadMemStats(&after)
			if sum := int(after.TotalAlloc - before.TotalAlloc); status != 401 || code != "M_UNAUTHORIZED" || sum > min(60*full, 125<<20) {
				t.Errorf("%s with %d bytes that are not signed: %d %s, %d bytes allocated", rt.pattern, full, status, code, sum)
			}
		}
		for _, text := range []string{" ", "[", `{"a":`, "0,", "x"} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			body := &flood{text: text}
			status, code := g.hostile(t, method, uri, body, signed("{}"))
			runtime.ReadMemStats(&after)
			limit := int(max(rt.body, maxBody))
			if status < 400 || status >= 500 || !strings.HasPrefix(code, "M_") {
				t.Errorf("%s with much of %q: %d %s", rt.pattern, text, status, code)
			}
			if sum := int(after.TotalAlloc - before.TotalAlloc); body.taken > limit+(128<<10) || sum > 8*limit+(1<<20) {
				t.Errorf("%s with much of %q: %d bytes were taken and %d allocated", rt.pattern, text, body.taken, sum)
			}
		}
	}
	if b := &g.server.bodies; b.sum != 0 || len(b.held) != 0 {
		t.Errorf("the memory of bodies is not given back: %d, %v", b.sum, b.held)
	}
}

// hostile makes a request and returns the status and the code of the answer.
func (g *gate) hostile(t *testing.T, method, uri string, body io.Reader, claim string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, uri, body)
	r.Header.Set("Authorization", claim)
	w := httptest.NewRecorder()
	g.router.ServeHTTP(w, r)
	var answer struct {
		Code string `json:"errcode"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil && w.Code >= http.StatusBadRequest {
		t.Errorf("%s %s: %d is no Matrix error: %.60q", method, uri, w.Code, w.Body)
	}
	return w.Code, answer.Code
}
