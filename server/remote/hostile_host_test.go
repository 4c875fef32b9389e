package remote

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A hostileHost answers every request with the same hostility, and watches what that
// costs us.
type hostileHost struct {
	t    *testing.T
	good map[string]string // by the beginning of a path: what is answered instead

	mu        sync.Mutex // guards the fields below
	answer    func(w *hostileWriter)
	peak      uint64 // of the memory in use
	allocated uint64 // where that began
	sent      int    // bytes since the memory was looked at
}

// hostileWriter is a connection on which a request has come.
type hostileWriter struct {
	io.Writer
	host *hostileHost
	path string
	done <-chan struct{} // closed when we have hung up
}

// say writes text, and reports false where we have hung up.
func (w *hostileWriter) say(text string) bool {
	_, err := io.WriteString(w, text)
	w.host.count(len(text))
	return err == nil
}

// head begins an answer without an end.
func (w *hostileWriter) head(status string, headers ...string) bool {
	return w.say("HTTP/1.1 " + status + "\r\nContent-Type: application/json\r\nConnection: close\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n")
}

// whole writes an answer with a body.
func (w *hostileWriter) whole(body string) bool {
	return w.head("200 OK", fmt.Sprint("Content-Length: ", len(body))) && w.say(body)
}

// forever says the same until we hang up, or much more has come than any answer may
// have.
func (w *hostileWriter) forever(text string) {
	chunk := strings.Repeat(text, 1+32<<10/len(text))
	for w.say(chunk) {
	}
}

// slowly says one byte a second, for ever.
func (w *hostileWriter) slowly(text string) {
	for i := 0; w.say(text[i%len(text) : i%len(text)+1]); i++ {
		select {
		case <-time.After(time.Second):
		case <-w.done:
			return
		}
	}
}

// count looks now and then how much memory is in use.
func (h *hostileHost) count(n int) {
	h.mu.Lock()
	h.sent += n
	look := h.sent > 8<<20
	if look {
		h.sent = 0
	}
	h.mu.Unlock()
	if look {
		h.look()
	}
}

// look notes how much memory is in use, if that can have grown over the bound since
// begin.
func (h *hostileHost) look() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if allocated()-h.allocated > hostileHeap {
		h.peak = max(h.peak, inUse())
	}
}

// begin notes where the memory stands.
func (h *hostileHost) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.allocated, h.peak, h.sent = allocated(), 0, 0
}

// cost returns how much memory was in use at most, 0 where that was little, and how much
// was allocated in all.
func (h *hostileHost) cost() (peak, sum uint64) {
	h.look()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.peak, allocated() - h.allocated
}

// allocated is how many bytes have been allocated so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// inUse is how many bytes are needed of what was allocated.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// serve answers at an address until the test ends.
func (h *hostileHost) serve(i *internet, addr, cert string) (stop func()) {
	conns := make(chan net.Conn)
	i.mu.Lock()
	i.hosts[addr] = conns
	i.mu.Unlock()
	config := &tls.Config{Certificates: []tls.Certificate{i.certificate(cert)}}
	end := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case conn := <-conns:
				all.Go(func() { h.talk(tls.Server(conn, config)) })
			case <-end:
				return
			}
		}
	})
	return func() {
		close(end)
		all.Wait()
	}
}

// talk answers one request.
func (h *hostileHost) talk(conn *tls.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return
	}
	done := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, in)
		close(done)
	}()
	w := &hostileWriter{Writer: conn, host: h, path: req.URL.Path, done: done}
	if body, ok := h.goodAnswer(w.path); ok {
		w.whole(body)
	} else {
		h.hostility()(w)
	}
	conn.Close()
	<-gone
}

// become has the next requests be answered so.
func (h *hostileHost) become(answer func(w *hostileWriter)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = answer
}

// hostility is how requests are answered now.
func (h *hostileHost) hostility() func(w *hostileWriter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answer
}

