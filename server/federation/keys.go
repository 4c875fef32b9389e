package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

const (
	// keysValid is for how long our word about our keys counts. An answer is made
	// anew for each request, so that none is about to end.
	keysValid = 24 * time.Hour
	// maxQueriedServers bounds the servers of one question to us as a notary.
	maxQueriedServers = 64
	// notaryWorkers bounds the servers that one question makes us ask at a time.
	notaryWorkers = 4
	// notaryTimeout bounds the time of one question.
	notaryTimeout = 15 * time.Second
	// maxKeyQuery bounds a question, in bytes.
	maxKeyQuery = 64 << 10
)

// ownKeys is what we say about our keys.
//
// Spec: SS Publishing Keys.
type ownKeys struct {
	Server     matrix.ServerName       `json:"server_name"`
	Keys       map[string]publishedKey `json:"verify_keys"`
	OldKeys    map[string]publishedKey `json:"old_verify_keys"`
	ValidUntil int64                   `json:"valid_until_ts"`
}

type publishedKey struct {
	Key     string `json:"key"`
	Expired int64  `json:"expired_ts,omitzero"`
}

// getServerKey answers GET /_matrix/key/v2/server, and with a key ID behind it, as
// old servers ask, the same.
func (s *Server) getServerKey(w http.ResponseWriter, _ *http.Request, _ matrix.ServerName) error {
	answer, err := s.ownKeys()
	if err != nil {
		return err
	}
	return api.WriteEncoded(w, answer)
}

// ownKeys returns our keys, signed with each that signs. Old ones stay for ever, as
// events that they have signed do.
func (s *Server) ownKeys() (jsontext.Value, error) {
	var keys []store.SigningKey
	err := s.store.View(func(tx *store.Tx) (err error) {
		keys, err = tx.SigningKeys()
		return err
	})
	if err != nil {
		return nil, err
	}
	now := s.now()
	doc := ownKeys{
		Server: s.network.Server(), Keys: make(map[string]publishedKey), OldKeys: make(map[string]publishedKey),
		ValidUntil: now.Add(keysValid).UnixMilli(),
	}
	var signing []matrix.SigningKey
	for _, k := range keys {
		public := base64.RawStdEncoding.EncodeToString(k.Private.Public().(ed25519.PublicKey))
		if k.Retired != 0 {
			doc.OldKeys[k.ID] = publishedKey{public, k.Retired}
			continue
		}
		doc.Keys[k.ID] = publishedKey{Key: public}
		signing = append(signing, k.SigningKey)
	}
	answer, err := json.Marshal(doc)
	for _, k := range signing {
		if err == nil {
			answer, err = matrix.SignJSON(answer, string(doc.Server), k)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sign our keys: %w", err)
	}
	return answer, nil
}

// keysAnswer is what we say as a notary.
type keysAnswer struct {
	Keys []jsontext.Value `json:"server_keys"`
}

// perspectivesKeyQuery answers GET /_matrix/key/v2/query/{serverName}.
func (s *Server) perspectivesKeyQuery(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	server, err := matrix.ParseServerName(r.PathValue("serverName"))
	if err != nil {
		return api.InvalidParam("serverName", err)
	}
	until := s.now()
	if text := r.URL.Query().Get("minimum_valid_until_ts"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return api.ErrInvalidParam.Because("minimum_valid_until_ts: %q is no time", text)
		}
		until = time.UnixMilli(ms)
	}
	return s.answerQuery(w, r, map[matrix.ServerName]time.Time{server: until})
}

// bulkPerspectivesKeyQuery answers POST /_matrix/key/v2/query.
func (s *Server) bulkPerspectivesKeyQuery(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	var query struct {
		Servers map[string]map[string]struct {
			ValidUntil int64 `json:"minimum_valid_until_ts"`
		} `json:"server_keys"`
	}
	if err := api.ReadJSON(r, maxKeyQuery, &query); err != nil {
		return err
	}
	if query.Servers == nil {
		return api.MissingParam("server_keys")
	}
	if len(query.Servers) > maxQueriedServers {
		return api.ErrInvalidParam.Because("server_keys: more than %d servers at once", maxQueriedServers)
	}
	wanted := make(map[matrix.ServerName]time.Time)
	for name, keys := range query.Servers {
		server, err := matrix.ParseServerName(name)
		if err != nil {
			continue // nobody can have its keys
		}
		until := s.now()
		for _, criteria := range keys {
			if at := time.UnixMilli(criteria.ValidUntil); at.After(until) {
				until = at
			}
		}
		wanted[server] = until
	}
	return s.answerQuery(w, r, wanted)
}

// answerQuery answers with what can be said about the keys of some servers, until
// when each should be valid. Servers of which nothing is known are left out.
func (s *Server) answerQuery(w http.ResponseWriter, r *http.Request, wanted map[matrix.ServerName]time.Time) error {
	if err := s.limits.TakeN(api.LimitRequest, api.HouseKey(api.ClientIP(r)), len(wanted)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), notaryTimeout)
	defer cancel()
	found := make(chan jsontext.Value, len(wanted))
	var group errgroup.Group
	group.SetLimit(notaryWorkers)
	for server, until := range wanted {
		group.Go(func() error {
			signed, err := s.vouch(ctx, server, until)
			if err != nil {
				s.log.Debug("keys of a server for another", "dest", server, "err", err)
				return nil
			}
			found <- signed
			return nil
		})
	}
	_ = group.Wait() // none fails
	close(found)
	answer := keysAnswer{Keys: []jsontext.Value{}}
	for signed := range found {
		answer.Keys = append(answer.Keys, signed)
	}
	return api.WriteJSON(w, answer)
}

// vouch returns what a server says about its keys, signed by us as well.
func (s *Server) vouch(ctx context.Context, server matrix.ServerName, until time.Time) (jsontext.Value, error) {
	if server == s.network.Server() {
		return s.ownKeys()
	}
	said, err := s.askForOther(ctx, server, until)
	if err != nil {
		return nil, err
	}
	return matrix.SignJSON(said, string(s.network.Server()), s.rooms.Key())
}

// askForOther asks for the keys of a server on behalf of another. Few such requests
// are under way at a time, whoever makes them.
func (s *Server) askForOther(ctx context.Context, server matrix.ServerName, until time.Time) (jsontext.Value, error) {
	if err := s.vouching.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer s.vouching.Release(1)
	return s.network.ServerKeys(ctx, server, until)
}
