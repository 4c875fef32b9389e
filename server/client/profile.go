package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state/matrix"
	"hearth/store"
)

// The profile fields that are part of member events.
const (
	fieldDisplayName = "displayname"
	fieldAvatarURL   = "avatar_url"
)

const (
	maxProfileKey   = 255     // bytes of a field's name
	maxDisplayName  = 1 << 10 // bytes: it is copied into every room
	maxAvatarURL    = 1 << 10
	maxProfileWrite = store.MaxProfileBytes + 1<<10
)

// getUserProfile answers GET /profile/{userID}.
func (s *Server) getUserProfile(w http.ResponseWriter, r *http.Request, who session) error {
	user, err := s.pathProfile(r, who)
	if err != nil {
		return err
	}
	profile, err := s.profileOf(r.Context(), user)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, profile)
}

// getProfileField answers GET /profile/{userID}/{keyName}.
func (s *Server) getProfileField(w http.ResponseWriter, r *http.Request, who session) error {
	user, err := s.pathProfile(r, who)
	if err != nil {
		return err
	}
	profile, err := s.profileOf(r.Context(), user)
	if err != nil {
		return err
	}
	name := r.PathValue("keyName")
	value, found := profile[name]
	if !found {
		return api.ErrNotFound.Because("The profile has no such field")
	}
	return api.WriteJSON(w, remote.Profile{name: value})
}

// pathProfile reads the user whose profile is asked for.
func (s *Server) pathProfile(r *http.Request, who session) (matrix.UserID, error) {
	user, err := matrix.ParseUserID(r.PathValue("userID"))
	if err != nil {
		return "", api.InvalidParam("userID", err)
	}
	return user, s.limitAsking(r, who, user.Server())
}

// profileOf returns a user's profile, which must not be changed. Where he is of
// another server, that is asked. The error is M_NOT_FOUND where there is no such user,
// M_FORBIDDEN where his server does not tell, and 502 or 504 where it is at fault.
//
// Spec: CS Profiles.
func (s *Server) profileOf(ctx context.Context, user matrix.UserID) (remote.Profile, error) {
	if user.Server() == s.store.Server() {
		return s.OwnProfile(user)
	}
	if s.config.Network == nil {
		return nil, api.ErrNotFound.Because("%s cannot be asked for profiles: this server does not federate", user.Server())
	}
	profile, err := s.config.Network.Profile(ctx, user)
	return profile, remoteError(err)
}

// OwnProfile returns the profile of a user of this server; M_NOT_FOUND where there is
// none.
func (s *Server) OwnProfile(user matrix.UserID) (remote.Profile, error) {
	profile := make(remote.Profile)
	err := s.viewProfile(user, func(tx *store.Tx, num store.UserNum) error {
		return tx.Profile(num, func(name string, value jsontext.Value) (bool, error) {
			profile[name] = bytes.Clone(value)
			return true, nil
		})
	})
	return profile, err
}

// viewProfile calls fn for a user of this server; M_NOT_FOUND where there is none.
func (s *Server) viewProfile(user matrix.UserID, fn func(*store.Tx, store.UserNum) error) error {
	return s.store.View(func(tx *store.Tx) error {
		num := tx.UserNum(user)
		account, err := tx.Account(num)
		if errors.Is(err, store.ErrNotFound) || err == nil && account.Deactivated {
			return api.ErrNotFound.Because("There is no such user")
		}
		if err != nil {
			return err
		}
		return fn(tx, num)
	})
}

