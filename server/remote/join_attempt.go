package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of asking for a join.
const (
	maxCandidates = 16 // servers that are asked for one join
	makeTimeout   = 20 * time.Second
	sendTimeout   = 3 * time.Minute // until the answer begins: servers take long to make it
	sendWhole     = time.Hour       // until it ends
	maxJoinBytes  = 1 << 30
	maxMakeBytes  = 256 << 10
)

// run joins a room: at each server that may be in it, until one lets the user in.
func (j *Joiner) run(ctx context.Context, w *joinWork) error {
	release, err := j.budget(ctx, joinWeight)
	for err != nil && w.resumed != nil && pause(ctx, resumePause) { // nobody else goes on with it
		release, err = j.budget(ctx, joinWeight)
	}
	if err != nil {
		return err
	}
	defer release()
	if w.resumed != nil {
		if done, err := j.goOn(ctx, w); done {
			return err
		}
	}
	servers := w.servers
	if w.join.Proof != nil {
		if servers, err = j.redeem(ctx, w.join, servers); err != nil {
			return err
		}
	}
	if servers, err = j.orLast(servers, w.room); err != nil {
		return err
	}
	return j.byOneOf(ctx, servers, w.join, func(server matrix.ServerName, others []matrix.ServerName) error {
		return j.attempt(ctx, w, server, others)
	})
}

// byOneOf asks servers, one after the other, until one lets a user in, and returns
// otherwise the reason that says most. others are those that may be asked still.
func (j *Joiner) byOneOf(ctx context.Context, servers []matrix.ServerName, join state.Join, ask func(server matrix.ServerName, others []matrix.ServerName) error) error {
	var refusal error
	candidates := j.candidates(servers)
	for i, server := range candidates {
		err := ask(server, candidates[i+1:])
		if err == nil || ctx.Err() != nil {
			return err
		}
		j.log.Info("a server does not let a user in", "room", join.Room, "user", join.User, "server", server, "err", err)
		refusal = weightier(refusal, err)
	}
	if refusal == nil {
		refusal = fmt.Errorf("enter %s: %w", join.Room, ErrNoServer)
	}
	return refusal
}

// candidates returns the servers to ask, each once.
func (j *Joiner) candidates(servers []matrix.ServerName) (candidates []matrix.ServerName) {
	for _, server := range servers {
		if server != j.own && !slices.Contains(candidates, server) && len(candidates) < maxCandidates {
			candidates = append(candidates, server)
		}
	}
	return candidates
}

// weightier returns which of two errors says more to a user: the answer of a server
// in the room, then any other fault, then that a server is not there.
func weightier(a, b error) error {
	weight := func(err error) int {
		var answer *Error
		switch {
		case err == nil:
			return 0
		case errors.As(err, &answer) && answer.Status/100 == 4 && answer.Status != http.StatusNotFound:
			return 4
		case errors.Is(err, state.ErrUnsupportedVersion):
			return 4
		case errors.As(err, &answer):
			return 2
		case errors.Is(err, ErrUnreachable):
			return 1
		}
		return 3
	}
	if weight(b) > weight(a) {
		return b
	}
	return a
}

// attempt joins a room by way of one server.
func (j *Joiner) attempt(ctx context.Context, w *joinWork, server matrix.ServerName, others []matrix.ServerName) error {
	known := false
	err := j.store.View(func(tx *store.Tx) error {
		known = tx.RoomNum(w.room) != 0
		return nil
	})
	if err != nil {
		return err
	}
	if known {
		j.await(ctx, server)
	}
	proposal, err := j.propose(ctx, server, "make_join", w.room, w.join.User, matrix.Join)
	if err != nil {
		return err
	}
	ev, err := j.rooms.Draft(proposal, w.join)
	if err != nil {
		return err
	}
	record := store.RoomJoin{Version: ev.Version, User: w.join.User, Event: ev.JSON(), Server: server, Others: others}
	err = j.store.Update(ctx, func(tx *store.Tx) (err error) {
		record.Serial = 0
		if record.Room, err = tx.PutRoomNum(w.room); err != nil {
			return err
		}
		return tx.PutJoin(&record)
	})
	if err != nil {
		return err
	}
	return j.conclude(ctx, w, record, j.fetchRoom(ctx, w.room, record))
}

