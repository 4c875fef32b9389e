package client

import (
	"fmt"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// syncTop is the part of a sync that belongs to no room.
type syncTop struct {
	NextBatch   string                      `json:"next_batch"`
	AccountData eventList[accountDataEvent] `json:"account_data,omitzero"`
	Presence    eventList[presenceEvent]    `json:"presence,omitzero"`
	deviceSync
}

// eventList is a section that holds events.
type eventList[T any] struct {
	Events []T `json:"events,omitzero"`
}

// listOf returns the section for events, nothing where there are none.
func listOf[T any](events []T) (list eventList[T]) {
	if len(events) > 0 {
		list.Events = events
	}
	return list
}

// syncWriter writes the answer of a sync. Nothing is sent before something is
// new: until then the request can still wait, or fail with a proper error.
type syncWriter struct {
	w       http.ResponseWriter
	next    streamToken
	top     syncTop
	begun   bool
	section string // the section of rooms that is open, "" for none
	filled  bool   // the open section has a room
}

// begin sends the head of the answer, once.
func (o *syncWriter) begin() error {
	if o.begun {
		return nil
	}
	head, err := json.Marshal(o.top, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return fmt.Errorf("write a sync: %w", err)
	}
	o.begun = true
	o.w.Header().Set("Content-Type", "application/json")
	_, err = o.w.Write(head[:len(head)-1])
	return err
}

// room sends the beginning of a room's entry, all but its closing brace.
func (o *syncWriter) room(section string, id matrix.RoomID, entry []byte) error {
	if err := o.begin(); err != nil {
		return err
	}
	b := make([]byte, 0, len(id)+32)
	switch {
	case o.section == "":
		b = append(b, `,"rooms":{"`...)
	case o.section != section:
		b = append(b, `},"`...)
	case o.filled:
		b = append(b, ',')
	}
	if o.section != section {
		b = append(append(b, section...), `":{`...)
		o.section = section
	}
	o.filled = true
	b, err := jsontext.AppendQuote(b, string(id))
	if err != nil {
		return fmt.Errorf("write room %s: %w", id, err)
	}
	if err := o.write(append(b, ':')); err != nil {
		return err
	}
	return o.write(entry)
}

// write sends more of the open room's entry.
func (o *syncWriter) write(b []byte) error {
	_, err := o.w.Write(b)
	return err
}

// finish closes what is open.
func (o *syncWriter) finish() error {
	if err := o.begin(); err != nil {
		return err
	}
	end := "}"
	if o.section != "" {
		end = "}}}"
	}
	_, err := io.WriteString(o.w, end)
	return err
}

// abort returns err while an error can still be answered. Behind the first
// byte the connection is cut, so that no client takes half an answer for one.
func (o *syncWriter) abort(err error) error {
	if !o.begun {
		return err
	}
	panic(http.ErrAbortHandler)
}
