package state

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// ErrBadProposal is wrapped where another server proposes an event that is not what
// it was asked for.
var ErrBadProposal = errors.New("the other server proposes another event")

// A Proposal is where another server says that a member event of a user of ours would
// stand in a room that we are not in, as make_join, make_knock and make_leave answer.
// Of what the other server wrote only this is used.
type Proposal struct {
	Version *matrix.Version
	Room    matrix.RoomID
	User    matrix.UserID
	matrix.Placing
	Membership matrix.Membership
	// AuthorisedVia is who lets the user into a restricted room, "" for nobody.
	AuthorisedVia matrix.UserID
}

// proposalAnswer is the answer of the endpoints that propose.
type proposalAnswer struct {
	Version string `json:"room_version"`
	Event   struct {
		Room     matrix.RoomID  `json:"room_id"`
		Type     string         `json:"type"`
		Sender   matrix.UserID  `json:"sender"`
		StateKey *string        `json:"state_key"`
		Prev     jsontext.Value `json:"prev_events"`
		Auth     jsontext.Value `json:"auth_events"`
		Depth    int64          `json:"depth"`
		Content  struct {
			Membership    matrix.Membership `json:"membership"`
			AuthorisedVia string            `json:"join_authorised_via_users_server"`
		} `json:"content"`
	} `json:"event"`
}

// ReadProposal reads the answer of a server that was asked for a member event. The
// error is ErrUnsupportedVersion for a room of a version that is not known here, else
// it wraps ErrBadProposal.
//
// Spec: SS make_join: "Before signing the returned template and calling
// /send_join, the sending server MUST verify that: the room_id is equal to the roomId
// path parameter, both the sender and state_key are equal to the userId path
// parameter, the type of the event is m.room.member, the membership field inside
// content is join." Likewise make_knock and make_leave.
func ReadProposal(answer jsontext.Value, room matrix.RoomID, user matrix.UserID, to matrix.Membership) (Proposal, error) {
	var a proposalAnswer
	if err := json.Unmarshal(answer, &a); err != nil {
		return Proposal{}, fmt.Errorf("%w: %w", ErrBadProposal, err)
	}
	// "If not provided, the room version is assumed to be either "1" or "2"."
	if a.Version == "" {
		a.Version = "1"
	}
	v, known := matrix.VersionByID(a.Version)
	if !known {
		return Proposal{}, refuse(ErrUnsupportedVersion, "The room is of version %q, which this server does not know", clip(a.Version))
	}
	ev := a.Event
	switch {
	case ev.Room != room:
		return Proposal{}, fmt.Errorf("%w: it is of another room", ErrBadProposal)
	case ev.Type != "m.room.member":
		return Proposal{}, fmt.Errorf("%w: it is no membership", ErrBadProposal)
	case ev.Sender != user || ev.StateKey == nil || *ev.StateKey != string(user):
		return Proposal{}, fmt.Errorf("%w: it is of another user", ErrBadProposal)
	case ev.Content.Membership != to:
		return Proposal{}, fmt.Errorf("%w: it is no %s", ErrBadProposal, to)
	}
	p := Proposal{Version: v, Room: room, User: user, Membership: to, Placing: matrix.Placing{Depth: max(ev.Depth, 1)}}
	var err error
	if p.Prev, p.PrevHashes, err = readCited(v, ev.Prev, matrix.MaxPrevEvents); err != nil {
		return Proposal{}, fmt.Errorf("%w: prev_events: %w", ErrBadProposal, err)
	}
	if p.Auth, p.AuthHashes, err = readCited(v, ev.Auth, matrix.MaxAuthEvents); err != nil {
		return Proposal{}, fmt.Errorf("%w: auth_events: %w", ErrBadProposal, err)
	}
	if via := ev.Content.AuthorisedVia; via != "" && to == matrix.Join && v.RestrictedJoins {
		if p.AuthorisedVia, err = matrix.ParseUserID(via); err != nil {
			return Proposal{}, fmt.Errorf("%w: join_authorised_via_users_server: %w", ErrBadProposal, err)
		}
	}
	return p, nil
}

// maxClip is how much of a word of another server a sentence quotes.
const maxClip = 32

func clip(s string) string {
	if len(s) > maxClip {
		return s[:maxClip] + "…"
	}
	return s
}

// readCited reads a list of events: IDs, or pairs of an ID and its hashes in
// versions 1 and 2.
func readCited(v *matrix.Version, list jsontext.Value, most int) ([]matrix.EventID, []matrix.Hash, error) {
	var entries []jsontext.Value
	if err := json.Unmarshal(list, &entries); err != nil {
		return nil, nil, err
	}
	if len(entries) > most {
		return nil, nil, fmt.Errorf("%d of them", len(entries))
	}
	ids := make([]matrix.EventID, 0, len(entries))
	var hashes []matrix.Hash
	for _, entry := range entries {
		var id string
		if v.EventIDs != matrix.EventIDGiven {
			if err := json.Unmarshal(entry, &id); err != nil {
				return nil, nil, err
			}
		} else {
			hash, err := readPair(entry, &id)
			if err != nil {
				return nil, nil, err
			}
			hashes = append(hashes, hash)
		}
		parsed, err := matrix.ParseEventID(id)
		if err != nil {
			return nil, nil, err
		}
		ids = append(ids, parsed)
	}
	return ids, hashes, nil
}

// readPair reads a pair of an event ID and its reference hash.
func readPair(entry jsontext.Value, id *string) (matrix.Hash, error) {
	var hash struct {
		SHA256 string `json:"sha256"`
	}
	var pair []jsontext.Value
	if err := json.Unmarshal(entry, &pair); err != nil {
		return matrix.Hash{}, err
	}
	if len(pair) != 2 {
		return matrix.Hash{}, errors.New("no pair of an event ID and hashes")
	}
	if err := errors.Join(json.Unmarshal(pair[0], id), json.Unmarshal(pair[1], &hash)); err != nil {
		return matrix.Hash{}, err
	}
	sum, err := base64.RawStdEncoding.DecodeString(hash.SHA256)
	if err != nil || len(sum) != len(matrix.Hash{}) {
		return matrix.Hash{}, errors.New("no SHA-256 hash")
	}
	return matrix.Hash(sum), nil
}

// Draft builds and signs the member event of a proposal. Reason and Extra of j are
// the user's; joins and knocks carry the profile.
func (r *Rooms) Draft(p Proposal, j Join) (*matrix.Event, error) {
	content := memberContent{Membership: p.Membership, Reason: j.Reason, AuthorisedVia: p.AuthorisedVia}
	content.extend(j.Extra)
	if p.Membership != matrix.Leave {
		err := r.store.View(func(tx *store.Tx) error {
			profile, err := (&room{rooms: r, tx: tx}).profile(p.User)
			content.DisplayName, content.AvatarURL = profile.DisplayName, profile.AvatarURL
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	key := string(p.User)
	draft := matrix.Draft{
		Room: p.Room, Sender: p.User, Type: "m.room.member", StateKey: &key, Content: encode(content),
		OriginServerTS: r.now().UnixMilli(),
	}
	ev, err := draft.Build(p.Version, p.Placing, r.server, r.Key())
	if err != nil {
		return nil, fmt.Errorf("draft of a %s in %s: %w", p.Membership, p.Room, err)
	}
	return ev, nil
}
