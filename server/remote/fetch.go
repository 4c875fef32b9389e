package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/errgroup"

	"hearth/state"
	"hearth/state/matrix"
)

// Bounds of what is fetched for [state.Rooms.AcceptFrom].
const (
	missingTimeout  = time.Minute
	maxMissingBytes = 8 << 20
	stateIDsTimeout = 5 * time.Minute
	maxStateIDBytes = 128 << 20 // IDs of some 1.2 million events
	eventTimeout    = 20 * time.Second
	eventsAtOnce    = 8    // requests for single events under way
	eventsTogether  = 16   // of which the answers are held at a time
	pdusTogether    = 16   // of one answer that are checked together
	maxTaken        = 1000 // of one answer, some times what is asked for
)

// Source returns how to ask other servers for events of a room of version v. The
// servers are asked in their order, each for what those before it did not give;
// that of the events' origin should be the first. What comes was checked by
// [Network.Check]; PDUs that did not pass are left out.
//
// An error is returned where a server could not be asked and no other had what was
// asked for, or where an event could not be checked since the server of its sender has
// been away for a short time.
//
// Spec: SS Backfilling and retrieving missing events; Retrieving events.
func (n *Network) Source(v *matrix.Version, servers ...matrix.ServerName) state.Source {
	f := &fetcher{version: v, servers: servers, stream: n.Stream, verify: n.VerifyEvents}
	return state.Source{Missing: f.missing, Events: f.events, StateIDs: f.stateIDs}
}

// TrustingSource is [Network.Source] that asks servers in the room, and takes their word
// for who came and went on servers that are away and have not told us of the key: for
// joins and leaves that these users made themselves, where they are asked for by their
// IDs, and for nothing else. Without them a state would lack them, here and where we give
// it to others, and nothing would put them back. unchecked is told of each such event, so
// that it is checked later; it must not block.
func (n *Network) TrustingSource(v *matrix.Version, unchecked func(*matrix.Event), servers ...matrix.ServerName) state.Source {
	f := &fetcher{own: n.server, version: v, servers: servers, stream: n.Stream, verify: n.VerifyEvents, unchecked: unchecked}
	return state.Source{Missing: f.missing, Events: f.events, StateIDs: f.stateIDs}
}

// A fetcher is what a source of events works with.
type fetcher struct {
	own       matrix.ServerName
	version   *matrix.Version
	servers   []matrix.ServerName
	stream    func(ctx context.Context, dest matrix.ServerName, q Request) (*http.Response, error)
	verify    verifier
	unchecked func(*matrix.Event) // or nil: see TrustingSource
}

// check is [Network.Check], but for what is taken unchecked.
func (f *fetcher) check(ctx context.Context, pdus []jsontext.Value) ([]*matrix.Event, []error) {
	verify := f.verify
	if f.unchecked != nil {
		verify = func(ctx context.Context, events []*matrix.Event) []error {
			errs := f.verify(ctx, events)
			for i, err := range errs {
				if errors.Is(err, ErrKeyUntold) && comesOrGoes(events[i]) && !concerns(events[i], f.own) {
					events[i].Unchecked = true
					f.unchecked(events[i])
					errs[i] = nil
				}
			}
			return errs
		}
	}
	return checkPDUs(ctx, f.version, pdus, verify)
}

// comesOrGoes says whether an event is the join or leave of its sender, on nobody else's
// word.
func comesOrGoes(ev *matrix.Event) bool {
	if !ev.Is("m.room.member", string(ev.Sender)) {
		return false
	}
	member, err := ev.Member()
	return err == nil && member.AuthorisedVia == "" && (member.Membership == matrix.Join || member.Membership == matrix.Leave)
}

// errTaken ends an answer which who asked wants no more of.
type errTaken struct{ error }

func (e errTaken) Unwrap() error { return e.error }

