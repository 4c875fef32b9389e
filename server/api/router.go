package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Route is one endpoint.
//
// Pattern is a method and a path, "PUT /_matrix/client/v3/rooms/{roomID}/send/
// {eventType}/{txnID}". A segment in braces matches one segment that is not empty
// and becomes r.PathValue of that name, decoded. As the last segment {name?} may
// also be empty or left out together with its slash, which is what the
// specification wants of an empty state key; its value is then "". A path that
// ends in a slash is another path than one that does not.
//
// GET answers HEAD as well.
type Route struct {
	Pattern string
	Handle  func(w http.ResponseWriter, r *http.Request) error
}

// Router finds the route of a request by a tree of path segments. It never
// redirects and never cleans a path: segments are split first and decoded after,
// so "%2F" stays inside its segment and ".." is a name like any other.
//
// Spec: CS API Standards (an unknown path is 404, a wrong method 405).
type Router struct {
	log  *slog.Logger
	pace pace
	root node
}

// node is a place in the tree.
type node struct {
	fixed   map[string]*node // by the segment's text
	param   *node            // any other segment
	methods map[string]*endpoint
}

// endpoint is a route at its place.
type endpoint struct {
	names  []string // of the parameters, in order
	handle HandlerFunc
}

// maxSegments bounds the paths that are looked at. No endpoint has as many.
const maxSegments = 24

// NewRouter returns a router for routes. It fails where a pattern is not well
// formed or two routes have the same one.
func NewRouter(log *slog.Logger, routes ...Route) (*Router, error) {
	rt := &Router{log: log, pace: serverPace}
	for _, route := range routes {
		if err := rt.add(route); err != nil {
			return nil, fmt.Errorf("route %q: %w", route.Pattern, err)
		}
	}
	return rt, nil
}

// add puts one route into the tree.
func (rt *Router) add(route Route) error {
	method, path, found := strings.Cut(route.Pattern, " ")
	if !found || method == "" || !strings.HasPrefix(path, "/") || route.Handle == nil {
		return fmt.Errorf("want METHOD /path and a handler")
	}
	at, ep := &rt.root, &endpoint{handle: route.Handle}
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		name, isParam := strings.CutPrefix(segment, "{")
		if !isParam {
			at = at.child(segment)
			continue
		}
		name, closed := strings.CutSuffix(name, "}")
		name, optional := strings.CutSuffix(name, "?")
		if !closed || name == "" || slices.Contains(ep.names, name) {
			return fmt.Errorf("segment %q", segment)
		}
		if optional && i != len(segments)-1 {
			return fmt.Errorf("segment %q is not the last", segment)
		}
		ep.names = append(ep.names, name)
		if optional {
			if err := at.put(method, ep); err != nil {
				return err
			}
			if err := at.child("").put(method, ep); err != nil {
				return err
			}
		}
		if at.param == nil {
			at.param = &node{}
		}
		at = at.param
	}
	return at.put(method, ep)
}

// child returns the node under a fixed segment and makes it where there is none.
func (n *node) child(segment string) *node {
	if n.fixed == nil {
		n.fixed = make(map[string]*node)
	}
	c := n.fixed[segment]
	if c == nil {
		c = &node{}
		n.fixed[segment] = c
	}
	return c
}

// put makes ep the endpoint of method at n.
func (n *node) put(method string, ep *endpoint) error {
	if n.methods[method] != nil {
		return fmt.Errorf("there is such a route already")
	}
	if n.methods == nil {
		n.methods = make(map[string]*endpoint)
	}
	n.methods[method] = ep
	return nil
}

// ServeHTTP answers a request: CORS headers on everything, OPTIONS without any
// logic, then the route's handler or the error for a path that is none.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setCORS(w.Header())
	rt.pace.body(w, r)
	if r.Method == http.MethodOptions {
		answerOptions(w)
		return
	}
	rt.pace.handle(rt.log, rt.dispatch, w, r)
}

// dispatch finds the route and runs its handler.
func (rt *Router) dispatch(w http.ResponseWriter, r *http.Request) error {
	segments, err := splitPath(r.URL)
	if err != nil {
		return err
	}
	m := match{method: r.Method}
	ep := m.find(&rt.root, segments)
	if ep == nil && m.other != nil {
		w.Header().Set("Allow", m.other.allow())
		return ErrUnrecognized.WithStatus(http.StatusMethodNotAllowed).
			Because("%s is not a method of this endpoint", r.Method)
	}
	if ep == nil {
		return ErrUnrecognized
	}
	for i, name := range ep.names {
		value := "" // the one that was left out
		if i < len(m.values) {
			value = m.values[i]
		}
		r.SetPathValue(name, value)
	}
	return ep.handle(w, r)
}

// match is the search for one request.
type match struct {
	method string
	values []string // of the parameters on the way to where the search is
	other  *node    // a node with this path and other methods
}

// find returns the endpoint of segments below n. Fixed segments come before
// parameters; where they lead nowhere the parameter is tried.
func (m *match) find(n *node, segments []string) *endpoint {
	if len(segments) == 0 {
		return m.end(n)
	}
	if c := n.fixed[segments[0]]; c != nil {
		if ep := m.find(c, segments[1:]); ep != nil {
			return ep
		}
	}
	if n.param == nil || segments[0] == "" {
		return nil
	}
	m.values = append(m.values, segments[0])
	ep := m.find(n.param, segments[1:])
	if ep == nil {
		m.values = m.values[:len(m.values)-1]
	}
	return ep
}

// end returns the endpoint of the method at n.
func (m *match) end(n *node) *endpoint {
	ep := n.methods[m.method]
	if ep == nil && m.method == http.MethodHead {
		ep = n.methods[http.MethodGet]
	}
	if ep == nil && len(n.methods) > 0 {
		m.other = n
	}
	return ep
}

// allow returns the methods of n for the header Allow.
func (n *node) allow() string {
	methods := []string{http.MethodOptions}
	for method := range n.methods {
		methods = append(methods, method)
		if method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return strings.Join(slices.Compact(methods), ", ")
}

// splitPath returns the decoded segments of u's path. The parser of net/http
// leaves RawPath empty exactly where splitting after decoding is the same.
func splitPath(u *url.URL) ([]string, error) {
	path, encoded := u.Path, false
	if u.RawPath != "" {
		path, encoded = u.RawPath, true
	}
	path, rooted := strings.CutPrefix(path, "/")
	if !rooted || strings.Count(path, "/") >= maxSegments {
		return nil, ErrUnrecognized
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		if encoded {
			decoded, err := url.PathUnescape(segment)
			if err != nil {
				return nil, ErrUnrecognized
			}
			segments[i] = decoded
		}
		if !utf8.ValidString(segments[i]) {
			return nil, ErrInvalidParam.Because("The path is not valid UTF-8")
		}
	}
	return segments, nil
}
