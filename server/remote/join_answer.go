package remote

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state"
	"hearth/state/matrix"
)

// A joinAnswer takes the answer to send_join apart as it comes in and puts its events
// into a spool. It holds no more of it than one event.
type joinAnswer struct {
	spool *spool
	index *joinIndex
	join  matrix.EventID // ours
	meter *meter
	json  *jsontext.Decoder
	seen  map[string]bool // of the answer's lists, those that came
}

// readJoinAnswer reads the answer from r until its end. Version 1 of the endpoint
// wraps it into an array behind a 200. PDUs that are malformed, of another room or no
// state events are left out; an answer that is no answer is an error of the kind
// state.ErrGivenState.
//
// Spec: SS send_join.
func readJoinAnswer(r io.Reader, old bool, join matrix.EventID, to *spool, index *joinIndex) error {
	m := &meter{from: r, left: maxPDUBytes}
	a := &joinAnswer{
		spool: to, index: index, join: join, meter: m, json: jsontext.NewDecoder(m, answerOptions), seen: make(map[string]bool),
	}
	err := a.read(old)
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errMetered) {
		err = fmt.Errorf("%w: %w", state.ErrGivenState, err)
	}
	if err != nil {
		return fmt.Errorf("answer to the join: %w", err)
	}
	return nil
}

func (a *joinAnswer) read(old bool) error {
	if old {
		if err := a.expect('['); err != nil {
			return err
		}
		if _, err := a.json.ReadValue(); err != nil { // the 200
			return err
		}
	}
	if err := a.expect('{'); err != nil {
		return err
	}
	for a.json.PeekKind() != '}' {
		a.meter.left = maxPDUBytes
		name, err := a.json.ReadToken()
		if err != nil {
			return err
		}
		if err := a.member(name.String()); err != nil {
			return err
		}
	}
	if err := a.expect('}'); err != nil {
		return err
	}
	if old {
		if err := a.expect(']'); err != nil {
			return err
		}
	}
	for _, list := range []string{"state", "auth_chain"} {
		if !a.seen[list] {
			return fmt.Errorf("it has no %s: %w", list, state.ErrGivenState)
		}
	}
	return a.spool.end()
}

// expect reads a token that must be of a kind.
func (a *joinAnswer) expect(kind jsontext.Kind) error {
	token, err := a.json.ReadToken()
	if err == nil && token.Kind() != kind {
		err = fmt.Errorf("%v instead of %v: %w", token.Kind(), kind, state.ErrGivenState)
	}
	return err
}

// member reads the value of one member of the answer.
func (a *joinAnswer) member(name string) error {
	switch name {
	case "state", "auth_chain":
		a.seen[name] = true
		return a.list(name == "state")
	case "event":
		raw, err := a.json.ReadValue()
		if err != nil || raw.Kind() != '{' {
			return err
		}
		_, err = a.spool.write(spoolReturn, raw)
		return err
	case "members_omitted":
		omitted, err := a.json.ReadValue()
		if err == nil && omitted.Kind() == 't' {
			err = fmt.Errorf("it leaves out members, which were asked for: %w", state.ErrGivenState)
		}
		return err
	}
	return a.skip()
}

// maxJoinExtra bounds one member of an answer that we have no use for, in bytes.
const maxJoinExtra = 8 << 20

// skip passes over a value, token by token.
func (a *joinAnswer) skip() error {
	begin := a.json.InputOffset()
	for depth := a.json.StackDepth(); ; {
		if a.json.InputOffset()-begin > maxJoinExtra {
			return errMetered
		}
		if _, err := a.json.ReadToken(); err != nil {
			return err
		}
		a.meter.left = maxPDUBytes
		if a.json.StackDepth() == depth {
			return nil
		}
	}
}

// list reads a list of PDUs.
func (a *joinAnswer) list(inState bool) error {
	if err := a.expect('['); err != nil {
		return err
	}
	for a.json.PeekKind() != ']' {
		a.meter.left = maxPDUBytes
		raw, err := a.json.ReadValue()
		if err != nil {
			return err
		}
		if err := a.event(raw, inState); err != nil {
			return err
		}
	}
	return a.expect(']')
}

// event puts one PDU into the spool, if it is sound and has not come before.
func (a *joinAnswer) event(raw jsontext.Value, inState bool) error {
	ev, err := matrix.Parse(a.index.version, raw.Clone())
	if err != nil || ev.Room != a.index.room || !ev.IsState() || ev.ID == a.join {
		if a.index.dropped++; a.index.dropped > maxJoinIDs {
			return fmt.Errorf("more than %d events that are none of the room's state: %w", maxJoinIDs, state.ErrGivenState)
		}
		return nil
	}
	if came, again := a.index.known(ev.ID, inState); came {
		if again {
			_, err = a.spool.write(spoolAgain, []byte(ev.ID))
		}
		return err
	}
	kind := byte(spoolAuth)
	if inState {
		kind = spoolState
	}
	place, err := a.spool.write(kind, ev.JSON())
	if err != nil {
		return err
	}
	return a.index.add(ev, inState, place)
}

// readJoinSpool makes the index of a spool that was written before a restart.
func readJoinSpool(from *spool, index *joinIndex) error {
	return from.scan(func(place spoolPlace, kind byte, data []byte) error {
		switch kind {
		case spoolAgain:
			index.known(matrix.EventID(data), true)
		case spoolAuth, spoolState:
			ev, err := matrix.Parse(index.version, append([]byte(nil), data...))
			if err != nil {
				return fmt.Errorf("%w: %w", errSpool, err)
			}
			return index.add(ev, kind == spoolState, place)
		}
		return nil
	})
}

// returned finds our own event as the other server returned it, nil if it did not.
func returned(from *spool) (event []byte, err error) {
	err = from.scan(func(_ spoolPlace, kind byte, data []byte) error {
		if kind == spoolReturn {
			event = append([]byte(nil), data...)
		}
		return nil
	})
	return event, err
}

// readReturned reads an answer of which our own event alone is wanted; nil: it has
// none.
func readReturned(r io.Reader) (event jsontext.Value, err error) {
	m := &meter{from: r, left: maxPDUBytes}
	a := &joinAnswer{meter: m, json: jsontext.NewDecoder(m, answerOptions)}
	if err = a.expect('{'); err != nil {
		return nil, err
	}
	for err == nil && a.json.PeekKind() != '}' {
		m.left = maxPDUBytes
		var name jsontext.Token
		if name, err = a.json.ReadToken(); err != nil {
			break
		}
		if name.String() != "event" {
			err = a.skip()
			continue
		}
		event, err = a.json.ReadValue()
		event = event.Clone()
	}
	if err == nil {
		err = a.expect('}')
	}
	if err != nil {
		return nil, fmt.Errorf("answer to the join: %w: %w", state.ErrGivenState, err)
	}
	return event, nil
}

// errMetered is wrapped where one part of an answer goes on and on.
var errMetered = errors.New("one part of it is too long")

// A meter reads on as far as it may.
type meter struct {
	from io.Reader
	left int
}

// Read reads no more than is left.
func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errMetered
	}
	n, err := m.from.Read(p[:min(len(p), m.left)])
	m.left -= n
	return n, err
}
