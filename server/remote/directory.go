package remote

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
)

// replies is what other servers have answered lately to what users wanted to know.
type replies struct {
	aliases  answerCache[aliasTarget]
	profiles answerCache[Profile]
	spaces   answerCache[state.SpaceAnswer]
}

// askTimeout is how long a question may take for which a user waits.
const askTimeout = 15 * time.Second

// badAnswer is an answer that makes no sense.
func badAnswer(server matrix.ServerName, to string) error {
	return fmt.Errorf("%s of %s: the answer makes no sense: %w", to, server, ErrUnreachable)
}

// aliasTarget is where an alias leads.
type aliasTarget struct {
	room    matrix.RoomID
	servers []matrix.ServerName // that are likely to know the room
}

const (
	// aliasLife is how long it is remembered where an alias leads.
	aliasLife = 2 * time.Minute
	// maxAliasServers is how many servers are kept of those that know a room.
	maxAliasServers = 50
)

// Alias asks the server of an alias to which room it leads, and which servers are
// likely to know that: do not change their list. The errors are those of [Network.Do].
// Spec: SS GET /_matrix/federation/v1/query/directory.
func (n *Network) Alias(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	target, _, err := n.replies.aliases.ask(ctx, n.config.Now, string(alias), aliasLife, func(ctx context.Context) (aliasTarget, int, error) {
		target, err := n.queryAlias(ctx, alias)
		size := len(target.room)
		for _, server := range target.servers {
			size += 16 + len(server)
		}
		return target, size, err
	})
	return target.room, target.servers, err
}

func (n *Network) queryAlias(ctx context.Context, alias matrix.RoomAlias) (aliasTarget, error) {
	var body jsontext.Value
	err := n.Do(ctx, alias.Server(), Request{
		Method: http.MethodGet, Insist: true, Timeout: askTimeout, MaxBytes: 256 << 10,
		Path: "/_matrix/federation/v1/query/directory?room_alias=" + url.QueryEscape(string(alias)),
	}, &body)
	if err != nil {
		return aliasTarget{}, err
	}
	return readAlias(body, alias.Server())
}

// readAlias reads the answer of a server.
func readAlias(body []byte, from matrix.ServerName) (aliasTarget, error) {
	var answer struct {
		Room    string              `json:"room_id"`
		Servers few[jsontext.Value] `json:"servers"`
	}
	err := json.Unmarshal(body, &answer, answerOptions)
	room, bad := matrix.ParseRoomID(answer.Room)
	if err != nil || bad != nil {
		return aliasTarget{}, badAnswer(from, "directory")
	}
	target := aliasTarget{room: room}
	for _, value := range answer.Servers {
		var text string
		if len(target.servers) == maxAliasServers {
			break
		}
		if json.Unmarshal(value, &text, answerOptions) != nil {
			continue
		}
		if server, err := matrix.ParseServerName(text); err == nil && !slices.Contains(target.servers, server) {
			target.servers = append(target.servers, server)
		}
	}
	if len(target.servers) == 0 {
		target.servers = []matrix.ServerName{from}
	}
	return target, nil
}
