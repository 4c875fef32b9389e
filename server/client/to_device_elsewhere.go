package client

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// maxDirectEDU is about how many bytes of messages one EDU takes to another server,
// but for its last message. Other servers refuse transactions that are too large.
const maxDirectEDU = 60 << 10

// directMessages are the contents of messages by user and device; "*" stands for all
// of a user's devices.
type directMessages map[matrix.UserID]map[matrix.DeviceID]jsontext.Value

// directContent is the content of m.direct_to_device.
//
// Spec: SS Send-to-device messaging.
type directContent struct {
	Sender    matrix.UserID  `json:"sender"`
	Type      string         `json:"type"`
	MessageID string         `json:"message_id"`
	Messages  directMessages `json:"messages"`
}

type directEDU struct {
	Type    string        `json:"edu_type"`
	Content directContent `json:"content"`
}

// directToDevice is the type of the EDU.
const directToDevice = "m.direct_to_device"

// elsewhere is an EDU for another server.
type elsewhere struct {
	server matrix.ServerName
	edu    jsontext.Value
}

// toDeviceElsewhere makes the EDUs for the devices of other servers' users: one for
// each server, or a few where the messages are large. There are none where there are
// no other servers.
func (s *Server) toDeviceElsewhere(req sendToDeviceRequest, sender matrix.UserID, typ string) (all []elsewhere, err error) {
	if s.devices == nil {
		return nil, nil
	}
	var users []matrix.UserID
	for user := range req.Messages {
		if user.Server() != s.store.Server() {
			users = append(users, user)
		}
	}
	slices.SortFunc(users, func(a, b matrix.UserID) int {
		return cmp.Or(cmp.Compare(a.Server(), b.Server()), cmp.Compare(a, b))
	})
	batch := directBatch{sender: sender, typ: typ}
	for _, user := range users {
		for _, device := range slices.Sorted(maps.Keys(req.Messages[user])) {
			if err := batch.add(user, device, req.Messages[user][device]); err != nil {
				return nil, err
			}
		}
	}
	err = batch.end()
	return batch.done, err
}

// directBatch gathers messages into EDUs.
type directBatch struct {
	sender   matrix.UserID
	typ      string
	done     []elsewhere
	server   matrix.ServerName
	messages directMessages // of the EDU that is being filled
	bytes    int
}

func (b *directBatch) add(user matrix.UserID, device matrix.DeviceID, content jsontext.Value) error {
	if user.Server() != b.server || b.bytes+len(content) > maxDirectEDU {
		if err := b.end(); err != nil {
			return err
		}
	}
	if b.messages == nil {
		b.server, b.messages = user.Server(), make(directMessages)
	}
	if b.messages[user] == nil {
		b.messages[user] = make(map[matrix.DeviceID]jsontext.Value)
	}
	b.messages[user][device] = content
	b.bytes += len(user) + len(device) + len(content)
	return nil
}

// end makes the EDU of what has been gathered.
func (b *directBatch) end() error {
	if b.messages == nil {
		return nil
	}
	content := directContent{Sender: b.sender, Type: b.typ, MessageID: rand.Text(), Messages: b.messages}
	edu, err := json.Marshal(directEDU{directToDevice, content})
	if err != nil {
		return fmt.Errorf("messages to devices at %s: %w", b.server, err)
	}
	b.done = append(b.done, elsewhere{b.server, edu})
	b.messages, b.bytes = nil, 0
	return nil
}

// queueElsewhere puts EDUs into the outboxes of their servers.
func queueElsewhere(tx *store.Tx, away []elsewhere) error {
	for _, e := range away {
		server, err := tx.PutServerNum(e.server)
		if err == nil {
			err = tx.PutOutbox(server, e.edu)
		}
		if err != nil {
			return fmt.Errorf("messages to devices at %s: %w", e.server, err)
		}
	}
	return nil
}
