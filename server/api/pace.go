package api

import (
	"io"
	"math"
	"net/http"
	"time"
)

// A slow client is fine, a client that makes no progress is not. net/http's own
// time limits count from the start of a request, which would end long uploads,
// downloads and polls; these move with what is read and written.
type pace struct {
	stall time.Duration // the longest without any progress
	rate  int64         // bytes per second of a body, on average, after stall
	step  time.Duration // how often a deadline is moved, at most
}

// serverPace is the pace of a server: a phone that loses its network for half a
// minute goes on where it was.
var serverPace = pace{stall: 60 * time.Second, rate: 2 << 10, step: time.Second}

// copyChunk is how much of a file is sent under one deadline, in bytes.
const copyChunk = 256 << 10

// hurriedPace is that of a body that is in others' way: half a minute for all of it.
var hurriedPace = pace{stall: 30 * time.Second, rate: math.MaxInt64, step: time.Second}

// Hurry has the rest of a request's body come within half a minute from now.
func Hurry(r *http.Request) {
	if b, ok := r.Body.(*pacedBody); ok {
		b.pace, b.start, b.length = hurriedPace, time.Now(), 0
		b.extend(b.start)
	}
}

// pacedBody is a request body that must make progress.
type pacedBody struct {
	io.ReadCloser
	pace   pace
	conn   *http.ResponseController
	start  time.Time
	moved  time.Time // when the deadline was moved last
	length int64     // bytes read so far
}

// body gives the body of r its time limit. What no handler reads net/http
// reads after it, under the same limit.
func (p pace) body(w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	b := &pacedBody{ReadCloser: r.Body, pace: p, conn: http.NewResponseController(w), start: time.Now()}
	b.extend(b.start)
	r.Body = b
}

// Read reads on and moves the deadline. At the end of the body it goes: the
// server then listens for the client's leaving, which may take as long as it likes.
func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.length += int64(n)
	if err == io.EOF {
		_ = b.conn.SetReadDeadline(time.Time{}) // a recorder of a test has none
		return n, err
	}
	if now := time.Now(); now.Sub(b.moved) >= b.pace.step {
		b.extend(now)
	}
	return n, err
}

func (b *pacedBody) extend(now time.Time) {
	b.moved = now
	budget := b.start.Add(b.pace.stall + time.Duration(b.length/b.pace.rate)*time.Second)
	if soon := now.Add(b.pace.stall); soon.Before(budget) {
		budget = soon
	}
	_ = b.conn.SetReadDeadline(budget)
}

// extend moves the deadline for writing the response.
func (r *recorder) extend() {
	now := time.Now()
	if now.Sub(r.moved) >= r.pace.step {
		r.moved = now
		_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(now.Add(r.pace.stall))
	}
}

// ReadFrom keeps the system's way of copying a file to a socket, which media use,
// in chunks that each have their time limit.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	rest := &io.LimitedReader{R: src, N: 1<<63 - 1}
	if limited, ok := src.(*io.LimitedReader); ok {
		rest = limited // the system's way knows one such wrapper, not two
	}
	var total int64
	for rest.N > 0 {
		r.extend()
		chunk := &io.LimitedReader{R: rest.R, N: min(rest.N, copyChunk)}
		n, err := io.Copy(r.ResponseWriter, chunk)
		total += n
		rest.N -= n
		r.bytes += n
		if err != nil || chunk.N > 0 {
			return total, err
		}
	}
	return total, nil
}
