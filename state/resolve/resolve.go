// Package resolve is state resolution: what is the state of a room where forks of
// its history meet? It has the three algorithms, that of room version 1, that of
// versions 2 to 11 and that of version 12, which the specification calls 2.1.
//
// The package is pure, and works on differences: it is told the places in the
// state where the forks differ, and asks for anything else through functions. It
// keeps a short record for each event in the full conflicted set, never a state,
// an auth chain or the events themselves, which whoever hands them out may cache.
//
// Specification: room versions, v1.md ("State resolution"), fragment v2-state-res
// and v12.md ("State resolution").
package resolve

import (
	"fmt"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// The event types that the algorithms speak of.
const (
	typeCreate      = "m.room.create"
	typeMember      = "m.room.member"
	typePowerLevels = "m.room.power_levels"
	typeJoinRules   = "m.room.join_rules"
)

// Input is forks of one room's state and how to find out about them. An error of a
// function ends the resolution and comes back wrapped.
type Input struct {
	Version *matrix.Version

	// Conflicted has the places where not all forks have the same event, each with
	// the events of those forks that have one, without repetition and in any order.
	Conflicted map[auth.Key][]matrix.EventID

	// Unconflicted is the event that all forks have in a place, "" if none has one.
	// It is not asked about the places in Conflicted.
	Unconflicted func(auth.Key) (matrix.EventID, error)

	// Event is the event with that ID. It is asked for events in Conflicted, for
	// what the other functions return and for their auth events, and in version 12
	// for the create event.
	Event func(matrix.EventID) (*matrix.Event, error)

	// Rejected reports whether an event was rejected.
	Rejected func(matrix.EventID) (bool, error)

	// AuthDifference is the events that are in the auth chains of some forks' whole
	// states and not of all, in any order. Whatever is in the auth chain of an
	// unconflicted event is in those of all forks. It is not called for version 1.
	AuthDifference func() ([]matrix.EventID, error)

	// Subgraph is the events on all paths that lead along auth_events from one of
	// the given events to another, in any order: the conflicted state subgraph. It
	// is called for version 12 only.
	Subgraph func([]matrix.EventID) ([]matrix.EventID, error)
}

// Resolve returns what is to be put over the unconflicted state to have the
// resolved state: an event for each place in Conflicted, unless none of its events
// stands the test, and seldom for a place that no fork had.
func Resolve(in Input) (map[auth.Key]matrix.EventID, error) {
	r := resolution{Input: in, resolved: make(map[auth.Key]matrix.EventID, len(in.Conflicted))}
	algorithm := r.byPower
	if in.Version.StateResolution == matrix.StateResolutionV1 {
		algorithm = r.byDepth
	}
	if err := algorithm(); err != nil {
		return nil, fmt.Errorf("resolve state: %w", err)
	}
	return r.resolved, nil
}

// resolution is one run of an algorithm.
type resolution struct {
	Input
	resolved map[auth.Key]matrix.EventID // so far
}

// byPower is the algorithm of versions 2 to 12.
func (r *resolution) byPower() error {
	set, err := r.fullConflictedSet()
	if err != nil {
		return err
	}
	// 1: "Select the set X of all power events that appear in the full conflicted
	// set. For each such power event P, enlarge X by adding the events in the auth
	// chain of P which also belong to the full conflicted set. Sort X into a list
	// using the reverse topological power ordering."
	power, err := r.powerOrder(set)
	if err != nil {
		return err
	}
	// 2: "Apply the iterative auth checks algorithm, starting from the unconflicted
	// state map" (from version 12 on "an empty state map"), "to the list of events
	// from the previous step to get a partially resolved state."
	if err := r.replay(power); err != nil {
		return err
	}
	// 3: "Take all remaining events that weren't picked in step 1 and order them by
	// the mainline ordering based on the power level in the partially resolved state
	// obtained in step 2."
	rest, err := r.mainlineOrder(set)
	if err != nil {
		return err
	}
	// 4: "Apply the iterative auth checks algorithm on the partial resolved state and
	// the list of events from the previous step."
	if err := r.replay(rest); err != nil {
		return err
	}
	return r.yieldToUnconflicted()
}

// yieldToUnconflicted is step 5: "Update the result by replacing any event with the
// event with the same key from the unconflicted state map, if such an event exists,
// to get the final resolved state."
func (r *resolution) yieldToUnconflicted() error {
	for key := range r.resolved {
		id, err := r.unconflicted(key)
		if err != nil {
			return err
		}
		if id != "" {
			delete(r.resolved, key)
		}
	}
	return nil
}

func (r *resolution) unconflicted(key auth.Key) (matrix.EventID, error) {
	if _, conflicted := r.Conflicted[key]; conflicted {
		return "", nil
	}
	id, err := r.Unconflicted(key)
	if err != nil {
		return "", fmt.Errorf("unconflicted %s %q: %w", key.Type, key.StateKey, err)
	}
	return id, nil
}

func (r *resolution) event(id matrix.EventID) (*matrix.Event, error) {
	e, err := r.Event(id)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", id, err)
	}
	return e, nil
}
