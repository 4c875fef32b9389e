package client

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

var pathParam = regexp.MustCompile(`\{[^}]*\}`)

// TestOperations compares the routes with testdata/operations.tsv: a route of the
// specification has its handler named like the operation. Operations without a
// route are listed by go test -v.
func TestOperations(t *testing.T) {
	text, err := os.ReadFile("testdata/operations.tsv")
	if err != nil {
		t.Fatal(err)
	}
	operations := make(map[string][]string) // by method and path
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[0] != "#" {
			place := fields[0] + " " + pathParam.ReplaceAllString(fields[1], "{}")
			operations[place] = append(operations[place], fields[2])
		}
	}
	served := make(map[string]bool)
	for _, rt := range routes {
		place := pathParam.ReplaceAllString(rt.pattern, "{}")
		names, known := operations[place]
		if !known {
			continue
		}
		served[place] = true
		name := handlerName(rt.handle)
		if !slices.ContainsFunc(names, func(op string) bool { return strings.EqualFold(strings.ReplaceAll(op, "_", ""), name) }) {
			t.Errorf("%s is answered by %s, want %v", rt.pattern, name, names)
		}
	}
	var missing []string
	for place, names := range operations {
		if !served[place] {
			missing = append(missing, place+" "+strings.Join(names, ", "))
		}
	}
	slices.Sort(missing)
	t.Logf("%d of %d endpoints have no route:\n%s", len(missing), len(operations), strings.Join(missing, "\n"))
}

// Every operation of the specification is asked for in a script, so that there one can
// read what this server makes of it.
func TestOperationsAreScripted(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var requests []string // by method and path
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], "/") {
				path, _, _ := strings.Cut(fields[1], "?")
				requests = append(requests, fields[0]+" "+path)
			}
		}
	}
	text, err := os.ReadFile("testdata/operations.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if fields[0] == "#" {
			continue
		}
		pattern := regexp.MustCompile("^" + pathParam.ReplaceAllString(fields[0]+" "+fields[1], "[^/]+") + "/?$")
		if !slices.ContainsFunc(requests, pattern.MatchString) {
			t.Errorf("no script asks for %s %s (%s)", fields[0], fields[1], fields[2])
		}
	}
}

// handlerName returns the name of a method expression such as (*Server).login.
func handlerName(h handler) string {
	name := runtime.FuncForPC(reflect.ValueOf(h).Pointer()).Name()
	return name[strings.LastIndexByte(name, '.')+1:]
}

// Whatever comes without a token to an endpoint that needs one is refused, in
// JSON, and OPTIONS is answered without one.
func TestTokensAreNeeded(t *testing.T) {
	s := newTestServer(t, Config{})
	for _, rt := range routes {
		if rt.access == open || rt.access == optional {
			continue
		}
		method, path, _ := strings.Cut(rt.pattern, " ")
		path = pathParam.ReplaceAllString(path, "x")
		for token, want := range map[string]string{"": "M_MISSING_TOKEN", "wrong": "M_UNKNOWN_TOKEN"} {
			w := s.do(method, path, token, "{}")
			if w.Code != 401 || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s with token %q: %d %s, want 401 %s", rt.pattern, token, w.Code, w.Body, want)
			}
		}
		if w := s.do("OPTIONS", path, "", ""); w.Code >= 300 || w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("OPTIONS %s: %d", path, w.Code)
		}
	}
}
