package server

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"hearth/state/matrix"
)

func TestDefaults(t *testing.T) {
	c, rest, err := Load([]string{"--data", t.TempDir()}, nil)
	if err != nil || len(rest) != 0 {
		t.Fatal(err, rest)
	}
	if c.ServerName != "localhost" || !reflect.DeepEqual(c.Listen, []string{"127.0.0.1:8008"}) ||
		c.Registration != RegistrationClosed || c.Federation != On || c.RateLimits != On ||
		c.Presence != PresenceOn || c.PasswordCost != 10 || c.Memory < minMemory || len(c.ListenTLS) != 0 {
		t.Errorf("%+v", c)
	}
	if w := c.Warnings(); w != nil {
		t.Errorf("defaults give warnings: %q", w)
	}
}

// A flag is stronger than the environment, which is stronger than the file.
func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	file := "server-name = 'file.example'\nlog-level = 'error'\npassword-cost = 5\nlisten = [':1', ':2']\nurl-previews = true\nappservices = '/tmp'\n"
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"HEARTH_SERVER_NAME=env.example", "HEARTH_LOG_LEVEL=warn", "HEARTH_PRESENCE=", "HOME=/", "HEARTH_DATA=" + dir}
	c, rest, err := Load([]string{"add", "--server-name=flag.example", "bob", "--allow-private-networks"}, environ)
	if err != nil {
		t.Fatal(err)
	}
	if c.ServerName != "flag.example" || c.LogLevel != LogWarn || c.PasswordCost != 5 ||
		c.AllowPrivateNetworks != On || c.URLPreviews != On || !reflect.DeepEqual(c.Listen, []string{":1", ":2"}) {
		t.Errorf("%+v", c)
	}
	if !reflect.DeepEqual(rest, []string{"add", "bob"}) {
		t.Errorf("rest %q", rest)
	}
	if w := c.Warnings(); len(w) != 1 || !strings.Contains(w[0], "appservices") {
		t.Errorf("warnings %q", w)
	}
}

func TestWrongSettingsAreErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		args, env []string
		want      string
	}{
		{args: []string{"--lisen", ":1"}, want: "did you mean listen?"},
		{args: []string{"--zzzzzzzzz", ":1"}, want: "--zzzzzzzzz is not known"},
		{args: []string{"--listen"}, want: "--listen needs a value"},
		{args: []string{"--listen", "8008"}, want: "--listen: "},
		{args: []string{"--listen", "localhost:http"}, want: "port number"},
		{args: []string{"--listen", "off"}, want: "both off"},
		{args: []string{"--listen", ":1,unix:"}, want: "file name"},
		{args: []string{"--registration", "opne"}, want: "closed, token, open"},
		{args: []string{"--allow-private-networks=maybe"}, want: "none of on, off"},
		{args: []string{"--memory", "12"}, want: "less than 32MiB"},
		{args: []string{"--memory", "-1MiB"}, want: "no size"},
		{args: []string{"--memory", "1e40"}, want: "no size"},
		{args: []string{"--memory", "lots"}, want: "no size"},
		{args: []string{"--server-name", "a b"}, want: "--server-name: "},
		{args: []string{"--trusted-proxies", "10.0.0.0/33"}, want: "no network"},
		{args: []string{"--password-cost", "99"}, want: "from 4 to 16"},
		{args: []string{"--tls-cert", "x"}, want: "belong together"},
		{args: []string{"--listen-tls", ":443"}, want: "needs a certificate"},
		{args: []string{"--acme", "on"}, want: "later release"},
		{args: []string{"--acme-ca", "http://x"}, want: "https"},
		{args: []string{"--acme-http-port", "0"}, want: "port"},
		{args: []string{"--acme-email", "nobody"}, want: "e-mail"},
		{env: []string{"HEARTH_SEVER_NAME=x"}, want: "did you mean HEARTH_SERVER_NAME?"},
		{env: []string{"HEARTH_LOG_LEVEL=loud"}, want: "HEARTH_LOG_LEVEL: "},
		{args: []string{"--config", dir + "/absent"}, want: "no such file"},
		{args: []string{"--config", write("a", "loglevel = 'info'")}, want: "did you mean log-level?"},
		{args: []string{"--config", write("b", "log-level = 'loud'")}, want: "log-level: "},
		{args: []string{"--config", write("c", "\nlog-level")}, want: "line 2"},
		{args: []string{"--config", write("d", "listen = [1]")}, want: "text only"},
		{args: []string{"--config", write("e", "memory = 1.5")}, want: "want text"},
		{args: []string{"--registration-shared-secret", "swordf"}, want: "at least 8"},
		{args: []string{"--default-room-version", "13"}, want: "no room version"},
		{args: []string{"--turn-uris", "turn.example"}, want: "no URI of a TURN server"},
		{args: []string{"--turn-uris", "turn:t"}, want: "--turn-secret"},
	}
	for _, tt := range tests {
		_, _, err := Load(append([]string{"--data", dir}, tt.args...), tt.env)
		var wrong *UsageError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q %q: got %v, want %q", tt.args, tt.env, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "swordf") {
			t.Errorf("a secret is in the error: %v", err)
		}
	}
}

