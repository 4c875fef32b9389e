package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
)

// ReceiveToDevice takes an m.direct_to_device from another server: messages of one of
// its users to devices here. One that has come before, under its sender's message_id,
// is not delivered again. All messages of an EDU are queued, or none.
//
// Spec: SS Send-to-device messaging.
func (s *Server) ReceiveToDevice(ctx context.Context, origin matrix.ServerName, content jsontext.Value) error {
	direct, err := readDirect(origin, content)
	if err != nil {
		return err
	}
	messages, err := s.localMessages(direct)
	if err != nil || len(messages) == 0 {
		return err
	}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		server, err := tx.PutServerNum(origin)
		if err != nil {
			return err
		}
		repeated, err := tx.PutServerMessage(server, direct.Sender, direct.MessageID)
		if repeated || err != nil {
			return err
		}
		err = queueMessages(tx, messages)
		if errors.Is(err, api.ErrTooLarge) {
			err = fmt.Errorf("%w: %w", remote.ErrBadEDU, err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%d messages of %s to devices: %w", len(messages), direct.Sender, err)
	}
	return nil
}

// readDirect holds an m.direct_to_device to its form.
func readDirect(origin matrix.ServerName, content jsontext.Value) (d directContent, err error) {
	if err := json.Unmarshal(content, &d); err != nil {
		return d, fmt.Errorf("%s: %w: %w", directToDevice, remote.ErrBadEDU, err)
	}
	if _, err := matrix.ParseUserID(string(d.Sender)); err != nil || d.Sender.Server() != origin {
		return d, fmt.Errorf("%s: the sender is not one of %s: %w", directToDevice, origin, remote.ErrBadEDU)
	}
	if d.Type == "" || len(d.Type) > matrix.MaxIDBytes || d.MessageID == "" || len(d.MessageID) > matrix.MaxIDBytes {
		return d, fmt.Errorf("%s of %s: %w", directToDevice, d.Sender, remote.ErrBadEDU)
	}
	return d, nil
}

// localMessages makes the events of messages to our users. Those to others are left
// out: they have no queue here.
func (s *Server) localMessages(d directContent) ([]deviceMessage, error) {
	ours := make(map[matrix.UserID]map[matrix.DeviceID]jsontext.Value)
	err := s.store.View(func(tx *store.Tx) error {
		for user, devices := range d.Messages {
			if tx.IsLocal(tx.UserNum(user)) {
				ours[user] = devices
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	messages, err := sendToDeviceRequest{ours}.check(d.Sender, d.Type)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s of %s: %w", directToDevice, d.Sender, remote.ErrBadEDU), err)
	}
	return messages, nil
}
