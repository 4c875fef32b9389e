package client

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/store"
)

// pusher is a pusher as its user sets and sees it.
type pusher struct {
	Pushkey           string         `json:"pushkey"`
	Kind              *string        `json:"kind"`
	AppID             string         `json:"app_id"`
	AppDisplayName    string         `json:"app_display_name"`
	DeviceDisplayName string         `json:"device_display_name"`
	ProfileTag        string         `json:"profile_tag,omitzero"`
	Lang              string         `json:"lang"`
	Data              jsontext.Value `json:"data,omitzero"`
}

type getPushersResponse struct {
	Pushers []pusher `json:"pushers"`
}

// getPushers answers GET /pushers.
func (s *Server) getPushers(w http.ResponseWriter, _ *http.Request, who session) error {
	answer := getPushersResponse{Pushers: []pusher{}}
	err := s.store.View(func(tx *store.Tx) error {
		all, err := tx.Pushers(who.num)
		for _, p := range all {
			answer.Pushers = append(answer.Pushers, pusher{
				Pushkey: p.Key, Kind: &p.Kind, AppID: p.App, AppDisplayName: p.AppName,
				DeviceDisplayName: p.DeviceName, ProfileTag: p.ProfileTag, Lang: p.Lang, Data: p.Data,
			})
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("pushers of %s: %w", who.user, err)
	}
	return api.WriteJSON(w, answer)
}

type postPusherRequest struct {
	pusherFields
	Append bool `json:"append"`
}

// pusherFields are those of pusher; which are there is told apart.
type pusherFields struct {
	Pushkey           *string        `json:"pushkey"`
	Kind              jsontext.Value `json:"kind"`
	AppID             *string        `json:"app_id"`
	AppDisplayName    *string        `json:"app_display_name"`
	DeviceDisplayName *string        `json:"device_display_name"`
	ProfileTag        string         `json:"profile_tag"`
	Lang              *string        `json:"lang"`
	Data              jsontext.Value `json:"data"`
}

// Bounds of pushers. The first two are those of the specification.
const (
	maxAppID      = 64  // characters
	maxPushkey    = 512 // bytes
	maxPusherText = 255 // bytes of a name, language or tag
	maxPusherData = 4 << 10
	maxPushers    = 64 // of one user
)

// httpPusher is the one kind of pushers that there is here.
const httpPusher = "http"

// postPusher answers POST /pushers/set.
//
// Spec: CS Push Notifications.
func (s *Server) postPusher(w http.ResponseWriter, r *http.Request, who session) error {
	var req postPusherRequest
	if err := api.ReadJSON(r, maxSmallBody, &req); err != nil {
		return err
	}
	id, err := req.id()
	if err != nil {
		return err
	}
	if req.Kind.Kind() == 'n' {
		err := s.store.Update(r.Context(), func(tx *store.Tx) error { return tx.DeletePusher(who.num, id) })
		if err != nil {
			return err
		}
		return api.WriteEmpty(w)
	}
	p, err := s.pusher(req.pusherFields, id, who)
	if err != nil {
		return err
	}
	if err := s.putPusher(r, who, p, req.Append); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

func (s *Server) putPusher(r *http.Request, who session, p store.Pusher, keepOthers bool) error {
	err := s.store.Update(r.Context(), func(tx *store.Tx) error {
		all, err := tx.Pushers(who.num)
		if err != nil {
			return err
		}
		isNew := true
		for _, old := range all {
			isNew = isNew && old.PusherID != p.PusherID
		}
		if isNew && len(all) >= maxPushers {
			return api.ErrUserLimit.Because("You have %d pushers, as many as you may: delete some", len(all))
		}
		if !keepOthers {
			if err := tx.DeletePushersOfOthers(who.num, p.PusherID); err != nil {
				return err
			}
		}
		return tx.PutPusher(who.num, p)
	})
	if err != nil {
		return fmt.Errorf("set a pusher of %s: %w", who.user, err)
	}
	return nil
}

// id returns which pusher is meant.
func (f *pusherFields) id() (store.PusherID, error) {
	var missing []string
	for _, p := range []struct {
		name    string
		missing bool
	}{{"pushkey", f.Pushkey == nil}, {"app_id", f.AppID == nil}, {"kind", f.Kind == nil}} {
		if p.missing {
			missing = append(missing, p.name)
		}
	}
	if missing != nil {
		return store.PusherID{}, missingParams(missing)
	}
	id := store.PusherID{App: *f.AppID, Key: *f.Pushkey}
	switch {
	case id.App == "" || utf8.RuneCountInString(id.App) > maxAppID || strings.IndexByte(id.App, 0) >= 0:
		return id, api.ErrInvalidParam.Because("app_id must have 1 to %d characters", maxAppID)
	case id.Key == "" || len(id.Key) > maxPushkey || strings.IndexByte(id.Key, 0) >= 0:
		return id, api.ErrInvalidParam.Because("pushkey must have 1 to %d bytes", maxPushkey)
	}
	return id, nil
}

// missingParams returns M_MISSING_PARAM for several at once.
func missingParams(names []string) error {
	return api.ErrMissingParam.Because("Missing parameters: %s", strings.Join(names, ", "))
}

// pusher returns the pusher that a request sets.
func (s *Server) pusher(f pusherFields, id store.PusherID, who session) (store.Pusher, error) {
	p := store.Pusher{PusherID: id, ProfileTag: f.ProfileTag, Device: who.device, Updated: s.now().Truncate(time.Second)}
	if err := json.Unmarshal(f.Kind, &p.Kind); err != nil {
		return p, api.ErrBadJSON.Because("kind must be a string or null")
	}
	if p.Kind != httpPusher {
		return p, api.ErrInvalidParam.Because("This server has pushers of the kind %q only: it sends no e-mail", httpPusher)
	}
	var missing []string
	for _, text := range []struct {
		name  string
		given *string
		to    *string
	}{
		{"app_display_name", f.AppDisplayName, &p.AppName},
		{"device_display_name", f.DeviceDisplayName, &p.DeviceName},
		{"lang", f.Lang, &p.Lang},
		{"profile_tag", &f.ProfileTag, &p.ProfileTag},
	} {
		switch {
		case text.given == nil:
			missing = append(missing, text.name)
		case len(*text.given) > maxPusherText:
			return p, api.ErrInvalidParam.Because("%s may have %d bytes at most", text.name, maxPusherText)
		default:
			*text.to = *text.given
		}
	}
	if f.Data == nil {
		missing = append(missing, "data")
	}
	if missing != nil {
		return p, missingParams(missing)
	}
	p.Data = f.Data
	return p, s.checkPusherData(f.Data)
}

// pushPath is where push gateways listen.
const pushPath = "/_matrix/push/v1/notify"

// checkPusherData holds the data of a pusher to "MUST be an HTTPS URL with a path of
// /_matrix/push/v1/notify". Plain HTTP goes where the owner lets requests reach his
// own network, for push gateways in it.
func (s *Server) checkPusherData(data jsontext.Value) error {
	if len(data) > maxPusherData {
		return api.ErrInvalidParam.Because("data may have %d bytes at most", maxPusherData)
	}
	var known struct {
		URL    *string        `json:"url"`
		Format jsontext.Value `json:"format"`
	}
	if data.Kind() != '{' || json.Unmarshal(data, &known) != nil {
		return api.ErrInvalidParam.Because("data must be an object whose url is a string")
	}
	if known.URL == nil {
		return api.MissingParam("data.url")
	}
	u, err := url.Parse(*known.URL)
	plain := err == nil && u.Scheme == "http" && s.config.PrivateNetworks
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !plain {
		return api.ErrInvalidParam.Because("data.url must be an HTTPS URL")
	}
	if u.Path != pushPath {
		return api.ErrInvalidParam.Because("data.url must have the path %s", pushPath)
	}
	return nil
}
