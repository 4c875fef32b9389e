package client

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// OpenID tokens tell a third party who a user is. They have no record: each holds
// when it ends and whose it is, sealed with the server's secret.

const (
	openIDLife   = time.Hour
	openIDPrefix = "hearth_oi_"
	openIDLabel  = "hearth openid token\x00" // keeps its seal apart from all others of the secret
	openIDTime   = 8                         // bytes of the time in a token
)

type openIDResponse struct {
	AccessToken string            `json:"access_token"`
	TokenType   string            `json:"token_type"`
	ServerName  matrix.ServerName `json:"matrix_server_name"`
	ExpiresIn   int64             `json:"expires_in"` // seconds
}

// requestOpenIdToken answers POST /user/{userID}/openid/request_token. The token
// is good for [Server.OpenIDUser] alone.
//
// Spec: CS OpenID.
func (s *Server) requestOpenIdToken(w http.ResponseWriter, r *http.Request, who session) error {
	if err := who.isSelf(r.PathValue("userID")); err != nil {
		return err
	}
	if err := s.limits.Take(api.LimitProfile, string(who.user)); err != nil {
		return err
	}
	if _, err := api.ReadObject(r, maxSmallBody); err != nil {
		return err
	}
	body := binary.BigEndian.AppendUint64(nil, uint64(s.now().Add(openIDLife).UnixMilli()))
	body = append(body, who.user...)
	seal, err := s.sealOpenID(body)
	if err != nil {
		return fmt.Errorf("openid token for %s: %w", who.user, err)
	}
	return api.WriteJSON(w, openIDResponse{
		AccessToken: openIDPrefix + base64.RawURLEncoding.EncodeToString(append(seal, body...)),
		TokenType:   "Bearer",
		ServerName:  s.store.Server(),
		ExpiresIn:   int64(openIDLife / time.Second),
	})
}

// OpenIDUser returns the user whom an OpenID token speaks for, as GET
// /openid/userinfo of the Server-Server API tells. The error is M_UNKNOWN_TOKEN for
// a token that was not made here or has expired, and for one of an account that is
// locked or was deactivated since.
//
// Spec: SS OpenID.
func (s *Server) OpenIDUser(token string) (matrix.UserID, error) {
	text, ours := strings.CutPrefix(token, openIDPrefix)
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ours || err != nil || len(sealed) <= sha256.Size+openIDTime {
		return "", api.ErrUnknownToken
	}
	seal, body := sealed[:sha256.Size], sealed[sha256.Size:]
	want, err := s.sealOpenID(body)
	if err != nil {
		return "", fmt.Errorf("check an openid token: %w", err)
	}
	expires := time.UnixMilli(int64(binary.BigEndian.Uint64(body)))
	if !hmac.Equal(seal, want) || !s.now().Before(expires) {
		return "", api.ErrUnknownToken
	}
	user := matrix.UserID(body[openIDTime:])
	err = s.store.View(func(tx *store.Tx) error {
		account, err := livingAccount(tx, tx.UserNum(user))
		if errors.Is(err, api.ErrNotFound) || err == nil && account.Locked {
			return api.ErrUnknownToken
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("check an openid token of %s: %w", user, err)
	}
	return user, nil
}

// sealOpenID returns what shows that this server made the body of a token.
func (s *Server) sealOpenID(body []byte) ([]byte, error) {
	var secret []byte
	err := s.store.View(func(tx *store.Tx) (err error) {
		secret, err = tx.Secret()
		return err
	})
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(openIDLabel))
	mac.Write(body)
	return mac.Sum(nil), nil
}