func TestCommandFlags(t *testing.T) {
	admin, uses := &Flag{Name: "admin"}, &Flag{Name: "uses", Arg: "N"}
	_, rest, err := Load([]string{"bob", "--admin", "--uses", "3", "--", "--x"}, nil, admin, uses)
	if err != nil || !admin.Given() || uses.Value != "3" || !reflect.DeepEqual(rest, []string{"bob", "--x"}) {
		t.Error(err, admin, uses, rest)
	}
	if _, _, err := Load([]string{"--admn"}, nil, admin); err == nil || !strings.Contains(err.Error(), "did you mean admin?") {
		t.Error(err)
	}
}

// The sample file, with every line switched on, is a valid configuration that
// equals the defaults, except where a default is computed or empty.
func TestSampleFile(t *testing.T) {
	var sample bytes.Buffer
	writeSample(&sample)
	var on []string
	for line := range strings.Lines(sample.String()) {
		if strings.HasPrefix(line, "#") && len(line) > 1 && line[1] != ' ' && line[1] != '#' && !strings.Contains(line, `= ""`) {
			on = append(on, line[1:])
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "sample.toml")
	if err := os.WriteFile(file, []byte(strings.Join(on, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	got, _, err := Load([]string{"--config", file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got.TrustedProxies, got.TrustedKeyServers, got.TURNURIs = nil, nil, nil
	if want := (Config{}).withDefaults(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if len(on) < 20 {
		t.Errorf("the sample has %d lines only", len(on))
	}
}

func TestHelpNamesEverySetting(t *testing.T) {
	var help bytes.Buffer
	writeSettings(&help)
	seen := make(map[string]bool)
	for _, s := range new(Config).settings() {
		if !strings.Contains(help.String(), "\n  --"+s.name) || s.help == "" {
			t.Errorf("--%s has no help", s.name)
		}
		if seen[s.name] {
			t.Errorf("--%s is declared twice", s.name)
		}
		seen[s.name] = true
	}
	if fields := reflect.TypeFor[Config]().NumField(); fields != len(seen) {
		t.Errorf("%d fields, %d settings", fields, len(seen))
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	c := Config{RegistrationSharedSecret: "swordfish"}
	for _, s := range c.settings() {
		if strings.Contains(s.value.get(), "swordfish") {
			t.Errorf("--%s shows the secret", s.name)
		}
	}
}

func TestValues(t *testing.T) {
	c, _, err := Load([]string{
		"--trusted-proxies", "10.1.2.3/8, 192.0.2.1,::ffff:192.0.2.2,2001:db8::/32",
		"--trusted-key-servers", "matrix.example,[::1]:8448", "--memory", "0.5GiB", "--data", t.TempDir(),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"),
		netip.MustParsePrefix("192.0.2.2/32"), netip.MustParsePrefix("2001:db8::/32")}
	if !reflect.DeepEqual(c.TrustedProxies, want) {
		t.Errorf("proxies %v", c.TrustedProxies)
	}
	if !reflect.DeepEqual(c.TrustedKeyServers, []matrix.ServerName{"matrix.example", "[::1]:8448"}) {
		t.Errorf("key servers %v", c.TrustedKeyServers)
	}
	if c.Memory != 512<<20 || c.Memory.String() != "512MiB" {
		t.Errorf("memory %v", c.Memory)
	}
	for text, want := range map[string]Bytes{"1": 1, "2k": 2048, "3MB": 3e6, "4 GiB": 4 << 30, "0": 0, "5B": 5} {
		if got, err := parseBytes(text); err != nil || got != want {
			t.Errorf("%s: %d %v", text, got, err)
		}
	}
}

func TestDefaultMemory(t *testing.T) {
	ram := func(kib string) *fstest.MapFile { return &fstest.MapFile{Data: []byte("MemTotal: " + kib + " kB\n")} }
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	const mib = 1 << 20
	tests := []struct {
		name string
		fs   fstest.MapFS
		want Bytes
	}{
		{"nothing known", fstest.MapFS{}, 64 * mib},
		{"a small board", fstest.MapFS{"proc/meminfo": ram("524288")}, 128 * mib},
		{"a tiny board", fstest.MapFS{"proc/meminfo": ram("131072")}, 64 * mib},
		{"a big machine", fstest.MapFS{"proc/meminfo": ram("33554432")}, 256 * mib},
		{"cgroup 2", fstest.MapFS{"proc/meminfo": ram("33554432"), "proc/self/cgroup": text("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": text("max\n"), "sys/fs/cgroup/a/memory.max": text("100663296\n")}, 96 * mib},
		{"cgroup 2 in a container", fstest.MapFS{"proc/self/cgroup": text("0::/\n"), "sys/fs/cgroup/memory.max": text("536870912\n")}, 512 * mib},
		{"cgroup 2 without limit", fstest.MapFS{"proc/meminfo": ram("1048576"), "proc/self/cgroup": text("0::/\n"), "sys/fs/cgroup/memory.max": text("max")}, 256 * mib},
		{"cgroup 1", fstest.MapFS{"proc/meminfo": ram("33554432"), "proc/self/cgroup": text("9:cpu:/x\n4:memory:/docker/1\n0::/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": text("134217728\n")}, 128 * mib},
		{"cgroup 1 without limit", fstest.MapFS{"proc/meminfo": ram("1048576"), "proc/self/cgroup": text("4:memory:/\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": text("9223372036854771712\n")}, 256 * mib},
		{"a limit above the RAM", fstest.MapFS{"proc/meminfo": ram("1048576"), "proc/self/cgroup": text("0::/\n"), "sys/fs/cgroup/memory.max": text("8589934592")}, 256 * mib},
	}
	for _, tt := range tests {
		if got := defaultMemory(tt.fs); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"96MiB", "-1", "1e400", "Inf", "0x10", "nan"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseBytes(s); err == nil && (n < 0 || n > 1<<60) {
			t.Errorf("%q is %d", s, n)
		}
	})
}

// No text makes a setting panic, and what a setting accepts it writes so that it
// accepts it again.
func FuzzSettings(f *testing.F) {
	for _, s := range []string{"off", "on", ":1,unix:/x", "10.0.0.0/8", "[::1]:8448", "96MiB", "a@b", "https://x/", "12", ",", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var c, again Config
		second := again.settings()
		for i, s := range c.settings() {
			if s.value.set(text) != nil || s.name == "registration-shared-secret" {
				continue
			}
			written := s.value.get()
			if err := second[i].value.set(written); err != nil || second[i].value.get() != written {
				t.Errorf("--%s: %q is written %q, which is %q: %v", s.name, text, written, second[i].value.get(), err)
			}
		}
	})
}
