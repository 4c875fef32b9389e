package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/store"
)

// The stages of user-interactive authentication that this server has.
//
// Spec: CS Authentication types.
const (
	stagePassword          = "m.login.password"
	stageDummy             = "m.login.dummy"
	stageRegistrationToken = "m.login.registration_token"
)

// flow is a series of stages that authenticates together.
type flow struct {
	Stages []string `json:"stages"`
}

// passwordFlows are what guards the deeds of an account.
var passwordFlows = []flow{{Stages: []string{stagePassword}}}

// challenge is the answer 401 that asks for user-interactive authentication. It
// has an errcode only where a stage was tried and failed.
//
// Spec: CS User-interactive API in the REST API.
type challenge struct {
	Code      string              `json:"errcode,omitzero"`
	Text      string              `json:"error,omitzero"`
	Completed []string            `json:"completed,omitempty"`
	Flows     []flow              `json:"flows"`
	Params    map[string]struct{} `json:"params"`
	Session   string              `json:"session"`
}

// Error makes a challenge what a handler returns.
func (c *challenge) Error() string {
	if c.Code != "" {
		return c.Code + ": " + c.Text
	}
	return "user-interactive authentication is needed"
}

// authData is the key "auth" of a request. Old clients name the user outside of
// an identifier.
type authData struct {
	Type       string         `json:"type"`
	Session    string         `json:"session"`
	Identifier userIdentifier `json:"identifier"`
	User       string         `json:"user"`
	Password   string         `json:"password"`
	Token      string         `json:"token"`

	house string // where the request comes from; see api.HouseKey
}

// interaction is a request that is, or will be, authenticated by its user.
type interaction struct {
	body  jsontext.Value // the request without "auth", in canonical form
	auth  *authData      // nil: the request had none
	stage *stageSession  // as it stood when the request came
	who   session
}

// confirm has the user behind a request prove, with the password, that it is
// them; it returns the request's body of at most limit bytes without "auth". Until
// they have, the error is the challenge that the handler returns. Nothing may have
// happened before.
func (s *Server) confirm(r *http.Request, who session, limit int64) (jsontext.Value, error) {
	in, err := s.interact(r, who, limit, passwordFlows)
	if err != nil {
		return nil, err
	}
	if _, err := s.prove(r.Context(), in); err != nil {
		return nil, err
	}
	s.finish(in)
	return in.body, nil
}

// interact reads a request that needs user-interactive authentication and finds
// or begins its session. A request that names a session may leave out the body of
// the first one.
func (s *Server) interact(r *http.Request, who session, limit int64, flows []flow) (*interaction, error) {
	whole := jsontext.Value("{}")
	if r.Method != http.MethodDelete || r.ContentLength != 0 { // old clients delete without a body
		var err error
		if whole, err = api.ReadObject(r, limit); err != nil {
			return nil, err
		}
	}
	body, auth, err := splitAuth(whole)
	if err != nil {
		return nil, err
	}
	in := &interaction{body: body, auth: auth, who: who}
	var id string
	if auth != nil {
		id, auth.house = auth.Session, api.HouseKey(api.ClientIP(r))
	}
	in.stage, in.body, err = s.stages.enter(id, stageRequest{
		method: r.Method, path: r.URL.Path, user: who.num, flows: flows, body: body, now: s.now(),
	})
	return in, err
}

// prove tries the stage that a request brings. It returns nil once a flow is
// complete, with what the stages have shown, and else a challenge.
func (s *Server) prove(ctx context.Context, in *interaction) (proof, error) {
	switch {
	case in.auth == nil:
		return proof{}, in.stage.challenge()
	case in.auth.Type == "": // completed elsewhere, such as on a fallback page
	case !offers(in.stage.flows, in.auth.Type):
		return proof{}, in.stage.refuse(api.ErrUnrecognized.Because("This request cannot be authenticated by %q", in.auth.Type))
	case slices.Contains(in.stage.proof.completed, in.auth.Type):
	default:
		if err := s.tryStage(ctx, in.stage, in.who, in.auth); err != nil {
			return proof{}, err
		}
	}
	now, complete := s.stages.state(in.stage)
	if !complete {
		return proof{}, now.challenge()
	}
	return now.proof, nil
}

