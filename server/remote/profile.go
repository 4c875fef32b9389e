package remote

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// A Profile is what a user tells of himself: fields by their name.
type Profile map[string]jsontext.Value

const (
	// profileLife is how long a profile is remembered.
	profileLife = time.Minute
	// maxProfile bounds a profile. "Profiles MUST be at most 64 KiB"; the answer may
	// be written with more blanks.
	maxProfile = 96 << 10
)

// Profile asks a user's server for his profile. It belongs to others, too: do not
// change it. The errors are those of [Network.Do].
// Spec: SS GET /_matrix/federation/v1/query/profile.
func (n *Network) Profile(ctx context.Context, user matrix.UserID) (Profile, error) {
	profile, _, err := n.replies.profiles.ask(ctx, n.config.Now, string(user), profileLife, func(ctx context.Context) (Profile, int, error) {
		var body jsontext.Value
		err := n.Do(ctx, user.Server(), Request{
			Method: http.MethodGet, Insist: true, Timeout: askTimeout, MaxBytes: maxProfile,
			Path: "/_matrix/federation/v1/query/profile?user_id=" + url.QueryEscape(string(user)),
		}, &body)
		if err != nil {
			return nil, 0, err
		}
		profile, ok := readProfile(body)
		if !ok {
			return nil, 0, badAnswer(user.Server(), "profile")
		}
		size := 0
		for name, value := range profile {
			size += 100 + len(name) + len(value)
		}
		return profile, size, nil
	})
	return profile, err
}

// readProfile reads an answer, without the fields that have no value, those that are no
// proper JSON, and those that must be text and are not.
func readProfile(body []byte) (Profile, bool) {
	var fields Profile
	if jsontext.Value(body).Kind() != '{' || json.Unmarshal(body, &fields, answerOptions) != nil {
		return nil, false
	}
	profile := make(Profile, len(fields))
	for name, value := range fields {
		text := name == "displayname" || name == "avatar_url" || name == "m.tz"
		if kind := value.Kind(); kind == 'n' || text && kind != '"' || !value.IsValid() {
			continue
		}
		profile[name] = bytes.Clone(value)
	}
	return profile, true
}
