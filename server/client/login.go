package client

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// The ways to log in that are no stages of user-interactive authentication, too.
const (
	loginToken      = "m.login.token"
	loginAppservice = "m.login.application_service"
)

const (
	maxLoginBytes      = 16 << 10         // of a request about accounts and logins
	maxDeviceName      = 256              // bytes
	accessTokenLife    = 30 * time.Minute // where there is a refresh token
	tokenBytes         = 32               // of randomness
	accessTokenPrefix  = "hearth_at_"     // lets scanners find leaked tokens
	refreshTokenPrefix = "hearth_rt_"
	loginTokenPrefix   = "hearth_lt_"
)

var (
	errWrongPassword = api.ErrForbidden.Because("The user name or the password is wrong")
	errNoIdentifier  = api.ErrMissingParam.Because("identifier is missing")
)

type loginFlow struct {
	Type          string `json:"type"`
	GetLoginToken bool   `json:"get_login_token,omitzero"`
}

type loginFlowsResponse struct {
	Flows []loginFlow `json:"flows"`
}

// getLoginFlows answers GET /login.
func (s *Server) getLoginFlows(w http.ResponseWriter, _ *http.Request, _ session) error {
	return api.WriteJSON(w, loginFlowsResponse{Flows: []loginFlow{
		{Type: stagePassword}, {Type: loginToken, GetLoginToken: true},
	}})
}

// userIdentifier names a user in one of the ways of the specification.
//
// Spec: CS Identifier types.
type userIdentifier struct {
	Type    string `json:"type"`
	User    string `json:"user"`
	Medium  string `json:"medium"`
	Address string `json:"address"`
	Country string `json:"country"`
	Phone   string `json:"phone"`
}

// userID returns the user that an identifier or, where there is none, the key
// "user" of old clients names. A user name in capitals is taken for the lower-case
// one, as names have no capitals. No account has an address or a phone number
// here: such an identifier is unknown, M_FORBIDDEN.
func (id userIdentifier) userID(old string, server matrix.ServerName) (matrix.UserID, error) {
	name := id.User
	switch id.Type {
	case "":
		if id.Medium != "" {
			return "", errWrongPassword
		}
		if name = old; name == "" {
			return "", errNoIdentifier
		}
	case "m.id.user":
		if name == "" {
			return "", errNoIdentifier
		}
	case "m.id.thirdparty", "m.id.phone":
		return "", errWrongPassword
	default:
		return "", api.ErrUnknown.WithStatus(http.StatusBadRequest).Because("The type of the identifier is not known")
	}
	if local, found := strings.CutPrefix(name, "@"); found {
		full := ""
		if name, full, found = strings.Cut(local, ":"); !found || matrix.ServerName(full) != server {
			return "", errWrongPassword
		}
	}
	user, err := matrix.NewUserID(strings.ToLower(name), server)
	if err != nil {
		return "", errWrongPassword
	}
	return user, nil
}

type loginRequest struct {
	Type       string         `json:"type"`
	Identifier userIdentifier `json:"identifier"`
	User       string         `json:"user"`
	Medium     string         `json:"medium"`
	Password   string         `json:"password"`
	Token      string         `json:"token"`
	deviceRequest
}

// deviceRequest is what a login and a registration say about the new device.
type deviceRequest struct {
	DeviceID     string `json:"device_id"`
	Name         string `json:"initial_device_display_name"`
	RefreshToken bool   `json:"refresh_token"`
}

type loginResponse struct {
	UserID       matrix.UserID     `json:"user_id"`
	AccessToken  string            `json:"access_token,omitzero"`
	DeviceID     matrix.DeviceID   `json:"device_id,omitzero"`
	HomeServer   matrix.ServerName `json:"home_server"`
	RefreshToken string            `json:"refresh_token,omitzero"`
	ExpiresInMS  int64             `json:"expires_in_ms,omitzero"`
	WellKnown    *wellKnown        `json:"well_known,omitzero"`
}

// login answers POST /login.
func (s *Server) login(w http.ResponseWriter, r *http.Request, _ session) error {
	if err := s.limits.TakeIP(api.LimitLogin, api.ClientIP(r)); err != nil {
		return err
	}
	var req loginRequest
	if err := api.ReadJSON(r, maxLoginBytes, &req); err != nil {
		return err
	}
	plan, err := req.plan()
	if err != nil {
		return err
	}
	var who func(tx *store.Tx) (store.UserNum, error)
	switch req.Type {
	case stagePassword:
		user, err := s.loginPassword(r, &req)
		if err != nil {
			return err
		}
		who = func(*store.Tx) (store.UserNum, error) { return user, nil }
	case loginToken:
		if req.Token == "" {
			return api.MissingParam("token")
		}
		who = func(tx *store.Tx) (store.UserNum, error) { return s.takeLoginToken(tx, req.Token) }
	case loginAppservice:
		return api.ErrAppserviceLoginUnsupported
	case "":
		return api.MissingParam("type")
	default:
		return api.ErrUnknown.WithStatus(http.StatusBadRequest).Because("There is no such way to log in")
	}
	return s.answerLogin(w, r, plan, who)
}

// answerLogin logs in the user whom who returns, which runs in the same write.
func (s *Server) answerLogin(w http.ResponseWriter, r *http.Request, plan loginPlan, who func(*store.Tx) (store.UserNum, error)) error {
	var user matrix.UserID
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		num, err := who(tx)
		if err != nil {
			return err
		}
		if err := loginAllowed(tx, num); err != nil {
			return err
		}
		user = tx.UserID(num)
		return s.putLogin(tx, num, plan)
	})
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	s.log.Info("login", "user", user, "device", plan.device)
	return api.WriteJSON(w, s.loginResponse(r, user, plan))
}

