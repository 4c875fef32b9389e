package client

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
)

// TestScripts runs testdata/*.txt: conversations with the server, each on a fresh
// one. A script has one step after the other:
//
//	# a comment
//	config registration=token limits=on
//	account alice her-password
//	POST /_matrix/client/v3/login
//	{"type": "m.login.password", "user": "alice", "password": "her-password"}
//	=> 200 {"user_id": "@alice:hearth.test", "access_token": "<token>", "well_known": "-"}
//
//	GET /_matrix/client/v3/account/whoami as $token
//	=> 200
//	{"device_id": "*"}
//
// A request is a method, a path and, after "as", an access token; lines "@Name:
// value" under it are headers, the others its body. The answer has a status, lines
// "@Name: value" for headers that must begin so, and JSON: each member must be in
// the answer, which may have more; lists must be alike but for [..., x], which wants
// x somewhere. "*" is anything, "-" must not be there, and "<name>" is kept as the
// variable $name for later steps; of "before<name>" what is behind "before". In paths,
// variables are escaped.
//
// "account NAME PASSWORD" makes an account, keeps the access token of its device
// NAME (in capitals) as $NAME, and its ID as $NAME_id. "advance 10m" sets the clock
// forward. "config" comes first; its keys are registration (closed, token, open;
// open if not said), limits=on, presence (local, off), shared-secret, base-url, turn, support and token: a
// registration token and how often it may be used, as in token=abc/2.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			runScript(t, file)
		})
	}
}

// script is a script that is being run.
type script struct {
	t      *testing.T
	file   string
	lines  []string
	at     int // the line that is next, from 0
	server *testServer
	vars   map[string]string // values of variables; what is no string, as JSON
	config scriptConfig
}

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, file: file, lines: strings.Split(string(text), "\n"), vars: make(map[string]string)}
	s.config.Registration = RegistrationOpen
	for s.at < len(s.lines) {
		line := strings.TrimSpace(s.lines[s.at])
		s.at++
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || line[0] == '#':
		case verb == "config":
			s.configure(strings.Fields(rest))
		default:
			s.start()
			s.step(verb, rest)
		}
	}
}

// fatalf ends the script with what is wrong at its present line.
func (s *script) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s:%d: %s", s.file, s.at, fmt.Sprintf(format, args...))
}

// step runs one step whose first line has been read.
func (s *script) step(verb, rest string) {
	s.t.Helper()
	switch verb {
	case "account":
		name, password, _ := strings.Cut(rest, " ")
		s.vars[name] = s.server.account(s.t, name, password)
		s.vars[name+"_id"] = "@" + name + ":" + string(testServerName)
	case "advance":
		d, err := time.ParseDuration(rest)
		if err != nil {
			s.fatalf("%v", err)
		}
		s.server.clock.Advance(d)
	case http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodHead, http.MethodOptions:
		s.request(verb, rest)
	default:
		s.fatalf("unknown step %q", verb)
	}
}

// request sends a request and compares the answer.
func (s *script) request(method, rest string) {
	s.t.Helper()
	path, token, _ := strings.Cut(rest, " as ")
	var body []string
	headers := make(http.Header)
	for s.at < len(s.lines) && !strings.HasPrefix(s.lines[s.at], "=>") {
		s.block(s.lines[s.at], headers, &body)
		s.at++
	}
	if s.at == len(s.lines) {
		s.fatalf("no => after %s %s", method, path)
	}
	r := httptest.NewRequest(method, s.expand(path, url.PathEscape), strings.NewReader(s.expand(strings.Join(body, "\n"), jsonInner)))
	r.Header = headers
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+s.expand(token, plain))
	}
	w := httptest.NewRecorder()
	s.server.router.ServeHTTP(w, r)
	s.answer(w)
}

// block takes one line of a request or an answer.
func (s *script) block(line string, headers http.Header, body *[]string) {
	if header, found := strings.CutPrefix(line, "@"); found {
		name, value, _ := strings.Cut(header, ":")
		headers.Add(name, s.expand(strings.TrimSpace(value), plain))
	} else {
		*body = append(*body, line)
	}
}

// answer reads what is expected, from the line => on, and compares it with w.
func (s *script) answer(w *httptest.ResponseRecorder) {
	s.t.Helper()
	first := strings.TrimSpace(strings.TrimPrefix(s.lines[s.at], "=>"))
	s.at++
	status, rest, _ := strings.Cut(first, " ")
	body := []string{rest}
	headers := make(http.Header)
	for s.at < len(s.lines) && strings.TrimSpace(s.lines[s.at]) != "" {
		s.block(s.lines[s.at], headers, &body)
		s.at++
	}
	if got := fmt.Sprint(w.Code); got != status {
		s.fatalf("status %s, want %s\n%s", got, status, w.Body)
	}
	for name := range headers {
		if got, want := w.Header().Get(name), headers.Get(name); !strings.HasPrefix(got, want) {
			s.fatalf("header %s: %q, want %q", name, got, want)
		}
	}
	want := strings.TrimSpace(s.expand(strings.Join(body, "\n"), jsonInner))
	if want == "" {
		return
	}
	wanted, got := s.parse(want), s.parse(w.Body.String())
	if fault := s.compare("", wanted, got); fault != "" {
		s.fatalf("%s\n%s", fault, w.Body)
	}
}

