package client

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"time"

	"hearth/server/api"
)

// A TURNServer relays calls for those who cannot reach each other. It knows users by
// credentials that are good for a while, made from the secret that it shares with
// this server.
type TURNServer struct {
	URIs   []string // turn:host:port?transport=udp and the like; empty: there is none
	Secret string
}

// turnCredentialsLife is how long a client may use what it was given.
const turnCredentialsLife = 24 * time.Hour

// getTurnServer answers GET /voip/turnServer with credentials as TURN servers make
// them out: the name holds the second in which they end, and the password is its
// HMAC-SHA1. Without a TURN server the endpoint is not there: its answer would need
// the four fields, and clients fail on an empty list of URIs.
//
// Spec: CS Voice over IP.
func (s *Server) getTurnServer(w http.ResponseWriter, _ *http.Request, who session) error {
	turn := &s.config.TURN
	if len(turn.URIs) == 0 {
		return api.ErrUnrecognized.Because("This server has no TURN server to offer")
	}
	name := fmt.Sprintf("%d:%s", s.now().Add(turnCredentialsLife).Unix(), who.user)
	mac := hmac.New(sha1.New, []byte(turn.Secret))
	mac.Write([]byte(name))
	return api.WriteJSON(w, struct {
		Username string   `json:"username"`
		Password string   `json:"password"`
		URIs     []string `json:"uris"`
		TTL      int64    `json:"ttl"` // seconds
	}{name, base64.StdEncoding.EncodeToString(mac.Sum(nil)), turn.URIs, int64(turnCredentialsLife / time.Second)})
}
