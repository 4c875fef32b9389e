package client

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// deviceResponse is a device as its user sees it.
type deviceResponse struct {
	DeviceID    matrix.DeviceID `json:"device_id"`
	DisplayName string          `json:"display_name,omitzero"`
	LastSeenIP  string          `json:"last_seen_ip,omitzero"`
	LastSeenTS  int64           `json:"last_seen_ts,omitzero"`
}

type devicesResponse struct {
	Devices []deviceResponse `json:"devices"`
}

func (s *Server) describeDevice(user store.UserNum, d store.Device) deviceResponse {
	d = s.sightings.newest(user, d)
	return deviceResponse{
		DeviceID: d.ID, DisplayName: d.Name, LastSeenIP: d.LastIP, LastSeenTS: d.LastSeen.UnixMilli(),
	}
}

// getDevices answers GET /devices.
func (s *Server) getDevices(w http.ResponseWriter, _ *http.Request, who session) error {
	answer := devicesResponse{Devices: []deviceResponse{}}
	err := s.store.View(func(tx *store.Tx) error {
		return tx.Devices(who.num, func(d store.Device) (bool, error) {
			answer.Devices = append(answer.Devices, s.describeDevice(who.num, d))
			return true, nil
		})
	})
	if err != nil {
		return fmt.Errorf("devices of %s: %w", who.user, err)
	}
	return api.WriteJSON(w, answer)
}

// getDevice answers GET /devices/{deviceID}.
func (s *Server) getDevice(w http.ResponseWriter, r *http.Request, who session) error {
	var d store.Device
	err := s.store.View(func(tx *store.Tx) (err error) {
		d, err = tx.Device(who.num, matrix.DeviceID(r.PathValue("deviceID")))
		return err
	})
	if err != nil {
		return deviceError(err)
	}
	return api.WriteJSON(w, s.describeDevice(who.num, d))
}

type updateDeviceRequest struct {
	DisplayName *string `json:"display_name"`
}

// updateDevice answers PUT /devices/{deviceID}: the device's display name.
func (s *Server) updateDevice(w http.ResponseWriter, r *http.Request, who session) error {
	var req updateDeviceRequest
	if err := api.ReadJSON(r, maxLoginBytes, &req); err != nil {
		return err
	}
	if req.DisplayName != nil && len(*req.DisplayName) > maxDeviceName {
		return api.ErrInvalidParam.Because("display_name may have %d bytes at most", maxDeviceName)
	}
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		d, err := tx.Device(who.num, matrix.DeviceID(r.PathValue("deviceID")))
		if err != nil || req.DisplayName == nil {
			return err
		}
		d.Name = *req.DisplayName
		return tx.PutDevice(who.num, d)
	})
	if err != nil {
		return deviceError(err)
	}
	return api.WriteEmpty(w)
}

// deleteDevice answers DELETE /devices/{deviceID}. A device that is not there has
// been deleted before.
func (s *Server) deleteDevice(w http.ResponseWriter, r *http.Request, who session) error {
	if _, err := s.confirm(r, who, maxLoginBytes); err != nil {
		return err
	}
	return s.removeDevices(w, r, who, []matrix.DeviceID{matrix.DeviceID(r.PathValue("deviceID"))})
}

type deleteDevicesRequest struct {
	Devices []matrix.DeviceID `json:"devices"`
}

// maxDevicesBytes bounds the list of devices to delete.
const maxDevicesBytes = 128 << 10

// deleteDevices answers POST /delete_devices.
func (s *Server) deleteDevices(w http.ResponseWriter, r *http.Request, who session) error {
	body, err := s.confirm(r, who, maxDevicesBytes)
	if err != nil {
		return err
	}
	var req deleteDevicesRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return api.ErrBadJSON.Because("devices must be a list of device IDs")
	}
	if req.Devices == nil {
		return api.MissingParam("devices")
	}
	return s.removeDevices(w, r, who, req.Devices)
}

func (s *Server) removeDevices(w http.ResponseWriter, r *http.Request, who session, devices []matrix.DeviceID) error {
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		for _, id := range devices {
			if err := tx.DeleteDevice(who.num, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete %d devices of %s: %w", len(devices), who.user, err)
	}
	return api.WriteEmpty(w)
}

// deviceError says that a device is not there.
func deviceError(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return api.ErrNotFound.Because("You have no such device")
	}
	return err
}