// conclude ends a join that has come to its end: with an error it leaves nothing
// behind. One that was cut short by ctx stays, to be gone on with.
func (j *Joiner) conclude(ctx context.Context, w *joinWork, record store.RoomJoin, err error) error {
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err != nil {
		err = errors.Join(err, j.rooms.EndJoin(ctx, record.Room))
	}
	if removeErr := os.Remove(j.spoolPath(record)); removeErr != nil && !errors.Is(removeErr, os.ErrNotExist) {
		j.log.Error("the spool of a join cannot be removed", "room", w.room, "err", removeErr)
	}
	if err == nil {
		j.joined(w.room)
	}
	return err
}

// propose asks a server for the event of a change of membership.
//
// Spec: SS make_join, make_knock, make_leave.
func (j *Joiner) propose(ctx context.Context, server matrix.ServerName, endpoint string, room matrix.RoomID, user matrix.UserID, to matrix.Membership) (state.Proposal, error) {
	path := "/_matrix/federation/v1/" + endpoint + "/" + url.PathEscape(string(room)) + "/" + url.PathEscape(string(user))
	if to != matrix.Leave {
		query := make(url.Values)
		for _, v := range matrix.Versions() {
			query.Add("ver", v.ID)
		}
		path += "?" + query.Encode()
	}
	var answer jsontext.Value
	q := Request{Method: http.MethodGet, Path: path, MaxBytes: maxMakeBytes, Timeout: makeTimeout, Insist: true}
	if err := j.ask(ctx, server, q, &answer); err != nil {
		return state.Proposal{}, err
	}
	return state.ReadProposal(answer, room, user, to)
}

// fetchRoom sends the join, reads the answer into a spool and brings the room here.
func (j *Joiner) fetchRoom(ctx context.Context, room matrix.RoomID, record store.RoomJoin) error {
	ev, err := matrix.Parse(record.Version, record.Event)
	if err != nil {
		return err
	}
	s, err := createSpool(j.spoolPath(record))
	if err != nil {
		return err
	}
	defer s.close()
	index, release := j.newIndex(ctx, record.Version, room)
	defer release()
	began := time.Now()
	if err := j.sendJoin(ctx, record.Server, ev, s, index); err != nil {
		return err
	}
	j.log.Info("joining a room", "room", room, "user", record.User, "server", record.Server,
		"events", index.came, "took", time.Since(began).Round(time.Millisecond))
	record.Arrived = true
	if err := j.store.Update(ctx, func(tx *store.Tx) error { return tx.PutJoin(&record) }); err != nil {
		return err
	}
	return j.bringRoom(ctx, record, room, s, index)
}

// newIndex returns an index whose memory is taken from the budget as it grows, until
// release is called.
func (j *Joiner) newIndex(ctx context.Context, v *matrix.Version, room matrix.RoomID) (index *joinIndex, release func()) {
	var taken []func()
	index = newJoinIndex(v, room)
	index.grow = func() error {
		giveBack, err := j.budget(ctx, indexWeight)
		if err == nil {
			taken = append(taken, giveBack)
		}
		return err
	}
	return index, func() {
		for _, giveBack := range taken {
			giveBack()
		}
	}
}

// sendJoin sends the join and reads the answer.
//
// Spec: SS send_join (v2); "servers SHOULD fall back to v1" where another does not
// know it.
func (j *Joiner) sendJoin(ctx context.Context, server matrix.ServerName, ev *matrix.Event, to *spool, index *joinIndex) error {
	ctx, cancel := context.WithTimeout(ctx, sendWhole)
	defer cancel()
	q := Request{
		Method: http.MethodPut, Path: memberPath("v2", "send_join", ev) + "?omit_members=false", Body: jsontext.Value(ev.JSON()),
		MaxBytes: maxJoinBytes, Timeout: sendTimeout, Insist: true,
	}
	answer, err := j.stream(ctx, server, q)
	old := unknownEndpoint(err)
	if old {
		q.Path = memberPath("v1", "send_join", ev)
		answer, err = j.stream(ctx, server, q)
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return readJoinAnswer(answer.Body, old, ev.ID, to, index)
}

// memberPath is where a member event is sent to.
func memberPath(version, endpoint string, ev *matrix.Event) string {
	return "/_matrix/federation/" + version + "/" + endpoint + "/" + url.PathEscape(string(ev.Room)) + "/" + url.PathEscape(string(ev.ID))
}

// unknownEndpoint says whether a server answered that it has no such endpoint.
func unknownEndpoint(err error) bool {
	var answer *Error
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest:
		return answer.Code == "M_UNRECOGNIZED" || answer.Code == "" && answer.Status != http.StatusBadRequest
	}
	return false
}

