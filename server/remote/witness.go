package remote

import (
	"context"
	"errors"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// maxWitnessed bounds the keys that one witness is remembered to have told, or not.
const maxWitnessed = 4096

// A witness is what servers that are in a room, and give us events of it, say of the
// keys of those that we cannot ask: they have checked those events with them. Who gives
// us a room may leave out and put in members as it likes anyway, so that is taken at its
// word for members' events, and for nothing else; and never about a server that has told
// us its keys itself, to which anybody could add one of his own.
//
// Spec: SS Querying Keys Through Another Server.
type witness struct {
	network *Network
	servers []matrix.ServerName // those left that answer
	told    map[keyName]store.VerifyKey
	asked   map[keyName]bool // by servers that are left
}

// witnessed returns [Network.VerifyEvents] that asks servers of the events' room for the
// keys of members' servers which cannot be had otherwise. It is for one goroutine, and
// for the events that those servers give.
func (n *Network) witnessed(servers ...matrix.ServerName) verifier {
	w := &witness{
		network: n, servers: slices.Clone(servers),
		told: make(map[keyName]store.VerifyKey), asked: make(map[keyName]bool),
	}
	return w.verify
}

func (w *witness) verify(ctx context.Context, events []*matrix.Event) []error {
	errs := w.network.VerifyEvents(ctx, events)
	var wants []wanted
	signers := make(map[int][][]wanted) // by the events' places
	for i, err := range errs {
		if !errors.Is(err, ErrUnreachable) || events[i].Type != "m.room.member" {
			continue
		}
		if keys, err := wantedOf(events[i]); err == nil {
			signers[i] = keys
			wants = append(wants, slices.Concat(keys...)...)
		}
	}
	if len(signers) == 0 {
		return errs
	}
	v := keyCheck{network: w.network, keys: make(map[keyName]store.VerifyKey)}
	missing, err := v.read(wants)
	if err != nil {
		return errs // the check has said what is not there
	}
	missing = slices.DeleteFunc(missing, func(k wanted) bool {
		_, err := w.network.keyAnswer(k.server)
		return !errors.Is(err, store.ErrNotFound)
	})
	w.ask(ctx, missing)
	for _, k := range missing {
		if key, told := w.told[keyName{k.server, k.id}]; told {
			v.keys[keyName{k.server, k.id}] = key
		}
	}
	for i, of := range signers {
		errs[i] = v.checkAll(events[i], of)
	}
	return errs
}

// ask gathers what the servers say of keys, and what others said before.
func (w *witness) ask(ctx context.Context, wants []wanted) {
	if len(w.told)+len(w.asked) > maxWitnessed {
		clear(w.told)
		clear(w.asked)
	}
	missing := w.lacking(wants)
	w.recall(missing)
	for _, server := range slices.Clone(w.servers) {
		missing = slices.DeleteFunc(w.lacking(missing), func(k wanted) bool { return w.asked[keyName{k.server, k.id}] })
		for len(missing) > 0 && ctx.Err() == nil {
			query, left := queryFor(missing, server)
			if len(query.Servers) == 0 || w.askServer(ctx, server, query) != nil {
				break
			}
			missing = left
		}
	}
	for _, k := range wants {
		w.asked[keyName{k.server, k.id}] = true
	}
}

// lacking returns the keys that are not known, or not to be valid for as long.
func (w *witness) lacking(wants []wanted) []wanted {
	return slices.DeleteFunc(slices.Clone(wants), func(k wanted) bool {
		key, known := w.told[keyName{k.server, k.id}]
		return known && validAt(key, k.at)
	})
}

// recall takes what earlier witnesses said.
func (w *witness) recall(wants []wanted) {
	for _, k := range wants {
		if w.asked[keyName{k.server, k.id}] {
			continue
		}
		if answer, err := w.network.hearsay(k.server); err == nil {
			_ = w.take(k.server, answer.JSON) // it was sound when it was stored
		}
	}
}

// askServer asks one server, and never again if it does not answer. What it says is kept
// as hearsay: for who asks us as his witness, when we have taken the events.
func (w *witness) askServer(ctx context.Context, server matrix.ServerName, query keyQuery) error {
	said := make(map[matrix.ServerName]jsontext.Value)
	err := w.network.queryKeys(ctx, server, query, func(of matrix.ServerName, raw jsontext.Value) error {
		err := w.take(of, raw)
		if err == nil {
			said[of] = raw
		}
		return err
	})
	if errors.Is(err, ErrUnreachable) || errors.Is(err, ErrBackingOff) {
		w.servers = slices.DeleteFunc(w.servers, func(s matrix.ServerName) bool { return s == server })
		return err
	}
	now := w.network.now()
	return w.network.store.Update(ctx, func(tx *store.Tx) error {
		for of, raw := range said {
			if err := tx.PutHearsay(of, store.KeyAnswer{JSON: raw, Fetched: now}); err != nil {
				return err
			}
		}
		return nil
	})
}

// take takes an answer about a server's keys, which that server must have signed.
func (w *witness) take(of matrix.ServerName, raw jsontext.Value) error {
	_, keys, err := parseServerKeys(of, raw, w.network.now())
	if err != nil {
		return err
	}
	for _, key := range keys {
		name := keyName{of, key.ID}
		if known, ok := w.told[name]; !ok || known.Public.Equal(key.Public) && known.ValidUntil.Before(key.ValidUntil) {
			w.told[name] = key
		}
	}
	return nil
}
