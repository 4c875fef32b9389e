package federation

import (
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/e2ee"
	"hearth/state/matrix"
	"hearth/store"
)

type userDevicesResponse struct {
	UserID      matrix.UserID  `json:"user_id"`
	StreamID    store.Position `json:"stream_id"`
	Devices     []userDevice   `json:"devices"`
	Master      jsontext.Value `json:"master_key,omitzero"`
	SelfSigning jsontext.Value `json:"self_signing_key,omitzero"`
}

type userDevice struct {
	DeviceID matrix.DeviceID `json:"device_id"`
	Name     string          `json:"device_display_name,omitzero"`
	Keys     jsontext.Value  `json:"keys"`
}

// getUserDevices answers GET /user/devices/{userId}: the devices of a user of ours
// that have keys, as of the change that stream_id says.
//
// Spec: SS Device Management.
func (s *Server) getUserDevices(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	user, err := matrix.ParseUserID(r.PathValue("userID"))
	if err != nil {
		return api.InvalidParam("userId", err)
	}
	if user.Server() != s.store.Server() {
		return api.ErrInvalidParam.Because("%s is not a user of this server", user)
	}
	answer := userDevicesResponse{UserID: user, Devices: []userDevice{}}
	err = s.store.View(func(tx *store.Tx) error {
		num := tx.UserNum(user)
		if !tx.IsLocal(num) {
			return api.ErrNotFound.Because("There is no such user")
		}
		list, err := tx.DeviceList(num)
		if err != nil {
			return err
		}
		answer.StreamID = list.Device
		view := e2ee.View{Tx: tx}
		err = tx.Devices(num, func(d store.Device) (bool, error) {
			keys, err := view.Device(num, d)
			if keys != nil {
				answer.Devices = append(answer.Devices, userDevice{d.ID, d.Name, keys})
			}
			return true, err
		})
		if err != nil {
			return err
		}
		if answer.Master, err = view.CrossSigning(num, store.UsageMaster); err != nil {
			return err
		}
		answer.SelfSigning, err = view.CrossSigning(num, store.UsageSelfSigning)
		return err
	})
	if err != nil {
		return fmt.Errorf("devices of %s: %w", user, err)
	}
	return api.WriteJSON(w, answer)
}

type queryUserKeysRequest struct {
	DeviceKeys map[matrix.UserID][]matrix.DeviceID `json:"device_keys"`
}

type queryUserKeysResponse struct {
	DeviceKeys  map[matrix.UserID]map[matrix.DeviceID]jsontext.Value `json:"device_keys"`
	Master      map[matrix.UserID]jsontext.Value                     `json:"master_keys"`
	SelfSigning map[matrix.UserID]jsontext.Value                     `json:"self_signing_keys"`
}

// queryUserEncryptionKeys answers POST /user/keys/query. Users who are not ours, and
// devices that are not there, are left out.
//
// Spec: SS End-to-End Encryption.
func (s *Server) queryUserEncryptionKeys(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	var req queryUserKeysRequest
	if err := api.ReadJSON(r, maxBody, &req); err != nil {
		return err
	}
	if req.DeviceKeys == nil {
		return api.MissingParam("device_keys")
	}
	answer := queryUserKeysResponse{
		DeviceKeys: make(map[matrix.UserID]map[matrix.DeviceID]jsontext.Value),
		Master:     make(map[matrix.UserID]jsontext.Value), SelfSigning: make(map[matrix.UserID]jsontext.Value),
	}
	err := s.store.View(func(tx *store.Tx) error {
		view := e2ee.View{Tx: tx}
		for user, named := range req.DeviceKeys {
			num := tx.UserNum(user)
			if !tx.IsLocal(num) {
				continue
			}
			keys, err := view.User(num, named)
			if err != nil {
				return fmt.Errorf("keys of %s: %w", user, err)
			}
			answer.add(user, keys)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return api.WriteJSON(w, answer)
}

// add puts the keys of a user into the answer.
func (a *queryUserKeysResponse) add(user matrix.UserID, keys e2ee.Keys) {
	a.DeviceKeys[user] = keys.Devices
	if keys.Master != nil {
		a.Master[user] = keys.Master
	}
	if keys.SelfSigning != nil {
		a.SelfSigning[user] = keys.SelfSigning
	}
}

type claimUserKeysRequest struct {
	OneTimeKeys e2ee.Claims `json:"one_time_keys"`
}

type claimUserKeysResponse struct {
	OneTimeKeys e2ee.Claimed `json:"one_time_keys"`
}

// claimUserEncryptionKeys answers POST /user/keys/claim. Each key is given out once;
// a claim whose answer is lost has used its keys up.
//
// Spec: SS End-to-End Encryption.
func (s *Server) claimUserEncryptionKeys(w http.ResponseWriter, r *http.Request, _ matrix.ServerName) error {
	var req claimUserKeysRequest
	if err := api.ReadJSON(r, maxBody, &req); err != nil {
		return err
	}
	if req.OneTimeKeys == nil {
		return api.MissingParam("one_time_keys")
	}
	claimed, err := e2ee.Claim(r.Context(), s.store, req.OneTimeKeys)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, claimUserKeysResponse{claimed})
}