// finish forgets the session of a request that has been carried out: each one is
// good for one deed.
func (s *Server) finish(in *interaction) { s.stages.drop(in.stage.id) }

// tryStage checks the data for one stage and notes its completion.
func (s *Server) tryStage(ctx context.Context, st *stageSession, who session, auth *authData) error {
	var shown proof
	var err error
	switch auth.Type {
	case stageDummy:
	case stagePassword:
		shown.user, err = s.tryPassword(ctx, who, auth)
	case stageRegistrationToken:
		shown.registrationToken, err = s.tryRegistrationToken(st, auth.Token)
	}
	var refused *api.Error
	switch {
	case err == errOtherUser: // 403, and no challenge: this was no mistyped password
		return err
	case errors.As(err, &refused) && refused.Status < http.StatusInternalServerError && !errors.Is(err, api.ErrLimitExceeded):
		return st.refuse(refused)
	case err != nil:
		return fmt.Errorf("stage %s: %w", auth.Type, err)
	}
	s.stages.complete(st, auth.Type, shown)
	return nil
}

// errOtherUser is the answer to who proves to be somebody else than the user of
// the request's token.
var errOtherUser = api.ErrForbidden.Because("Only the user who is logged in may authenticate this request")

// tryPassword checks the stage m.login.password and returns whose password it was:
// that of the user who makes the request, where one is logged in.
func (s *Server) tryPassword(ctx context.Context, who session, auth *authData) (store.UserNum, error) {
	id, err := auth.Identifier.userID(auth.User, s.store.Server())
	if errors.Is(err, errNoIdentifier) && who.known() {
		id, err = who.user, nil
	}
	if err != nil {
		return 0, err
	}
	if who.known() { // strangers cannot use up the tries of who is logged in
		err = s.limits.Take(api.LimitPassword, string(id)+"\x00\x00"+string(who.user)+"\x00"+string(who.device))
	} else {
		err = s.limitPassword(id, auth.house)
	}
	if err != nil {
		return 0, err
	}
	found, err := s.checkPassword(ctx, id, auth.Password)
	if err != nil {
		return 0, err
	}
	if who.known() && found != who.num {
		return 0, errOtherUser
	}
	if !who.known() { // with a token, the session has been looked at
		if err := s.store.View(func(tx *store.Tx) error { return loginAllowed(tx, found) }); err != nil {
			return 0, err
		}
	}
	return found, nil
}

// splitAuth takes "auth" out of a request's body and brings the rest into
// canonical form, so that two requests can be compared.
func splitAuth(body jsontext.Value) (rest jsontext.Value, auth *authData, err error) {
	dec := jsontext.NewDecoder(bytes.NewReader(body))
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out)
	if _, err := dec.ReadToken(); err != nil {
		return nil, nil, api.ErrNotJSON
	}
	fault := enc.WriteToken(jsontext.BeginObject)
	for dec.PeekKind() == '"' {
		name, nameErr := dec.ReadToken()
		key := name.String()
		value, valueErr := dec.ReadValue()
		if err := errors.Join(nameErr, valueErr); err != nil {
			return nil, nil, api.ErrNotJSON
		}
		if key != "auth" {
			fault = errors.Join(fault, enc.WriteToken(jsontext.String(key)), enc.WriteValue(value))
			continue
		}
		if value.Kind() == 'n' {
			continue
		}
		auth = new(authData)
		if err := json.Unmarshal(value, auth); err != nil {
			return nil, nil, api.ErrBadJSON.Because("auth does not have the form that is expected here")
		}
	}
	fault = errors.Join(fault, enc.WriteToken(jsontext.EndObject))
	rest = out.Bytes()
	if err := errors.Join(fault, rest.Canonicalize()); err != nil {
		return nil, nil, api.ErrBadJSON
	}
	return rest, auth, nil
}

// offers says whether a stage is part of a flow.
func offers(flows []flow, stage string) bool {
	return slices.ContainsFunc(flows, func(f flow) bool { return slices.Contains(f.Stages, stage) })
}

// sessionOf returns who began a session, for a request that brings no token.
func (s *Server) sessionOf(st *stageSession) (session, error) {
	who := session{num: st.request.user}
	if !who.known() {
		return who, nil
	}
	err := s.store.View(func(tx *store.Tx) error {
		who.user = tx.UserID(who.num)
		return nil
	})
	return who, err
}
