package federation

import (
	"context"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/remote"
	"hearth/state/matrix"
)

// An edu is what another server says that is no event of a room. Spec: SS EDUs.
type edu struct {
	Type    string         `json:"edu_type"`
	Content jsontext.Value `json:"content"`
}

// readEDU reads an EDU; of what is none it makes one of no type, which nobody takes.
func readEDU(v jsontext.Value) (e edu) {
	if json.Unmarshal(v, &e) != nil || e.Content.Kind() != '{' {
		return edu{}
	}
	return e
}

// receiveEDUs hands EDUs on to who takes their type, in their order. What is wrong
// with one is logged and does not concern the others. An error is that this server
// could not keep what it was told.
func (s *Server) receiveEDUs(ctx context.Context, from matrix.ServerName, edus []edu) error {
	for _, e := range edus {
		receive := s.config.EDU[e.Type]
		if receive == nil {
			continue
		}
		err := receive(ctx, from, e.Content)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, remote.ErrBadEDU):
			return err
		default:
			s.log.Debug("EDU is dropped", "origin", from, "type", e.Type, "err", err)
		}
	}
	return nil
}
