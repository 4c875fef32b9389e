package federation

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
)

// Bounds of a transaction. Spec: SS Transactions: "they can have at most 50 PDUs and
// 100 EDUs".
const (
	maxPDUs             = 50
	maxEDUs             = 100
	maxTransactionBytes = 10 << 20 // 150 times the largest event
	maxTransactions     = 8        // whose events are taken at a time, of all servers
	smallTransaction    = 256 << 10
	maxTransactionWait  = 20 * time.Second
	maxResultText       = 200 // bytes of what is said to be wrong with one event
	maxTransactionID    = 255
)

// errBusy is what a server hears that is to send its transaction again later.
var errBusy = api.TryAfter(30 * time.Second)

// A transaction is what another server sends at once.
type transaction struct {
	pdus []jsontext.Value
	edus []edu
}

// pduResult is what is told about one PDU. Error is empty where it was taken, which
// may be that it waits for what it lacks.
type pduResult struct {
	Error string `json:"error,omitempty"`
}

// pduResults are the results of a transaction.
type pduResults map[matrix.EventID]pduResult

// fail notes why an event was not taken.
func (p pduResults) fail(id matrix.EventID, err error) {
	text := err.Error()
	for len(text) > maxResultText || !utf8.ValidString(text) {
		text = text[:min(len(text)-1, maxResultText)]
	}
	p[id] = pduResult{text}
}

// sendTransaction answers PUT /send/{txnID}. All that the transaction brings is on
// disk before the answer, which is 200 whatever is wrong with single events. Those of
// one server are handled one by one; one that comes again gets the answer that it got.
//
// Spec: SS Transactions.
func (s *Server) sendTransaction(w http.ResponseWriter, r *http.Request, from matrix.ServerName) error {
	id := r.PathValue("txnID")
	if len(id) > maxTransactionID {
		return api.ErrInvalidParam.Because("The transaction ID is longer than %d bytes", maxTransactionID)
	}
	ctx := r.Context()
	end, err := s.turns.take(ctx, from)
	if err != nil {
		return err
	}
	defer end()
	answer, known, err := s.answered.find(from, id)
	if err != nil {
		return err
	}
	if known {
		return api.WriteEncoded(w, answer)
	}
	release, err := s.weigh(ctx, r.ContentLength)
	if err != nil {
		return err
	}
	defer release()
	t, err := readTransaction(r.Body)
	if err != nil {
		return err
	}
	if answer, err = s.handle(ctx, from, t); err != nil {
		return ourFault(err)
	}
	if t.remembered() {
		s.answered.put(from, id, answer)
	}
	return api.WriteEncoded(w, answer)
}

// ourFault has a transaction come again that could not be kept: a status of the 400s,
// as a full disk has it elsewhere, would say that the other server is to give it up.
func ourFault(err error) error {
	if e := api.AsError(err); errors.Is(e, api.ErrResourceLimit) {
		return e.WithStatus(http.StatusInsufficientStorage)
	}
	return err
}

// weigh takes the memory that a transaction of a length needs, unless that is little:
// its lists, and the events that are made of them.
func (s *Server) weigh(ctx context.Context, length int64) (release func(), err error) {
	if length < 0 {
		length = maxTransactionBytes
	}
	if length <= smallTransaction {
		return func() {}, nil
	}
	return s.config.Take(ctx, 2*length)
}

// handle takes what is in a transaction and makes the answer. EDUs come last: they
// may be about who has just joined.
func (s *Server) handle(ctx context.Context, from matrix.ServerName, t transaction) (answer []byte, err error) {
	results, err := s.receivePDUs(ctx, from, t.pdus)
	if err != nil {
		return nil, err
	}
	if err := s.receiveEDUs(ctx, from, t.edus); err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		PDUs pduResults `json:"pdus"`
	}{results}, json.Deterministic(true))
}

// remembered says whether it would matter if the transaction were handled again. What
// EDUs say, with one exception, may be said twice.
func (t transaction) remembered() bool {
	for _, e := range t.edus {
		if e.Type == "m.direct_to_device" {
			return true
		}
	}
	return len(t.pdus) > 0
}

// readTransaction reads the body of a transaction. It counts while it reads, so that
// no more is held than is allowed. One event that is no proper JSON object does not
// spoil the others.
func readTransaction(body io.Reader) (t transaction, err error) {
	dec := jsontext.NewDecoder(body, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if token, err := dec.ReadToken(); err != nil {
		return t, transactionError(err)
	} else if token.Kind() != '{' {
		return t, api.ErrBadJSON
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return t, transactionError(err)
		}
		switch name.String() {
		case "pdus":
			err = readList(dec, maxPDUs-len(t.pdus), func(v jsontext.Value) { t.pdus = append(t.pdus, v.Clone()) })
		case "edus":
			err = readList(dec, maxEDUs-len(t.edus), func(v jsontext.Value) { t.edus = append(t.edus, readEDU(v)) })
		default:
			err = dec.SkipValue()
		}
		if err != nil {
			return t, transactionError(err)
		}
	}
	if _, err = dec.ReadToken(); err != nil {
		return t, transactionError(err)
	}
	if _, err = dec.ReadToken(); err != io.EOF {
		return t, api.ErrNotJSON
	}
	return t, nil
}

// readList calls fn for each element of a list, of which there may be most.
func readList(dec *jsontext.Decoder, most int, fn func(jsontext.Value)) error {
	token, err := dec.ReadToken()
	switch {
	case err != nil:
		return err
	case token.Kind() == 'n':
		return nil // some servers write an empty list so
	case token.Kind() != '[':
		return api.ErrBadJSON
	}
	for ; dec.PeekKind() != ']'; most-- {
		v, err := dec.ReadValue()
		if err != nil {
			return err
		}
		if most == 0 {
			return api.ErrTooLarge.Because("A transaction has at most %d PDUs and %d EDUs", maxPDUs, maxEDUs)
		}
		fn(v)
	}
	_, err = dec.ReadToken()
	return err
}

// transactionError says what is wrong with a body that could not be read.
func transactionError(err error) error {
	if _, is := errors.AsType[*api.Error](err); is {
		return err
	}
	if _, is := errors.AsType[*jsontext.SyntacticError](err); is && !errors.Is(err, io.ErrUnexpectedEOF) {
		return api.ErrNotJSON
	}
	return api.BodyError(err)
}
