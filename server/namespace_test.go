package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"hearth/state/matrix"
)

var simNamespaces = flag.Int("sim.namespaces", 0, "how many seeds to simulate with processes in network namespaces; needs Linux and root")

// namespacePace is how long a second of a simulated world is among processes, whose
// time is real.
const namespacePace = 50 * time.Millisecond

// The world of TestSimulation, but of processes that have a network namespace each:
// real sockets, real time, links that go silent or refuse, and SIGKILL. A seed gives
// the same deeds each time, though not at the same moments.
func TestNamespaces(t *testing.T) {
	if *simNamespaces == 0 {
		t.Skip("see e2e/namespaces.sh")
	}
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Fatal("network namespaces need Linux and root")
	}
	binary := filepath.Join(t.TempDir(), "hearth")
	build := exec.Command("go", "build", "-o", binary, "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	first, last := uint64(1), uint64(*simNamespaces)
	if *simSeed != 0 {
		first, last = *simSeed, *simSeed
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { liveApart(t, seed, binary) })
	}
}

func liveApart(t *testing.T, seed uint64, binary string) {
	b := newBridge(t, seed)
	w := newWorld(t, seed, b)
	w.pace = namespacePace
	for n := range 3 + w.rand.IntN(6) {
		w.settle(b.newHost(n, binary))
	}
	w.live()
}

// A bridge is a namespace that joins those of the servers.
type bridge struct {
	t      *testing.T
	fabric *fabric // for what links are like, and its certificates
	name   string  // of the namespace
	folder string  // of all that the servers write

	cut map[[2]netip.Addr][2]*process // the links that are, and their ends
}

func newBridge(t *testing.T, seed uint64) *bridge {
	folder, err := os.MkdirTemp("", "hearth-namespaces-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the servers wrote is kept in %s", folder)
		} else if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	b := &bridge{
		t: t, fabric: newFabric(t, seed), folder: folder, cut: make(map[[2]netip.Addr][2]*process),
		name: fmt.Sprintf("hearth%d", os.Getpid()),
	}
	b.makeNamespace(b.name)
	b.run("ip", "-n", b.name, "link", "add", "bridge", "type", "bridge")
	b.run("ip", "-n", b.name, "link", "set", "bridge", "up")
	return b
}

// run runs a command that must not fail.
func (b *bridge) run(command ...string) {
	b.t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		b.t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// makeNamespace makes a namespace, which takes its links with it when it goes.
func (b *bridge) makeNamespace(name string) {
	b.run("ip", "netns", "add", name)
	b.t.Cleanup(func() { b.run("ip", "netns", "del", name) })
}

// newHost makes the namespace of a server, and connects it.
func (b *bridge) newHost(number int, binary string) *process {
	addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(number + 1)})
	p := &process{
		t: b.t, addr: addr, binary: binary, ca: b.fabric.file,
		namespace: fmt.Sprintf("%s-%d", b.name, number), files: filepath.Join(b.folder, fmt.Sprint(number)),
	}
	if err := os.Mkdir(p.files, 0o700); err != nil {
		b.t.Fatal(err)
	}
	b.certify(p)
	ns, port := p.namespace, fmt.Sprintf("port%d", number)
	b.makeNamespace(ns)
	b.t.Cleanup(p.crash)
	b.run("ip", "-n", b.name, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
	b.run("ip", "-n", b.name, "link", "set", port, "master", "bridge", "up")
	b.run("ip", "-n", ns, "addr", "add", addr.String()+"/24", "dev", "eth0")
	b.run("ip", "-n", ns, "link", "set", "lo", "up")
	b.run("ip", "-n", ns, "link", "set", "eth0", "up")
	delay := fmt.Sprintf("%dus", b.fabric.latency(addr, addr).Microseconds()/4)
	if out, err := exec.Command("tc", "-n", ns, "qdisc", "add", "dev", "eth0", "root", "netem", "delay", delay).CombinedOutput(); err != nil && number == 0 {
		b.t.Logf("links have no delay: %s", out)
	}
	p.client = &http.Client{
		Timeout: clientPatience,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.socket())
		}},
	}
	return p
}