func (h *hostileHost) goodAnswer(path string) (string, bool) {
	for prefix, body := range h.good {
		if strings.HasPrefix(path, prefix) {
			return body, true
		}
	}
	return "", false
}

// soup is an object with whatever any of our requests looks for, each of it the same.
func soup(value string) string {
	names := []string{
		"pdus", "events", "pdu_ids", "auth_chain", "auth_chain_ids", "state", "event", "members_omitted", "room_version", "knock_room_state",
		"room_id", "servers", "chunk", "next_batch", "room", "children", "inaccessible_children", "device_keys", "master_keys",
		"self_signing_keys", "one_time_keys", "user_id", "stream_id", "devices", "server_name", "verify_keys", "old_verify_keys",
		"valid_until_ts", "signatures", "server_keys", "m.server", "event_id", "origin_server_ts", "displayname", "errcode",
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("%q:%s", name, value)
	}
	return "{" + strings.Join(names, ",") + "}"
}

// gzipped is a megabyte of the same text, compressed to a kilobyte.
func gzipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, strings.Repeat(text, 1<<20/len(text)))
	_ = w.Close()
	return b.String()
}

// A hostility is what a server may do instead of answering.
type hostility struct {
	name   string
	answer func(w *hostileWriter)
}

// hostilities are those that do not depend on the request.
var hostilities = []hostility{
	{"never", func(w *hostileWriter) { <-w.done }},
	{"hangs up", func(w *hostileWriter) {}},
	{"slow head", func(w *hostileWriter) { w.slowly("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20)) }},
	{"slow blanks", func(w *hostileWriter) { w.head("200 OK"); w.slowly(" ") }},
	{"slow text", func(w *hostileWriter) { w.head("200 OK"); w.slowly(`{"x":"` + strings.Repeat("x", 1<<20)) }},
	{"slow informational", func(w *hostileWriter) { w.slowly("HTTP/1.1 103 Early Hints\r\n\r\n") }},
	{"promises much", func(w *hostileWriter) { w.head("200 OK", "Content-Length: 9223372036854775807"); w.say("{"); <-w.done }},
	{"cut", func(w *hostileWriter) { w.head("200 OK", "Content-Length: 1000"); w.say(`{"pdus":[{"a":`) }},
	{"half", func(w *hostileWriter) { w.whole(`{"pdus":[{"a":1},`) }},
	{"no HTTP", func(w *hostileWriter) { w.forever("SSH-2.0-OpenSSH ") }},
	{"endless head", func(w *hostileWriter) { w.say("HTTP/1.1 200 OK\r\n"); w.forever("X: y\r\n") }},
	{"endless line", func(w *hostileWriter) { w.say("HTTP/1.1 200 OK\r\nX: "); w.forever("y") }},
	{"endless status", func(w *hostileWriter) { w.say("HTTP/1.1 200 "); w.forever("y") }},
	{"endless informational", func(w *hostileWriter) { w.forever("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n") }},
	{"endless trailers", func(w *hostileWriter) {
		w.head("200 OK", "Transfer-Encoding: chunked")
		w.say("2\r\n{}\r\n0\r\n")
		w.forever("X: y\r\n")
	}},
	{"endless chunk extension", func(w *hostileWriter) {
		w.head("200 OK", "Transfer-Encoding: chunked")
		w.say("2;")
		w.forever("x")
	}},
	{"endless blanks", func(w *hostileWriter) { w.head("200 OK"); w.forever(" ") }},
	{"endless text", func(w *hostileWriter) { w.head("200 OK"); w.say(`{"x":"`); w.forever("x") }},
	{"endless name", func(w *hostileWriter) { w.head("200 OK"); w.say(`{"`); w.forever("x") }},
	{"endless number", func(w *hostileWriter) { w.head("200 OK"); w.say(`{"x":`); w.forever("1") }},
	{"endless error", func(w *hostileWriter) { w.head("500 Oh"); w.say(`{"errcode":"`); w.forever("x") }},
	{"endless refusal", func(w *hostileWriter) { w.head("403 No"); w.say(`{"x":[`); w.forever("0,") }},
	{"deep lists", func(w *hostileWriter) { w.whole(strings.Repeat("[", 100_000)) }},
	{"deep objects", func(w *hostileWriter) { w.whole(strings.Repeat(`{"a":`, 100_000)) }},
	{"deep within", func(w *hostileWriter) { w.whole(soup(strings.Repeat("[", 2_000) + strings.Repeat("]", 2_000))) }},
	{"deep object within", func(w *hostileWriter) {
		w.whole(`{"pdus":[` + strings.Repeat(`{"content":`, 20_000) + "{}" + strings.Repeat("}", 20_000) + "]}")
	}},
	{"compressed blanks", func(w *hostileWriter) {
		w.head("200 OK", "Content-Encoding: gzip")
		w.forever(gzipped(" "))
	}},
	{"compressed list", func(w *hostileWriter) {
		w.head("200 OK", "Content-Encoding: gzip")
		w.say(gzipped(`{"pdus":[{}`))
		w.forever(gzipped(",0"))
	}},
	{"HTML", func(w *hostileWriter) { w.whole("<!doctype html><html><body>It works!</body></html>") }},
	{"nothing", func(w *hostileWriter) { w.whole("") }},
	{"null", func(w *hostileWriter) { w.whole("null") }},
	{"list", func(w *hostileWriter) { w.whole("[]") }},
	{"number", func(w *hostileWriter) { w.whole("7") }},
	{"text", func(w *hostileWriter) { w.whole(`"$a"`) }},
	{"no Unicode", func(w *hostileWriter) { w.whole("{\"\xff\":\"\xff\"}") }},
	{"two", func(w *hostileWriter) { w.whole("{}{}") }},
	{"no content", func(w *hostileWriter) { w.head("204 No Content") }},
	{"redirect", func(w *hostileWriter) { w.head("307 There", "Location: "+w.path, "Content-Length: 0") }},
	{"other protocol", func(w *hostileWriter) {
		w.head("101 Switching Protocols", "Upgrade: x", "Connection: upgrade")
		w.forever("x")
	}},
	{"wait for ever", func(w *hostileWriter) { w.head("429 Slowly", "Retry-After: 99999999999", "Content-Length: 0") }},
}

func init() {
	for _, value := range []string{`7`, `-1e400`, `""`, `null`, `true`, `[]`, `{}`, `[7,null,"x",[],{}]`, `{"a":{"b":{"c":7}}}`, `[{"room_id":"a:b"}]`} {
		hostilities = append(hostilities, hostility{"all is " + value, func(w *hostileWriter) { w.whole(soup(value)) }})
	}
	for _, within := range []string{"device_keys", "one_time_keys", "displayname", "verify_keys", "x"} {
		hostilities = append(hostilities, hostility{"endless members in " + within, func(w *hostileWriter) {
			w.head("200 OK")
			w.say(`{"` + within + `":{`)
			for i := 0; ; i += 1000 {
				var b strings.Builder
				for k := range 1000 {
					fmt.Fprintf(&b, `"%d":{},`, i+k)
				}
				if !w.say(b.String()) {
					return
				}
			}
		}})
	}
}

// endlessLists are the hostilities of answers with a list that never ends, of names or
// of one that nobody asked for.
func endlessLists(names ...string) (all []hostility) {
	add := func(name, element string) {
		all = append(all, hostility{"endless " + name + " of " + element, func(w *hostileWriter) {
			w.head("200 OK")
			w.say(`{"` + name + `":[`)
			w.forever(element)
		}})
	}
	for _, name := range names {
		add(name, "0,")
		add(name, "{},")
	}
	add("x", "0,")
	return all
}