// goOn goes on with a join that a restart has cut short: with what has arrived, or by
// sending the same event again. done is false where that server will not do any more,
// and a client waits who has named others.
func (j *Joiner) goOn(ctx context.Context, w *joinWork) (done bool, err error) {
	record := *w.resumed
	w.resumed = nil
	for try := 0; ; try++ {
		if err = j.goOnOnce(ctx, w.room, record); err == nil || ctx.Err() != nil {
			return true, j.conclude(ctx, w, record, err)
		}
		if errors.Is(err, errSpool) || errors.Is(err, os.ErrNotExist) {
			record.Arrived = false
		} else if try == resumeRetries || !errors.Is(err, ErrUnreachable) {
			break
		}
		j.log.Warn("a join cannot be gone on with yet", "room", w.room, "server", record.Server, "err", err)
		if !pause(ctx, resumePause) {
			return true, ctx.Err()
		}
	}
	err = j.conclude(ctx, w, record, err)
	w.servers = append(w.servers, record.Others...)
	return len(w.servers) == 0, err
}

func (j *Joiner) goOnOnce(ctx context.Context, room matrix.RoomID, record store.RoomJoin) error {
	if !record.Arrived {
		return j.fetchRoom(ctx, room, record)
	}
	s, err := openSpool(j.spoolPath(record))
	if err != nil {
		return err
	}
	defer s.close()
	index, release := j.newIndex(ctx, record.Version, room)
	defer release()
	if err := readJoinSpool(s, index); err != nil {
		return err
	}
	return j.bringRoom(ctx, record, room, s, index)
}

// pause waits and reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// joinByAnother joins a user to a restricted room that we are in, where none of our
// users may let anybody in: a server does that has one who may.
//
// Spec: SS Restricted rooms: "If the resident server ... would be unable to meet the
// auth rules governing join_authorised_via_users_server", others are asked.
func (j *Joiner) joinByAnother(ctx context.Context, join state.Join, servers []matrix.ServerName) error {
	inviters, err := j.rooms.InviterServers(join.Room)
	if err != nil {
		return err
	}
	return j.byOneOf(ctx, append(inviters, servers...), join, func(server matrix.ServerName, _ []matrix.ServerName) error {
		return j.joinAt(ctx, join, server)
	})
}

// joinAt joins a user to a room that we are in by way of another server.
func (j *Joiner) joinAt(ctx context.Context, join state.Join, server matrix.ServerName) error {
	proposal, err := j.propose(ctx, server, "make_join", join.Room, join.User, matrix.Join)
	if err != nil {
		return err
	}
	ev, err := j.rooms.Draft(proposal, join)
	if err != nil {
		return err
	}
	signed, err := j.sendOwn(ctx, server, ev)
	if err != nil {
		return err
	}
	verdicts, err := j.rooms.AcceptFrom(ctx, []*matrix.Event{signed}, j.source(ev.Version, server))
	if err == nil && verdicts[0] != state.Accepted && verdicts[0] != state.Known {
		err = fmt.Errorf("the join by way of %s: %w", server, state.ErrForbidden)
	}
	return err
}

// sendOwn sends a join to a server of a room that we are in, and returns our event
// with the signatures that it needs. Nothing else of the answer is used.
func (j *Joiner) sendOwn(ctx context.Context, server matrix.ServerName, ev *matrix.Event) (*matrix.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, sendWhole)
	defer cancel()
	answer, err := j.stream(ctx, server, Request{
		Method: http.MethodPut, Path: memberPath("v2", "send_join", ev) + "?omit_members=true", Body: jsontext.Value(ev.JSON()),
		MaxBytes: maxJoinBytes, Timeout: sendTimeout, Insist: true,
	})
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	raw, err := readReturned(answer.Body)
	if err != nil {
		return nil, err
	}
	return j.signedEvent(ctx, ev, raw)
}
