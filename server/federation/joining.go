package federation

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// makeJoin answers GET /make_join/{roomID}/{userID}.
//
// Spec: SS make_join: "The room versions the sending server has support for. Defaults
// to [1]."
func (s *Server) makeJoin(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	versions := r.URL.Query()["ver"]
	if len(versions) == 0 {
		versions = []string{"1"}
	}
	return s.makeMember(w, r, from, matrix.Join, func(v string) bool { return slices.Contains(versions, v) })
}

// sendJoinV2 answers PUT /_matrix/federation/v2/send_join/{roomID}/{eventID}.
func (s *Server) sendJoinV2(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	join, err := s.admit(r, from, matrix.Join)
	if err != nil {
		return err
	}
	return s.welcome(w, r, join, "", "")
}

// sendJoinV1 answers PUT /_matrix/federation/v1/send_join/{roomID}/{eventID} for old
// servers: the same in an array behind the status. The specification had it up to
// v1.17.
func (s *Server) sendJoinV1(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	join, err := s.admit(r, from, matrix.Join)
	if err != nil {
		return err
	}
	return s.welcome(w, r, join, "[200,", "]")
}

// welcome answers a join with the room: the state before the join and all that it
// stands on, written as it is read.
//
// Spec: SS send_join (v2).
func (s *Server) welcome(w http.ResponseWriter, r *http.Request, join *store.StoredEvent, begin, end string) error {
	release, err := s.weighState(r.Context(), join.RoomNum)
	if err != nil {
		return err
	}
	defer release()
	reader, err := state.NewEventReader(s.store, join.Room)
	if err != nil {
		return err
	}
	a := joinAnswer{Origin: s.network.Server(), Event: join.JSON()}
	if r.URL.Query().Get("omit_members") == "true" {
		if a.MembersOmitted, err = s.crowded(join); err != nil {
			return err
		}
	}
	lists, err := s.collectRoom(r.Context(), reader, join, &a)
	if err != nil {
		return err
	}
	head, err := json.Marshal(a, lenient...)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(w, answerBuffer)
	// Nobody hears of what cannot be written: bufio keeps it for the Flush.
	_, _ = out.WriteString(begin)
	_, _ = out.Write(head[:len(head)-1])
	for _, list := range lists {
		_, _ = out.WriteString(`,"` + list.name + `":[`)
		if err := writeEvents(r.Context(), out, reader, list.events); err != nil {
			return fmt.Errorf("answer to a join of %s: %w", join.Room, err)
		}
		_ = out.WriteByte(']')
	}
	_, _ = out.WriteString("}" + end)
	return out.Flush()
}

// fewMembers is how many members are given to a server that would do without: that
// costs less than its asking for them later.
const fewMembers = 32

// crowded says whether a room has more members than that.
func (s *Server) crowded(join *store.StoredEvent) (crowded bool, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		head, err := tx.Head(join.RoomNum)
		crowded = head.Joined+head.Invited > fewMembers
		return err
	})
	return crowded, err
}

// answerBuffer is how much of an answer is gathered before it is sent.
const answerBuffer = 32 << 10

// joinAnswer is the answer of send_join but for the two long lists.
type joinAnswer struct {
	Event          rawEvent            `json:"event"`
	MembersOmitted bool                `json:"members_omitted"`
	Origin         matrix.ServerName   `json:"origin"`
	Servers        []matrix.ServerName `json:"servers_in_room,omitempty"`
}

// joinList is one of the two.
type joinList struct {
	name   string
	events []store.EventNum
}

// collectRoom finds what a joining server is given of a room. Where it wants no
// members, it gets those that the room is named after alone, and of the auth chain
// what is not in the state.
func (s *Server) collectRoom(ctx context.Context, reader *state.EventReader, join *store.StoredEvent, a *joinAnswer) ([]joinList, error) {
	var given []store.EventNum
	var err error
	if a.MembersOmitted {
		err = s.store.View(func(tx *store.Tx) error {
			if given, err = state.WithoutMembers(tx, join); err != nil {
				return err
			}
			a.Servers, err = s.serversBefore(tx, join)
			return err
		})
	} else {
		given, err = reader.State(ctx, join.Before)
	}
	if err != nil {
		return nil, err
	}
	chain, err := reader.AuthChain(ctx, append(slices.Clip(given), join.StateNum()))
	if err != nil {
		return nil, err
	}
	if a.MembersOmitted {
		held := make(map[store.EventNum]bool, len(given))
		for _, num := range given {
			held[num] = true
		}
		chain = slices.DeleteFunc(chain, func(num store.EventNum) bool { return held[num] })
	}
	return []joinList{{"auth_chain", chain}, {"state", given}}, nil
}

// serversBefore lists "the servers active in the room (ie, those with joined members)
// before the join".
func (s *Server) serversBefore(tx *store.Tx, join *store.StoredEvent) ([]matrix.ServerName, error) {
	servers := []matrix.ServerName{s.network.Server()}
	err := tx.RoomServers(join.RoomNum, func(num store.ServerNum, joined uint64) (bool, error) {
		name := tx.ServerName(num)
		if name != join.Sender.Server() || joined > 1 {
			servers = append(servers, name)
		}
		return true, nil
	})
	return servers, err
}

// writeEvents writes events, with commas between.
func writeEvents(ctx context.Context, out *bufio.Writer, reader *state.EventReader, events []store.EventNum) error {
	first := true
	return reader.Events(ctx, events, func(ev *store.StoredEvent) error {
		if !first {
			_ = out.WriteByte(',')
		}
		first = false
		_, err := out.Write(ev.JSON())
		return err
	})
}

// makeKnock answers GET /make_knock/{roomID}/{userID}.
func (s *Server) makeKnock(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	versions := r.URL.Query()["ver"]
	if len(versions) == 0 {
		return api.MissingParam("ver")
	}
	return s.makeMember(w, r, from, matrix.Knock, func(v string) bool { return slices.Contains(versions, v) })
}

// sendKnock answers PUT /send_knock/{roomID}/{eventID} with what a user who knocks may
// know of the room.
func (s *Server) sendKnock(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	knock, err := s.admit(r, from, matrix.Knock)
	if err != nil {
		return err
	}
	var answer struct {
		Known []rawEvent `json:"knock_room_state"`
	}
	err = s.store.View(func(tx *store.Tx) error {
		known, err := state.StrippedEvents(tx, knock.RoomNum, knock.Before, knock.Sender, knock.Sender)
		answer.Known = make([]rawEvent, 0, len(known))
		for _, ev := range known {
			answer.Known = append(answer.Known, ev.JSON())
		}
		return err
	})
	if err != nil {
		return err
	}
	return writeLenient(w, answer)
}