// loginPassword checks the password of a login.
func (s *Server) loginPassword(r *http.Request, req *loginRequest) (store.UserNum, error) {
	if req.Medium != "" && req.Identifier.Type == "" && req.User == "" {
		return 0, errWrongPassword
	}
	id, err := req.Identifier.userID(req.User, s.store.Server())
	if err != nil {
		return 0, err
	}
	if req.Password == "" {
		return 0, api.MissingParam("password")
	}
	if err := s.limitPassword(id, api.HouseKey(api.ClientIP(r))); err != nil {
		return 0, err
	}
	return s.checkPassword(r.Context(), id, req.Password)
}

// checkPassword returns the number of a user whose password it is, else
// errWrongPassword: nobody learns from it, or from its time, who has an account.
func (s *Server) checkPassword(ctx context.Context, id matrix.UserID, password string) (store.UserNum, error) {
	var user store.UserNum
	var hash string
	err := s.store.View(func(tx *store.Tx) error {
		num := tx.UserNum(id)
		account, err := tx.Account(num)
		if err == nil && !account.Deactivated {
			user, hash = num, account.PasswordHash
		}
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("check the password of %s: %w", id, err)
	}
	good, err := s.passwords.Check(ctx, hash, password)
	if err != nil {
		return 0, err
	}
	if !good {
		return 0, errWrongPassword
	}
	return user, nil
}

// takeLoginToken returns whose login token it was: it is good for one login.
func (s *Server) takeLoginToken(tx *store.Tx, token string) (store.UserNum, error) {
	user, err := tx.TakeLoginToken(store.HashToken(token), s.now())
	if errors.Is(err, store.ErrNotFound) {
		return 0, api.ErrForbidden.Because("This login token is not valid, or not any more")
	}
	return user, err
}

// loginAllowed says whether an account may log in now.
func loginAllowed(tx *store.Tx, user store.UserNum) error {
	account, err := tx.Account(user)
	switch {
	case err != nil:
		return err
	case account.Deactivated:
		return api.ErrUserDeactivated
	case account.Guest || account.Service:
		return api.ErrForbidden.Because("Nobody can log in to this account")
	case account.Locked:
		return api.ErrUserLocked.SoftLogout()
	}
	return nil
}

// loginPlan is a login that has been asked for, with the tokens it will give.
type loginPlan struct {
	device          matrix.DeviceID
	name            string
	access, refresh string // refresh: "" where the client does not know them
}

// plan checks what a client asks of its new device and makes the tokens.
func (d *deviceRequest) plan() (loginPlan, error) {
	p := loginPlan{name: d.Name, access: newToken(accessTokenPrefix)}
	if d.RefreshToken {
		p.refresh = newToken(refreshTokenPrefix)
	}
	if len(d.Name) > maxDeviceName {
		return p, api.ErrInvalidParam.Because("initial_device_display_name may have %d bytes at most", maxDeviceName)
	}
	if d.DeviceID == "" {
		p.device = newDeviceID()
		return p, nil
	}
	device, err := matrix.ParseDeviceID(d.DeviceID)
	if err != nil {
		return p, api.InvalidParam("device_id", err)
	}
	p.device = device
	return p, nil
}

// putLogin gives a user's device its new tokens and makes it where it is new. A
// device that is known keeps its name and its keys and loses its old tokens.
func (s *Server) putLogin(tx *store.Tx, user store.UserNum, p loginPlan) error {
	_, err := tx.Device(user, p.device)
	if errors.Is(err, store.ErrNotFound) {
		err = s.putNewDevice(tx, user, p)
	}
	if err != nil {
		return err
	}
	return tx.PutLogin(user, p.device, p.hashes(s.now()))
}

// putNewDevice makes a device. It may not be called like one of the user's
// cross-signing keys, as signatures name both in the same way.
//
// Spec: CS Login (login.yaml, device_id).
func (s *Server) putNewDevice(tx *store.Tx, user store.UserNum, p loginPlan) error {
	isKey, err := tx.IsCrossSigningKey(user, string(p.device))
	if err != nil {
		return err
	}
	if isKey {
		return api.ErrForbidden.Because("A device cannot have the ID of a cross-signing key")
	}
	now := s.now()
	return tx.PutDevice(user, store.Device{ID: p.device, Name: p.name, Created: now, LastSeen: now})
}

// hashes is what the store gets to know of a plan's tokens.
func (p loginPlan) hashes(now time.Time) store.NewTokens {
	n := store.NewTokens{Access: store.HashToken(p.access)}
	if p.refresh != "" {
		refresh := store.HashToken(p.refresh)
		n.Refresh, n.Expires = &refresh, now.Add(accessTokenLife)
	}
	return n
}

func (s *Server) loginResponse(r *http.Request, user matrix.UserID, p loginPlan) loginResponse {
	answer := loginResponse{
		UserID: user, AccessToken: p.access, DeviceID: p.device, HomeServer: s.store.Server(),
		RefreshToken: p.refresh, WellKnown: s.wellKnown(r),
	}
	if p.refresh != "" {
		answer.ExpiresInMS = accessTokenLife.Milliseconds()
	}
	return answer
}

// newToken returns a token that nobody can guess.
func newToken(prefix string) string {
	var b [tokenBytes]byte
	rand.Read(b[:])
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// newDeviceID returns a name for a device that its client has not named.
func newDeviceID() matrix.DeviceID { return matrix.DeviceID(rand.Text()[:10]) }
