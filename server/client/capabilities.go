package client

import (
	"net/http"

	"hearth/server/api"
	"hearth/state/matrix"
)

type capabilitiesResponse struct {
	Capabilities capabilities `json:"capabilities"`
}

// capabilities are what this server can do for its users.
//
// Spec: CS Capabilities negotiation.
type capabilities struct {
	RoomVersions   roomVersions `json:"m.room_versions"`
	ChangePassword ability      `json:"m.change_password"`
	ProfileFields  ability      `json:"m.profile_fields"`
	SetDisplayname ability      `json:"m.set_displayname"`
	SetAvatarURL   ability      `json:"m.set_avatar_url"`
	Changes3PID    ability      `json:"m.3pid_changes"`
	GetLoginToken  ability      `json:"m.get_login_token"`
	ForcedForget   ability      `json:"m.forget_forced_upon_leave"`

	// Moderation is there for administrators alone: "This property should be
	// omitted altogether" where nothing in it is true.
	Moderation *moderationAbility `json:"m.account_moderation,omitzero"`
}

// moderationAbility is what a user may do to the accounts of others.
type moderationAbility struct {
	Suspend bool `json:"suspend"`
	Lock    bool `json:"lock"`
}

type ability struct {
	Enabled bool `json:"enabled"`
}

type roomVersions struct {
	Default   string            `json:"default"`
	Available map[string]string `json:"available"`
}

// getCapabilities answers GET /capabilities.
func (s *Server) getCapabilities(w http.ResponseWriter, _ *http.Request, who session) error {
	on, off := ability{Enabled: true}, ability{}
	all := capabilities{
		RoomVersions: roomVersionsFrom(s.rooms.DefaultVersion()), ChangePassword: on, ProfileFields: on, SetDisplayname: on,
		SetAvatarURL: on, Changes3PID: off, GetLoginToken: on, ForcedForget: off,
	}
	if who.admin {
		all.Moderation = &moderationAbility{Suspend: true, Lock: true}
	}
	return api.WriteJSON(w, capabilitiesResponse{Capabilities: all})
}

func roomVersionsFrom(standard string) roomVersions {
	all := roomVersions{Default: standard, Available: make(map[string]string)}
	for _, v := range matrix.Versions() {
		all.Available[v.ID] = "unstable"
		if v.Stable {
			all.Available[v.ID] = "stable"
		}
	}
	return all
}
