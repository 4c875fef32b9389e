package client

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"net/http"
	"slices"
	"sync"
	"time"

	"hearth/server/api"
)

// Registration by shared secret, under the path and in the form that Synapse gave
// it: many tools make their accounts so. It is there only where the owner has set
// a secret.

// nonces are the numbers that registrations by shared secret are to contain. Each
// is good once, for a minute.
type nonces struct {
	mu    sync.Mutex // guards given
	given []nonce    // oldest first
}

type nonce struct {
	text    string
	expires time.Time
}

const (
	nonceLife = time.Minute
	maxNonces = 256
)

// next returns a new nonce; the oldest is dropped where too many are out.
func (n *nonces) next(now time.Time) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.given) >= maxNonces {
		n.given = slices.Delete(n.given, 0, 1)
	}
	given := nonce{text: rand.Text(), expires: now.Add(nonceLife)}
	n.given = append(n.given, given)
	return given.text
}

// take says whether a nonce is good, which it is no more after.
func (n *nonces) take(text string, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.given = slices.DeleteFunc(n.given, func(g nonce) bool { return !now.Before(g.expires) })
	at := slices.IndexFunc(n.given, func(g nonce) bool { return g.text == text })
	if at < 0 {
		return false
	}
	n.given = slices.Delete(n.given, at, at+1)
	return true
}

type nonceResponse struct {
	Nonce string `json:"nonce"`
}

// getRegisterNonce answers GET /_synapse/admin/v1/register.
func (s *Server) getRegisterNonce(w http.ResponseWriter, _ *http.Request, _ session) error {
	if s.config.SharedSecret == "" {
		return api.ErrUnrecognized
	}
	return api.WriteJSON(w, nonceResponse{Nonce: s.nonces.next(s.now())})
}

type secretRegisterRequest struct {
	Nonce       string  `json:"nonce"`
	Username    string  `json:"username"`
	Password    string  `json:"password"`
	DisplayName string  `json:"displayname"`
	Admin       bool    `json:"admin"`
	UserType    *string `json:"user_type"`
	MAC         string  `json:"mac"`
	deviceRequest
}

// registerBySecret answers POST /_synapse/admin/v1/register.
func (s *Server) registerBySecret(w http.ResponseWriter, r *http.Request, _ session) error {
	if s.config.SharedSecret == "" {
		return api.ErrUnrecognized
	}
	if err := s.limits.TakeIP(api.LimitRegister, api.ClientIP(r)); err != nil {
		return err
	}
	var req secretRegisterRequest
	if err := api.ReadJSON(r, maxLoginBytes, &req); err != nil {
		return err
	}
	if !s.nonces.take(req.Nonce, s.now()) {
		return api.ErrUnknown.WithStatus(http.StatusBadRequest).Because("The nonce is not known, or not any more")
	}
	given, err := hex.DecodeString(req.MAC)
	if err != nil || !hmac.Equal(given, req.mac(s.config.SharedSecret)) {
		return api.ErrForbidden.Because("The HMAC is wrong")
	}
	if req.Username == "" {
		return api.MissingParam("username")
	}
	if len(req.DisplayName) > maxDisplayName {
		return api.ErrInvalidParam.Because("displayname may have %d bytes at most", maxDisplayName)
	}
	user, err := s.newUserID(req.Username)
	if err != nil {
		return err
	}
	plan, err := req.plan()
	if err != nil {
		return err
	}
	hash, err := s.passwords.Hash(r.Context(), req.Password)
	if err != nil {
		return err
	}
	made := newAccount{user: user, hash: hash, admin: req.Admin, displayName: req.DisplayName, login: &plan}
	if err := s.makeAccount(r.Context(), made); err != nil {
		return err
	}
	return api.WriteJSON(w, s.loginResponse(r, user, plan))
}

// mac returns what the sender of the request must have computed: the HMAC-SHA1
// over its parts with NUL bytes between them.
func (req *secretRegisterRequest) mac(secret string) []byte {
	mac := hmac.New(sha1.New, []byte(secret))
	role := "notadmin"
	if req.Admin {
		role = "admin"
	}
	parts := []string{req.Nonce, req.Username, req.Password, role}
	if req.UserType != nil {
		parts = append(parts, *req.UserType)
	}
	for i, part := range parts {
		if i > 0 {
			mac.Write([]byte{0})
		}
		mac.Write([]byte(part))
	}
	return mac.Sum(nil)
}
