package federation

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state/matrix"
)

// maxClaims bounds the Authorization headers that are looked at.
const maxClaims = 4

// authenticate returns the server that has signed a request, "" for an endpoint
// that needs none. The body is read then, and the request has it in memory until
// release is called, which is never nil.
//
// Spec: SS Request Authentication.
func (s *Server) authenticate(r *http.Request, rt route) (from matrix.ServerName, release func(), err error) {
	release = func() {}
	if rt.access == open {
		return "", release, nil
	}
	claims, err := s.claims(r)
	if err != nil {
		return "", release, err
	}
	from = claims[0].origin
	// Who makes us look for keys, or signs what does not hold, is counted by the
	// address: the name may be another's.
	if !s.network.KnowsKey(from, claims[0].key) {
		if err := s.limits.TakeIP(api.LimitRequest, api.ClientIP(r)); err != nil {
			return "", release, err
		}
	}
	body, release, err := s.readBody(r, rt)
	if err != nil {
		return "", release, err
	}
	if err := s.checkClaims(r, claims, body); err != nil {
		if err := s.limits.TakeIP(api.LimitRequest, api.ClientIP(r)); err != nil {
			return "", release, err
		}
		return "", release, err
	}
	if err := s.limits.Take(api.LimitFederation, string(from)); err != nil {
		return "", release, err
	}
	s.network.Heard(from)
	return from, release, nil
}

// claims returns what the headers of a request say about who has signed it. All
// name one server.
func (s *Server) claims(r *http.Request) ([]claim, error) {
	var all []claim
	for _, header := range r.Header["Authorization"] {
		c, found, err := parseClaim(header)
		switch own := s.network.Server(); {
		case err != nil:
			return nil, api.ErrUnauthorized.Because("%v", err)
		case !found:
			continue
		case c.destination != "" && c.destination != own:
			return nil, api.ErrUnauthorized.Because("The request is for %s, and this is %s", c.destination, own)
		case c.origin == own:
			return nil, api.ErrUnauthorized.Because("The request claims to come from this server itself")
		case len(all) > 0 && all[0].origin != c.origin:
			return nil, api.ErrUnauthorized.Because("The request claims to come from two servers")
		case len(all) < maxClaims:
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return nil, api.ErrUnauthorized.Because("The request has no Authorization header of the scheme %s", xMatrix)
	}
	return all, nil
}

// checkClaims holds the claims to the signatures. One that is good is enough: a
// server may sign with a new key that we cannot get yet, beside an old one.
func (s *Server) checkClaims(r *http.Request, claims []claim, body []byte) error {
	var failed error
	for _, c := range claims {
		q := remote.SignedRequest{
			Method: r.Method, URI: requestTarget(r), Origin: c.origin, Destination: c.destination, Content: body,
		}
		failed = s.network.VerifyRequest(r.Context(), q, c.key, c.signature)
		if failed == nil {
			return nil
		}
	}
	switch {
	case errors.Is(failed, matrix.ErrBadSignature):
		return api.ErrUnauthorized.Because("The signature of %s on this request does not verify", claims[0].origin)
	case errors.Is(failed, remote.ErrUnreachable):
		return api.ErrUnauthorized.Because("The key %s of %s could not be had", claims[0].key, claims[0].origin)
	case errors.Is(failed, context.DeadlineExceeded):
		return api.ErrUnauthorized.Because("The keys of %s did not come in time", claims[0].origin)
	}
	return failed
}

// requestTarget returns path and query exactly as they were sent.
func requestTarget(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

// readBody reads the body of a request, within the bound of its route and that of
// all bodies together, and leaves it in memory for the handler. It is nil where
// there is none.
func (s *Server) readBody(r *http.Request, rt route) (body []byte, release func(), err error) {
	limit := rt.body
	if limit == 0 {
		limit = maxBody
	}
	house, taken := api.HouseKey(api.ClientIP(r)), int64(0)
	release = func() { s.bodies.giveBack(house, taken) }
	in := http.MaxBytesReader(nil, r.Body, limit)
	var buf bytes.Buffer
	for {
		// What is held grows with what has really come.
		if size := int64(buf.Len()); size >= smallBody {
			if taken == 0 {
				api.Hurry(r)
			}
			if !s.bodies.take(house, smallBody) {
				return nil, release, api.ErrLimitExceeded.WithStatus(http.StatusServiceUnavailable).
					Because("Too many large requests are under way: try again")
			}
			taken += smallBody
		}
		n, err := io.CopyN(&buf, in, smallBody)
		if err != nil && err != io.EOF {
			return nil, release, api.BodyError(err)
		}
		if n < smallBody {
			break
		}
	}
	if buf.Len() == 0 {
		return nil, release, nil
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(buf.Bytes())), int64(buf.Len())
	return buf.Bytes(), release, nil
}