// certify writes a certificate for a server, and its key.
func (b *bridge) certify(p *process) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	cert := b.fabric.certify(b.t, &x509.Certificate{IPAddresses: []net.IP{p.addr.AsSlice()}}, key, b.fabric.ca)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: cert.Raw},
		"tls.key": {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(filepath.Join(p.files, name), pem.EncodeToMemory(block), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

// setCut cuts a link or mends it. Some refuse when they are cut, and on some
// everything just gets lost.
func (b *bridge) setCut(one, other host, cut bool) {
	x, y := one.(*process), other.(*process)
	between := link(x.addr, y.addr)
	if _, was := b.cut[between]; was == cut {
		return
	}
	if cut {
		b.cut[between] = [2]*process{x, y}
	} else {
		delete(b.cut, between)
	}
	refuses := b.fabric.chance("cut", between[0], between[1])%2 == 0
	for _, way := range [][2]*process{{x, y}, {y, x}} {
		from, to := way[0].namespace, way[1].addr.String()
		switch {
		case refuses && cut:
			b.run("ip", "-n", from, "route", "add", "unreachable", to+"/32")
		case refuses:
			b.run("ip", "-n", from, "route", "del", "unreachable", to+"/32")
		case cut: // nobody has that address
			b.run("ip", "-n", from, "neigh", "replace", to, "lladdr", "02:00:00:00:00:00", "dev", "eth0", "nud", "permanent")
		default:
			b.run("ip", "-n", from, "neigh", "del", to, "dev", "eth0")
		}
	}
}

func (b *bridge) settle() {
	for _, ends := range b.cut {
		b.setCut(ends[0], ends[1], false)
	}
}

// How long a client waits for an answer, after which a server may go on, and how
// long a server may take to begin and to end.
const (
	clientPatience  = 15 * time.Second
	processPatience = 30 * time.Second
)

// A process is a server that runs the binary in a network namespace.
type process struct {
	t         *testing.T
	addr      netip.Addr
	namespace string
	files     string // the folder of all that is its own
	binary    string
	ca        string // the file of the authority
	client    *http.Client

	running *exec.Cmd // nil: it does not
	ended   chan error
}

func (p *process) name() matrix.ServerName {
	return matrix.ServerName(fmt.Sprintf("%s:8448", p.addr))
}

func (p *process) folder() string { return filepath.Join(p.files, "data") }

func (p *process) socket() string { return filepath.Join(p.files, "client") }

func (p *process) up() bool { return p.running != nil }

// start runs the server and waits until it answers.
func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.files, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	level := "info"
	if *simLog {
		level = "debug"
	}
	command := exec.Command("ip", "netns", "exec", p.namespace, p.binary, "serve",
		"--data", p.folder(), "--server-name", string(p.name()), "--memory", "64MiB",
		"--listen", "unix:"+p.socket(), "--listen-tls", string(p.name()),
		"--tls-cert", filepath.Join(p.files, "tls.crt"), "--tls-key", filepath.Join(p.files, "tls.key"),
		"--federation-ca", p.ca, "--allow-private-networks", "--registration", "open", "--rate-limits", "off",
		"--password-cost", "4", "--log-level", level)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	p.running, p.ended = command, ended
	for limit := time.Now().Add(processPatience); ; time.Sleep(20 * time.Millisecond) {
		r := httptest.NewRequest("GET", "/_matrix/client/versions", nil)
		if status, _, _ := p.answer(r); status == http.StatusOK {
			return
		}
		select {
		case err := <-ended:
			p.running = nil
			p.t.Fatalf("%s: %v\n%s", p.name(), err, p.lastWords())
		default:
		}
		if time.Now().After(limit) {
			p.t.Fatalf("%s does not begin\n%s", p.name(), p.lastWords())
		}
	}
}

// end stops the server as its owner would.
func (p *process) end() {
	if err := p.running.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Errorf("%s: %v", p.name(), err)
	}
	select {
	case err := <-p.ended:
		if err != nil {
			p.t.Errorf("%s: %v\n%s", p.name(), err, p.lastWords())
		}
		p.running = nil
	case <-time.After(processPatience):
		p.t.Errorf("%s does not end\n%s", p.name(), p.lastWords())
		p.crash()
	}
	p.client.CloseIdleConnections()
}

func (p *process) crash() {
	if p.running == nil {
		return
	}
	if err := p.running.Process.Kill(); err != nil {
		p.t.Errorf("%s: %v", p.name(), err)
	}
	<-p.ended
	p.running = nil
	p.client.CloseIdleConnections()
}

// answer sends a request of the client API over the socket. It may come to nothing
// since the client gives up.
func (p *process) answer(r *http.Request) (status int, body []byte, ok bool) {
	ask, err := http.NewRequest(r.Method, "http://client"+r.URL.RequestURI(), r.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	ask.Header, ask.ContentLength = r.Header, r.ContentLength
	answer, err := p.client.Do(ask)
	if err != nil {
		return 0, nil, false
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, body, err == nil
}

// lastWords returns the end of the server's log.
func (p *process) lastWords() string {
	log, err := os.ReadFile(filepath.Join(p.files, "log"))
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-4096):])
}