// each asks the servers in turn, until one has given something or take has refused
// it: then nobody else is asked. That a server says no is no failure.
func (f *fetcher) each(ctx context.Context, timeout time.Duration, ask func(ctx context.Context, dest matrix.ServerName) (given int, err error)) error {
	var failed error
	for _, dest := range f.servers {
		given, err := func() (int, error) {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			return ask(ctx, dest)
		}()
		if taken, ok := errors.AsType[errTaken](err); ok {
			return taken.error
		}
		if err = ignoreRefusal(err); given > 0 {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// ignoreRefusal makes nothing of an answer by which a server says that it has not
// what is asked for, or will not give it.
func ignoreRefusal(err error) error {
	refusal, ok := errors.AsType[*Error](err)
	if ok && refusal.Status >= 400 && refusal.Status < 500 && refusal.Status != http.StatusTooManyRequests && refusal.Status != http.StatusRequestTimeout {
		return nil
	}
	return err
}

// missing asks for events that others stand on.
func (f *fetcher) missing(ctx context.Context, ask state.MissingEvents, take func(*matrix.Event) error) error {
	body := struct {
		Earliest []matrix.EventID `json:"earliest_events"`
		Latest   []matrix.EventID `json:"latest_events"`
		Limit    int              `json:"limit"`
	}{ask.Earliest, ask.Latest, ask.Limit}
	return f.each(ctx, missingTimeout, func(ctx context.Context, dest matrix.ServerName) (int, error) {
		return f.take(ctx, dest, Request{
			Method:   http.MethodPost,
			Path:     "/_matrix/federation/v1/get_missing_events/" + url.PathEscape(string(ask.Room)),
			Body:     body,
			MaxBytes: maxMissingBytes,
			Timeout:  missingTimeout,
		}, "events", take)
	})
}

// take hands over the events of one list of an answer, some of them checked
// together, and says how many passed.
func (f *fetcher) take(ctx context.Context, dest matrix.ServerName, q Request, list string, take func(*matrix.Event) error) (given int, err error) {
	var pdus []jsontext.Value
	var later error
	came := 0
	flush := func() error {
		events, errs := checkPDUs(ctx, f.version, pdus, f.verify)
		later = cmp.Or(later, laterOf(errs))
		pdus = nil // the events have their bytes
		for _, ev := range events {
			if ev == nil {
				continue
			}
			given++
			if err := take(ev); err != nil {
				return errTaken{err}
			}
		}
		return nil
	}
	err = f.list(ctx, dest, q, list, func(v jsontext.Value) error {
		if came++; came > maxTaken {
			return fmt.Errorf("more than %d events: %w", maxTaken, errAnswerForm)
		}
		if pdus = append(pdus, v.Clone()); len(pdus) < pdusTogether {
			return nil
		}
		return flush()
	})
	if _, ok := errors.AsType[errTaken](err); ok {
		return given, err
	}
	if flushErr := flush(); flushErr != nil { // also of an answer that was cut off
		return given, flushErr
	}
	return given, cmp.Or(err, later)
}

// laterOf returns why one of some events may be checked later, nil where there is none.
func laterOf(errs []error) error {
	for _, err := range errs {
		if errors.Is(err, ErrKeyLater) {
			return err
		}
	}
	return nil
}

// list makes a request and calls fn for each element of one list of the answer.
func (f *fetcher) list(ctx context.Context, dest matrix.ServerName, q Request, list string, fn func(jsontext.Value) error) error {
	res, err := f.stream(ctx, dest, q)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := eachElement(res.Body, list, fn); err != nil {
		if _, ok := errors.AsType[errTaken](err); ok {
			return err
		}
		return fmt.Errorf("%s of %s: %w: %w", list, dest, ErrUnreachable, err)
	}
	return nil
}

// stateIDs asks for the IDs of the state before an event.
func (f *fetcher) stateIDs(ctx context.Context, room matrix.RoomID, before matrix.EventID, take func(matrix.EventID) error) error {
	path := "/_matrix/federation/v1/state_ids/" + url.PathEscape(string(room)) + "?event_id=" + url.QueryEscape(string(before))
	return f.each(ctx, stateIDsTimeout, func(ctx context.Context, dest matrix.ServerName) (given int, err error) {
		err = f.list(ctx, dest, Request{Method: http.MethodGet, Path: path, MaxBytes: maxStateIDBytes, Timeout: missingTimeout}, "pdu_ids", func(v jsontext.Value) error {
			id, err := eventIDOf(v)
			if err != nil {
				return err
			}
			given++
			if err := take(id); err != nil {
				return errTaken{err}
			}
			return nil
		})
		return given, err
	})
}

// events asks for events by their IDs, several at a time.
func (f *fetcher) events(ctx context.Context, _ matrix.RoomID, ids []matrix.EventID, take func(*matrix.Event) error) error {
	var failed error
	keyless := make(map[matrix.EventID]*matrix.Event)
	for i, dest := range f.servers {
		left, err := f.eventsOf(ctx, dest, ids, keyless, take)
		if taken, ok := errors.AsType[errTaken](err); ok {
			return taken.error
		}
		if len(left) == 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ids, failed = left, errors.Join(failed, err)
		unsure := make([]*matrix.Event, 0, len(ids))
		for _, id := range ids {
			if keyless[id] != nil {
				unsure = append(unsure, keyless[id])
			}
		}
		if len(unsure) == len(ids) || len(unsure) > 0 && failed == nil && i == len(f.servers)-1 {
			return &state.KeylessError{Events: unsure}
		}
	}
	return failed
}

// eventsOf asks one server for events, and returns the IDs of those that it did not
// give. Once it could not be asked it is not asked again. Those of keyless it gave, but
// they cannot be checked.
func (f *fetcher) eventsOf(ctx context.Context, dest matrix.ServerName, ids []matrix.EventID, keyless map[matrix.EventID]*matrix.Event, take func(*matrix.Event) error) (left []matrix.EventID, failed error) {
	var later error
	for len(ids) > 0 && failed == nil {
		some := ids[:min(len(ids), eventsTogether)]
		ids = ids[len(some):]
		var pdus []jsontext.Value
		pdus, failed = f.eventPDUs(ctx, dest, some)
		events, errs := f.check(ctx, pdus)
		later = cmp.Or(later, laterOf(errs))
		f.noteKeyless(pdus, errs, keyless)
		came := make(map[matrix.EventID]bool, len(events))
		for _, ev := range events {
			if ev == nil {
				continue
			}
			came[ev.ID] = true
			if err := take(ev); err != nil {
				return nil, errTaken{err}
			}
		}
		for _, id := range some {
			if !came[id] {
				left = append(left, id)
			}
		}
	}
	return append(left, ids...), cmp.Or(failed, later)
}

// noteKeyless notes the members' events that cannot be checked, as the keys that they are
// signed with cannot be had.
func (f *fetcher) noteKeyless(pdus []jsontext.Value, errs []error, keyless map[matrix.EventID]*matrix.Event) {
	for i, err := range errs {
		if !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrKeyLater) {
			continue
		}
		if ev, err := matrix.Parse(f.version, pdus[i]); err == nil && ev.Type == "m.room.member" {
			keyless[ev.ID] = ev
		}
	}
}

// eventPDUs fetches some events at the same time.
func (f *fetcher) eventPDUs(ctx context.Context, dest matrix.ServerName, ids []matrix.EventID) (pdus []jsontext.Value, failed error) {
	came := make([]jsontext.Value, len(ids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(eventsAtOnce)
	for i, id := range ids {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, eventTimeout)
			defer cancel()
			err := f.list(ctx, dest, Request{
				Method:   http.MethodGet,
				Path:     "/_matrix/federation/v1/event/" + url.PathEscape(string(id)),
				MaxBytes: maxPDUBytes,
				Timeout:  eventTimeout,
			}, "pdus", func(v jsontext.Value) error {
				if came[i] == nil {
					came[i] = v.Clone()
				}
				return nil
			})
			return ignoreRefusal(err)
		})
	}
	failed = group.Wait()
	for _, v := range came {
		if v != nil {
			pdus = append(pdus, v)
		}
	}
	return pdus, failed
}