func (s *script) parse(text string) any {
	s.t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v, jsontext.AllowDuplicateNames(true)); err != nil {
		s.fatalf("not JSON: %v\n%s", err, text)
	}
	return v
}

// compare returns "" where got is as wanted, else what differs and where.
func (s *script) compare(where string, want, got any) string {
	switch want := want.(type) {
	case string:
		if m := kept.FindStringSubmatch(want); m != nil {
			return s.keepBehind(where, m[1], m[2], got)
		}
		if want == "*" {
			return ""
		}
	case map[string]any:
		return s.compareObject(where, want, got)
	case []any:
		return s.compareList(where, want, got)
	}
	if want != got {
		return fmt.Sprintf("%s is %v, want %v", where, got, want)
	}
	return ""
}

func (s *script) compareObject(where string, want map[string]any, got any) string {
	object, isObject := got.(map[string]any)
	if !isObject {
		return fmt.Sprintf("%s is %v, want an object", where, got)
	}
	for name, w := range want {
		value, found := object[name]
		switch {
		case w == "-" && found:
			return fmt.Sprintf("%s.%s is %v, want nothing there", where, name, value)
		case w == "-":
			continue
		case !found:
			return fmt.Sprintf("%s.%s is not there", where, name)
		}
		if fault := s.compare(where+"."+name, w, value); fault != "" {
			return fault
		}
	}
	return ""
}

func (s *script) compareList(where string, want []any, got any) string {
	list, isList := got.([]any)
	if !isList {
		return fmt.Sprintf("%s is %v, want a list", where, got)
	}
	if len(want) > 0 && want[0] == "..." {
		for _, w := range want[1:] {
			if !slices.ContainsFunc(list, func(g any) bool { return s.compare(where, w, g) == "" }) {
				return fmt.Sprintf("%s does not have %v", where, w)
			}
		}
		return ""
	}
	if len(want) != len(list) {
		return fmt.Sprintf("%s has %d entries, want %d", where, len(list), len(want))
	}
	for i := range want {
		if fault := s.compare(fmt.Sprintf("%s[%d]", where, i), want[i], list[i]); fault != "" {
			return fault
		}
	}
	return ""
}

// kept is text of which the end is kept.
var kept = regexp.MustCompile(`^(.*)<([a-z_0-9]+)>$`)

// keepBehind makes what stands behind a prefix a variable, or a whole value.
func (s *script) keepBehind(where, prefix, name string, got any) string {
	if text, isText := got.(string); isText {
		rest, found := strings.CutPrefix(text, prefix)
		if !found {
			return fmt.Sprintf("%s is %q, want %q and more", where, text, prefix)
		}
		got = rest
	} else if prefix != "" {
		return fmt.Sprintf("%s is %v, want text", where, got)
	}
	s.keep(name, got)
	return ""
}

// keep makes a value a variable.
func (s *script) keep(name string, value any) {
	if text, isText := value.(string); isText {
		s.vars[name] = text
		return
	}
	text, err := json.Marshal(value)
	if err != nil {
		s.fatalf("keep %s: %v", name, err)
	}
	s.vars[name] = string(text)
}

var variable = regexp.MustCompile(`\$[a-z_0-9]+`)

// expand puts the values of variables into text, each as escape makes it.
func (s *script) expand(text string, escape func(string) string) string {
	return variable.ReplaceAllStringFunc(text, func(name string) string {
		value, known := s.vars[name[1:]]
		if !known {
			s.fatalf("%s has no value", name)
		}
		return escape(value)
	})
}

func plain(s string) string { return s }

// jsonInner returns what stands between the quotes of s as a JSON string.
func jsonInner(s string) string {
	q := string(quote(s))
	return q[1 : len(q)-1]
}

// scriptConfig is what the line "config" says.
type scriptConfig struct {
	Config
	limits bool
	tokens []string // registration tokens, as in abc/2
}

func (s *script) configure(settings []string) {
	if s.server != nil {
		s.fatalf("config must come first")
	}
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		switch name {
		case "registration":
			s.config.Registration = map[string]Registration{"token": RegistrationToken, "open": RegistrationOpen}[value]
		case "limits":
			s.config.limits = value == "on"
		case "presence":
			s.config.Presence = map[string]PresenceMode{"local": PresenceLocal, "off": PresenceOff}[value]
		case "shared-secret":
			s.config.SharedSecret = value
		case "base-url":
			s.config.BaseURL = value
		case "turn":
			s.config.TURN = TURNServer{URIs: []string{value}, Secret: "shared with the relay"}
		case "support":
			s.config.Support.Page = value
		case "token":
			s.config.tokens = append(s.config.tokens, value)
		default:
			s.fatalf("no setting %q", name)
		}
	}
}

// start makes the server at the first step that needs one.
func (s *script) start() {
	if s.server != nil {
		return
	}
	if s.config.limits {
		s.config.Limits = api.NewLimiter()
	}
	s.server = newTestServer(s.t, s.config.Config)
	for _, token := range s.config.tokens {
		text, uses, _ := strings.Cut(token, "/")
		addRegistrationToken(s.t, s.server, text, uses)
	}
}
