package client

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// ReceiveDeviceList takes an m.device_list_update from another server; see
// [remote.DeviceLists.Receive].
func (s *Server) ReceiveDeviceList(ctx context.Context, origin matrix.ServerName, content jsontext.Value) error {
	if s.devices == nil {
		return nil
	}
	return s.devices.Receive(ctx, origin, content)
}

// ReceiveSigningKeys takes an m.signing_key_update from another server; see
// [remote.DeviceLists.ReceiveSigningKeys].
func (s *Server) ReceiveSigningKeys(ctx context.Context, origin matrix.ServerName, content jsontext.Value) error {
	if s.devices == nil {
		return nil
	}
	return s.devices.ReceiveSigningKeys(ctx, origin, content)
}
