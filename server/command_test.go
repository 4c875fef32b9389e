package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// running is a server under test.
type running struct {
	*Server
	stop func() error // ends Run and returns its error
}

// start runs a server until stop or the end of the test.
func start(t *testing.T, config Config) *running {
	t.Helper()
	config.PasswordCost = 4
	s, err := New(config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return run(t, s)
}

// run runs a server that is open.
func run(t *testing.T, s *Server) *running {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r := &running{Server: s, stop: func() error {
		cancel()
		select {
		case err := <-done:
			done <- nil
			return err
		case <-time.After(time.Minute):
			return errors.New("the server does not stop")
		}
	}}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// freeAddress returns an address of this host that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// script plays testdata/commands.txt.
type script struct {
	t      *testing.T
	temp   string // TMP
	config Config
	server *running
}

// The subcommands, with a server that runs and without: what testdata/commands.txt
// says they print. The data directory has a name that no socket's address holds.
func TestCommands(t *testing.T) {
	content, err := os.ReadFile("testdata/commands.txt")
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), strings.Repeat("long", 30), "data")
	s := &script{t: t, temp: t.TempDir(), config: Config{Data: data, ServerName: "hearth.example", Listen: []string{freeAddress(t)}}}
	for _, step := range strings.Split("\n"+string(content), "\n$ ")[1:] {
		line, want, _ := strings.Cut(step, "\n")
		t.Run(line, func(t *testing.T) {
			if got, want := s.play(line), tidy(want); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// play runs one line and returns what it printed, with what changes from run to
// run replaced by names.
func (s *script) play(line string) string {
	switch line {
	case "start":
		s.server = start(s.t, s.config)
		return ""
	case "elsewhere": // another data directory from now on
		s.config.Data = filepath.Join(s.temp, "data")
		return ""
	case "stop":
		if err := s.server.stop(); err != nil {
			return err.Error()
		}
		return ""
	}
	line, input, _ := strings.Cut(strings.ReplaceAll(line, "TMP", s.temp), " <")
	args := strings.Fields(line)
	if before, quoted, found := strings.Cut(line, `"`); found {
		args = append(strings.Fields(before), strings.TrimSuffix(quoted, `"`))
	}
	args = append(args, "--data", s.config.Data, "--listen", s.config.Listen[0], "--password-cost", "4")
	out, code := invoke(s.t, args, strings.TrimSpace(input))
	out = strings.NewReplacer(s.config.Data, "DATA", s.temp, "TMP", s.config.Listen[0], "LISTEN",
		time.Now().Format(time.DateOnly), "TODAY").Replace(out)
	out = changing.ReplaceAllStringFunc(out, func(found string) string {
		switch {
		case strings.HasSuffix(found, " bytes"):
			return "SIZE bytes"
		case strings.HasPrefix(found, "ed25519:"):
			return "ed25519:KEY"
		}
		return "SOMETHING"
	})
	if code != 0 {
		out = fmt.Sprintf("exit %d\n%s", code, out)
	}
	return tidy(out)
}

// changing is what differs from run to run: sizes and temporary names.
var changing = regexp.MustCompile(`\d+ bytes|\.backup-\d+\.tmp|ed25519:[a-z2-7]{8}`)

// tidy removes comments and what stands at the end of lines.
func tidy(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimRight(line, " \n"); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// invoke runs one command with input, and returns what it printed and its code.
func invoke(t *testing.T, args []string, input string) (string, int) {
	t.Helper()
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	fmt.Fprintln(feed, input)
	feed.Close()
	var out bytes.Buffer
	code := Main(context.Background(), args, nil, Stdio{In: in, Out: &out, Err: &out}, func(ctx context.Context, c Config, std Stdio) error {
		_, err := fmt.Fprintf(std.Out, "serves %s\n", c.ServerName)
		return err
	})
	return out.String(), code
}

func TestDispatch(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		args []string
		want string // the beginning of the output
		code int
	}{
		{nil, "serves localhost", 0},
		{[]string{"serve"}, "serves localhost", 0},
		{[]string{"--server-name", "a.example"}, "serves a.example", 0},
		{[]string{"serve", "--server-name=b.example"}, "serves b.example", 0},
		{[]string{"serve", "now"}, "hearth: usage: hearth serve", 2},
		{[]string{"--lisen", ":1"}, "hearth: --lisen is not known: did you mean listen?", 2},
		{[]string{"help"}, "Hearth is a Matrix homeserver", 0},
		{[]string{"-h"}, "Hearth is a Matrix homeserver", 0},
		{[]string{"--help"}, "Hearth is a Matrix homeserver", 0},
		{[]string{"serve", "-h"}, "usage: hearth [serve] [settings]", 0},
		{[]string{"help", "serve"}, "usage: hearth [serve] [settings]", 0},
		{[]string{"help", "config"}, "# hearth.toml", 0},
		{[]string{"help", "user", "add"}, "usage: hearth user add NAME", 0},
		{[]string{"user", "add", "-h"}, "usage: hearth user add NAME", 0},
		{[]string{"help", "nonsense"}, "hearth: command nonsense is not known", 2},
		{[]string{"version"}, "hearth " + release, 0},
		{[]string{"user", "add", "x", "--uses", "3"}, "hearth: --uses is not known", 2},
	}
	for _, tt := range tests {
		args := tt.args
		if len(args) > 0 && args[0] != "help" && !asksHelp(args) {
			args = append(args, "--data", dir)
		}
		got, code := invoke(t, args, "")
		if !strings.HasPrefix(got, tt.want) || code != tt.code {
			t.Errorf("%q: got %d %.200s, want %d %s", tt.args, code, got, tt.code, tt.want)
		}
	}
}

// A second server on the same data is refused, and so is another name for it.
func TestDataBelongsToOneServer(t *testing.T) {
	config := Config{Data: t.TempDir(), ServerName: "one.example", Listen: []string{"127.0.0.1:0"}}
	first := start(t, config)
	if _, err := New(config, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("two servers use the same data")
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	config.ServerName = "two.example"
	if _, err := New(config, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("the data was given to another server name")
	}
}

// A port that is taken is an error at start, and nothing stays open after it.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Data: t.TempDir(), Listen: []string{l.Addr().String()}}
	if _, err := New(config, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("the port was taken")
	}
	l.Close()
	start(t, config)
}

// Nobody but the owner of the data may open the socket.
func TestAdminSocketIsPrivate(t *testing.T) {
	config := Config{Data: filepath.Join(t.TempDir(), "d"), Listen: []string{"127.0.0.1:0"}}
	start(t, config)
	info, err := os.Stat(filepath.Join(config.Data, adminSocket))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	info, err = os.Stat(config.Data)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestWelcome(t *testing.T) {
	s := start(t, Config{Data: t.TempDir(), Listen: []string{"127.0.0.1:0"}})
	var out bytes.Buffer
	if err := s.Welcome(&out); err != nil || !strings.Contains(out.String(), "user add NAME --data ") {
		t.Errorf("%v %q", err, &out)
	}
	if _, err := s.owner.addUser(context.Background(), "alice", "swordfish", false); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := s.Welcome(&out); err != nil || out.Len() != 0 {
		t.Errorf("%v %q", err, &out)
	}
}

func TestHealth(t *testing.T) {
	s := start(t, Config{Data: t.TempDir(), Listen: []string{"127.0.0.1:0"}})
	res, err := http.Get("http://" + s.Addresses()[0].String() + healthPath)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
}

// Who changes their mind at the question for a password gets their shell back.
func TestPasswordPromptEndsWithContext(t *testing.T) {
	in, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer typed.Close() // ends the read
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := readPassword(ctx, Stdio{In: in, Out: io.Discard, Err: io.Discard}); !errors.Is(err, errInterrupted) {
		t.Errorf("the prompt ends with %v", err)
	}
}
