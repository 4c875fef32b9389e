package resolve

import (
	"errors"
	"fmt"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// replay is the iterative auth checks algorithm, which "constructs a new room state
// by iterating through the event list and applying the state event to the room
// state if the state event is allowed by the authorisation rules. If the state event
// is not allowed by the authorisation rules, then the event is ignored."
func (r *resolution) replay(order []matrix.EventID) error {
	for _, id := range order {
		e, err := r.event(id)
		if err != nil {
			return err
		}
		if !e.IsState() {
			continue // auth events are state events; another has no place in a state
		}
		allowed, err := r.allowed(e, func(key auth.Key) (*matrix.Event, error) {
			return r.currentOrCited(e, key)
		})
		if err != nil {
			return err
		}
		if allowed {
			r.resolved[auth.Key{Type: e.Type, StateKey: *e.StateKey}] = id
		}
	}
	return nil
}

// allowed reports whether the authorization rules allow e in that state.
func (r *resolution) allowed(e *matrix.Event, state func(auth.Key) (*matrix.Event, error)) (bool, error) {
	err := auth.Check(e, func(typ, stateKey string) (*matrix.Event, error) {
		return state(auth.Key{Type: typ, StateKey: stateKey})
	})
	if _, refused := errors.AsType[*auth.Error](err); refused {
		return false, nil
	}
	return err == nil, err
}

// current is the event in a place of the state resolved so far. From version 12 on
// that begins empty, before with the unconflicted state.
func (r *resolution) current(key auth.Key) (matrix.EventID, error) {
	if id, ok := r.resolved[key]; ok {
		return id, nil
	}
	if r.Version.StateResolution == matrix.StateResolutionV21 {
		return "", nil
	}
	return r.unconflicted(key)
}

// currentOrCited: "If a `(event_type, state_key)` key that is required for checking
// the authorisation rules is not present in the state, then the appropriate state
// event from the event's `auth_events` is used if the auth event is not rejected."
func (r *resolution) currentOrCited(e *matrix.Event, key auth.Key) (*matrix.Event, error) {
	id, err := r.current(key)
	if err != nil {
		return nil, err
	}
	if id != "" {
		return r.event(id)
	}
	var found *matrix.Event
	if key == (auth.Key{Type: typeCreate}) {
		found, err = r.create(e)
	} else {
		found, err = r.cited(e, key)
	}
	if err != nil || found == nil {
		return nil, err
	}
	rejected, err := r.Rejected(found.ID)
	if err != nil {
		return nil, fmt.Errorf("rejection of %s: %w", found.ID, err)
	}
	if rejected {
		return nil, nil
	}
	return found, nil
}
