// Command measure starts a Hearth binary on fresh data and prints what it costs
// when nothing happens: the time to its first answer, its anonymous memory idle,
// and what each parked /sync adds to that.
//
//	go build -o hearth . && go run ./server/e2e/measure -hearth ./hearth
//
// Memory is RssAnon of /proc/PID/status, in bytes. It needs Linux.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	binary := flag.String("hearth", "", "the binary to measure")
	polls := flag.Int("polls", 500, "how many syncs are parked")
	users := flag.Int("users", 50, "how many users they belong to")
	settle := flag.Duration("settle", 60*time.Second, "how long to wait before memory is read; within 50 s of a burst Hearth gives back what it does not need")
	flag.Parse()
	if *binary == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*binary, *polls, *users, *settle); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func run(binary string, polls, users int, settle time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "hearth-measure")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p, err := start(binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	fmt.Printf("start to first answer: %.0f ms\n", float64(p.started.Microseconds())/1000)
	time.Sleep(settle)
	fmt.Printf("RssAnon idle: %.1f MiB\n", float64(p.anonymous())/(1<<20))

	tokens := make([]string, users)
	for i := range tokens {
		if tokens[i], err = p.register("user" + strconv.Itoa(i)); err != nil {
			return err
		}
	}
	since := make([]string, users)
	for i, token := range tokens {
		if since[i], err = p.prepare(token); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parked sync.WaitGroup
	var back atomic.Int64
	// The first hundred take whatever else the requests before them cost; what a
	// poll costs is told by those that follow.
	const first = 100
	var memory [2]int64
	for step, upto := range []int{first, first + polls} {
		for i := step * first; i < upto; i++ {
			parked.Go(func() { p.park(ctx, tokens[i%users], since[i%users], 3*settle, &back) })
		}
		time.Sleep(settle)
		memory[step] = p.anonymous()
		fmt.Printf("RssAnon with %d users and %d parked syncs: %.1f MiB\n", users, upto, float64(memory[step])/(1<<20))
	}
	if n := back.Load(); n > 0 {
		fmt.Fprintf(os.Stderr, "measure: %d of %d parked syncs came back\n", n, first+polls)
	}
	fmt.Printf("a parked sync: %.1f KiB\n", float64(memory[1]-memory[0])/1024/float64(polls))
	cancel()
	parked.Wait()
	return nil
}

// process is a running server.
type process struct {
	cmd     *exec.Cmd
	url     string
	started time.Duration
	client  *http.Client
}

// start starts the binary and waits for its first answer.
func start(binary, dir string) (*process, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "serve", "--data", dir, "--listen", addr, "--registration", "open",
		"--rate-limits", "off", "--password-cost", "4", "--log-level", "error")
	cmd.Stderr = os.Stderr
	p := &process{cmd: cmd, url: "http://" + addr, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 1},
	}}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for time.Since(begin) < 10*time.Second {
		if err := p.call(http.MethodGet, "/_matrix/client/versions", "", nil, nil); err == nil {
			p.started = time.Since(begin)
			return p, nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil, errors.Join(errors.New("no answer within ten seconds"), p.stop())
}

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.cmd.Wait()
}

// anonymous is RssAnon in bytes.
func (p *process) anonymous() int64 {
	f, err := os.Open("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

func (p *process) register(name string) (string, error) {
	var answer struct {
		Token string `json:"access_token"`
	}
	body := map[string]any{"username": name, "password": "a password", "auth": map[string]string{"type": "m.login.dummy"}}
	err := p.call(http.MethodPost, "/_matrix/client/v3/register", "", body, &answer)
	return answer.Token, err
}

// prepare gives a user some rooms and returns the token behind them.
func (p *process) prepare(token string) (string, error) {
	for i := range 5 {
		body := map[string]any{"name": "Room " + strconv.Itoa(i)}
		if err := p.call(http.MethodPost, "/_matrix/client/v3/createRoom", token, body, nil); err != nil {
			return "", err
		}
	}
	var answer struct {
		Next string `json:"next_batch"`
	}
	err := p.call(http.MethodGet, "/_matrix/client/v3/sync", token, nil, &answer)
	return answer.Next, err
}

// park holds a sync open on a connection of its own, and counts it in back if it
// is answered before ctx ends.
func (p *process) park(ctx context.Context, token, since string, timeout time.Duration, back *atomic.Int64) {
	path := fmt.Sprintf("%s/_matrix/client/v3/sync?timeout=%d&since=%s", p.url, timeout.Milliseconds(), url.QueryEscape(since))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if res, err := http.DefaultClient.Do(req); err == nil {
		_ = res.Body.Close()
		back.Add(1)
	}
}

// call makes a request and reads the answer into out, unless that is nil.
func (p *process) call(method, path, token string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, p.url+path, body)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
