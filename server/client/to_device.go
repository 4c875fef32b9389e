package client

import (
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Bounds of a to-device request, in bytes.
const (
	maxToDeviceBytes   = 2 << 20
	maxToDeviceContent = matrix.MaxEventBytes // one message
	maxToDeviceQueued  = 8 << 20              // in all queues, as "*" multiplies a message
)

// allDevices stands for every device of a user.
const allDevices = "*"

type sendToDeviceRequest struct {
	Messages map[matrix.UserID]map[matrix.DeviceID]jsontext.Value `json:"messages"`
}

// toDeviceEvent is a message as its device gets it.
type toDeviceEvent struct {
	Content jsontext.Value `json:"content"`
	Sender  matrix.UserID  `json:"sender"`
	Type    string         `json:"type"`
}

// sendToDevice answers PUT /sendToDevice/{eventType}/{txnID}. A device that
// repeats a txnID sends nothing. Devices that are not there get nothing, and
// nobody is told.
//
// Spec: CS Send-to-Device messaging.
func (s *Server) sendToDevice(w http.ResponseWriter, r *http.Request, who session) error {
	if err := s.limits.Take(api.LimitToDevice, string(who.user)); err != nil {
		return err
	}
	typ := r.PathValue("eventType")
	if len(typ) > matrix.MaxIDBytes {
		return api.ErrInvalidParam.Because("The event type may have %d bytes at most", matrix.MaxIDBytes)
	}
	txn, err := pathTxn(r, who, "sendToDevice", typ)
	if err != nil {
		return err
	}
	var req sendToDeviceRequest
	if err := api.ReadJSON(r, maxToDeviceBytes, &req); err != nil {
		return err
	}
	if req.Messages == nil {
		return api.MissingParam("messages")
	}
	messages, err := req.check(who.user, typ)
	if err != nil {
		return err
	}
	away, err := s.toDeviceElsewhere(req, who.user, typ)
	if err != nil {
		return err
	}
	err = s.store.Update(r.Context(), func(tx *store.Tx) error {
		repeated, err := tx.PutTxn(txn)
		if repeated || err != nil {
			return err
		}
		if err := queueMessages(tx, messages); err != nil {
			return err
		}
		return queueElsewhere(tx, away)
	})
	if err != nil {
		return fmt.Errorf("send %d messages to devices: %w", len(messages), err)
	}
	return api.WriteEmpty(w)
}

// queueMessages puts messages into the queues of their devices.
func queueMessages(tx *store.Tx, messages []deviceMessage) error {
	queued := 0
	for _, m := range messages {
		devices, err := m.send(tx)
		if err != nil {
			return err
		}
		if queued += devices * len(m.event); queued > maxToDeviceQueued {
			return api.ErrTooLarge.Because("A request may queue %d bytes for devices at most: send them in parts", maxToDeviceQueued)
		}
	}
	return nil
}

// deviceMessage is an event for one device of a user, or for all of them.
type deviceMessage struct {
	user   matrix.UserID
	device matrix.DeviceID
	event  jsontext.Value
}

// check makes the messages' events.
func (req sendToDeviceRequest) check(sender matrix.UserID, typ string) ([]deviceMessage, error) {
	var messages []deviceMessage
	for user, devices := range req.Messages {
		if _, err := matrix.ParseUserID(string(user)); err != nil {
			return nil, api.InvalidParam("messages", err)
		}
		for device, content := range devices {
			if content.Kind() != '{' {
				return nil, api.ErrBadJSON.Because("messages: the content for a device must be an object")
			}
			if len(content) > maxToDeviceContent {
				return nil, api.ErrTooLarge.Because("A message may have %d bytes at most", maxToDeviceContent)
			}
			event, err := json.Marshal(toDeviceEvent{Content: content, Sender: sender, Type: typ})
			if err != nil {
				return nil, api.ErrBadJSON
			}
			messages = append(messages, deviceMessage{user, device, event})
		}
	}
	return messages, nil
}

// send puts a message into the queue of its device, or of each device of its
// user, and returns how many those are. Those of other servers' users have no queue
// here.
func (m deviceMessage) send(tx *store.Tx) (queued int, err error) {
	user := tx.UserNum(m.user)
	if !tx.IsLocal(user) {
		return 0, nil
	}
	devices := []matrix.DeviceID{m.device}
	if m.device == allDevices {
		devices = nil
		err := tx.Devices(user, func(d store.Device) (bool, error) {
			devices = append(devices, d.ID)
			return true, nil
		})
		if err != nil || len(devices)*len(m.event) > maxToDeviceQueued {
			return len(devices), err
		}
	}
	for _, device := range devices {
		known, err := tx.AppendToDevice(user, device, m.event)
		if err != nil {
			return 0, err
		}
		if known {
			queued++
		}
	}
	return queued, nil
}
