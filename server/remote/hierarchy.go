package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
)

const (
	// spaceLife is how long it is remembered what a server told of a room.
	// "Responses to this endpoint should be cached for a period of time."
	spaceLife = 5 * time.Minute
	// maxSpaceBody bounds that, in bytes.
	maxSpaceBody = 2 << 20
	// maxSpaceServers is how many servers are asked about a room.
	maxSpaceServers = 3
	// spaceTimeout is how long each may take.
	spaceTimeout = 8 * time.Second
)

// Space asks servers about a room that this server is not in, one after the other,
// and returns what the first tells that knows it, with all its children. It belongs
// to others, too: do not change it. asked says that it was not remembered. Without
// servers nobody is asked. The errors are those of [Network.Do].
// Spec: SS GET /_matrix/federation/v1/hierarchy/{roomId}.
func (n *Network) Space(ctx context.Context, room matrix.RoomID, via []matrix.ServerName) (answer state.SpaceAnswer, asked bool, err error) {
	if len(via) == 0 {
		if answer, known := n.replies.spaces.get(string(room), n.config.Now()); known {
			return answer, false, nil
		}
		return answer, false, errNobodyAsked
	}
	return n.replies.spaces.ask(ctx, n.config.Now, string(room), spaceLife, func(ctx context.Context) (state.SpaceAnswer, int, error) {
		answer, err := n.askSpace(ctx, room, via)
		return answer, answer.Size(), err
	})
}

// errNobodyAsked says that no server is known that could tell of a room.
var errNobodyAsked = fmt.Errorf("no server is known that could be asked: %w", ErrUnreachable)

// askSpace asks servers until one tells of a room.
func (n *Network) askSpace(ctx context.Context, room matrix.RoomID, via []matrix.ServerName) (answer state.SpaceAnswer, err error) {
	err = errNobodyAsked
	tried := 0
	for _, server := range via {
		if server == n.server {
			continue
		}
		if tried++; tried > maxSpaceServers {
			break
		}
		var body jsontext.Value
		err = n.Do(ctx, server, Request{
			Method: http.MethodGet, MaxBytes: maxSpaceBody, Timeout: spaceTimeout,
			Path: "/_matrix/federation/v1/hierarchy/" + url.PathEscape(string(room)) + "?suggested_only=false",
		}, &body)
		if err != nil {
			continue
		}
		answer, err = state.ReadSpaceAnswer(body, room)
		if errors.Is(err, state.ErrBadAnswer) {
			err = badAnswer(server, "hierarchy")
			continue
		}
		return answer, err
	}
	return state.SpaceAnswer{}, err
}