// setProfileField answers PUT /profile/{userID}/{keyName}.
func (s *Server) setProfileField(w http.ResponseWriter, r *http.Request, who session) error {
	name, err := ownProfileField(r, who)
	if err != nil {
		return err
	}
	body, err := api.ReadObject(r, maxProfileWrite)
	if err != nil {
		return err
	}
	var fields map[string]jsontext.Value
	if err := json.Unmarshal(body, &fields); err != nil {
		return api.ErrBadJSON
	}
	value, found := fields[name]
	if !found {
		return api.MissingParam(name)
	}
	if err := checkProfileValue(name, value); err != nil {
		return err
	}
	if value.Kind() == 'n' && isMemberField(name) {
		value = nil
	}
	if err := s.changeProfile(r.Context(), who, name, value); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// deleteProfileField answers DELETE /profile/{userID}/{keyName}.
func (s *Server) deleteProfileField(w http.ResponseWriter, r *http.Request, who session) error {
	name, err := ownProfileField(r, who)
	if err != nil {
		return err
	}
	if err := s.changeProfile(r.Context(), who, name, nil); err != nil {
		return err
	}
	return api.WriteEmpty(w)
}

// changeProfile sets a field of a user's profile, or removes it where value is nil.
// What member events carry is written into those of all the user's rooms, even if
// the client does not wait for it.
func (s *Server) changeProfile(ctx context.Context, who session, name string, value jsontext.Value) error {
	if err := s.limits.Take(api.LimitProfile, string(who.user)); err != nil {
		return err
	}
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if value == nil {
			return tx.DeleteProfileField(who.num, name)
		}
		return tx.PutProfileField(who.num, name, value)
	})
	if errors.Is(err, store.ErrProfileTooLarge) {
		return api.ErrProfileTooLarge
	}
	if err != nil {
		return fmt.Errorf("profile of %s: %w", who.user, err)
	}
	if !isMemberField(name) {
		return nil
	}
	s.presenceProfile(who)
	return s.rooms.SpreadProfile(context.WithoutCancel(ctx), who.user)
}

// ownProfileField returns the name of the field that a user changes: of their own
// profile, and a name that the specification allows.
//
// Spec: CS Profiles; appendices, Common Namespaced Identifier Grammar.
func ownProfileField(r *http.Request, who session) (string, error) {
	user, err := matrix.ParseUserID(r.PathValue("userID"))
	if err != nil {
		return "", api.InvalidParam("userID", err)
	}
	if user != who.user {
		return "", api.ErrForbidden.Because("You can change your own profile only")
	}
	name := r.PathValue("keyName")
	switch {
	case who.guest && name != fieldDisplayName:
		return "", api.ErrGuestAccessForbidden.Because("Guests can change their display name only")
	case len(name) > maxProfileKey:
		return "", api.ErrKeyTooLarge
	case !isMemberField(name) && !isNamespaced(name):
		return "", api.ErrInvalidParam.Because("A profile field is displayname, avatar_url or a name like org.example.field")
	}
	return name, nil
}

// isMemberField says whether a field of the profile is part of member events.
func isMemberField(name string) bool { return name == fieldDisplayName || name == fieldAvatarURL }

// isNamespaced says whether name follows the Common Namespaced Identifier Grammar.
func isNamespaced(name string) bool {
	dots := 0
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || part[0] < 'a' || part[0] > 'z' {
			return false
		}
		for _, c := range []byte(part) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
				return false
			}
		}
		dots++
	}
	return dots > 1
}

// checkProfileValue holds the fields that the specification defines to their form.
// Null, or an empty avatar URL, is how clients took a field away before there was
// DELETE.
func checkProfileValue(name string, value jsontext.Value) error {
	var text string
	isText := value.Kind() == '"' && json.Unmarshal(value, &text) == nil
	switch name {
	case fieldDisplayName:
		if !isText && value.Kind() != 'n' {
			return api.ErrBadJSON.Because("displayname must be a string")
		}
		if len(text) > maxDisplayName {
			return api.ErrInvalidParam.Because("displayname may have %d bytes at most", maxDisplayName)
		}
	case fieldAvatarURL:
		if !isText && value.Kind() != 'n' {
			return api.ErrBadJSON.Because("avatar_url must be a string")
		}
		if len(text) > maxAvatarURL {
			return api.ErrInvalidParam.Because("avatar_url may have %d bytes at most", maxAvatarURL)
		}
	case "m.tz":
		if !isText {
			return api.ErrBadJSON.Because("m.tz must be a string")
		}
	}
	return nil
}

// quote returns s as a JSON string.
func quote(s string) jsontext.Value {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil { // not UTF-8: the offending bytes become U+FFFD
		b, _ = jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return b
}
