package matrix

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Identifiers, each a type of its own so that none can be taken for another. A
// value of these types was parsed once, where it came in; inside the server it
// is valid. Specification: appendices, "Identifier Grammar".
type (
	// RoomID is '!' and opaque text: with a domain up to room version 11, the
	// reference hash of the create event from version 12 on.
	RoomID string
	// EventID is '$' and opaque text: with a domain in room versions 1 and 2, the
	// event's reference hash from version 3 on.
	EventID string
	// UserID is "@localpart:server".
	UserID string
	// RoomAlias is "#localpart:server".
	RoomAlias string
	// ServerName is a host name or IP literal with an optional port. It is
	// compared byte by byte: the specification has it case-sensitive.
	ServerName string
	// DeviceID is what the user's server, or the client, named a device.
	DeviceID string
)

// MaxIDBytes is the length that no identifier, event type or state key exceeds,
// counted in bytes and with the sigil.
const MaxIDBytes = 255

// ErrBadID is wrapped by every refusal of an identifier.
var ErrBadID = errors.New("not a valid identifier")

// ParseRoomID accepts '!' and one or more characters of opaque text. Whether a
// domain belongs there is for the room's version to say.
func ParseRoomID(s string) (RoomID, error) {
	if err := checkOpaque(s, '!'); err != nil {
		return "", fmt.Errorf("room ID %q: %w", clip(s), err)
	}
	return RoomID(s), nil
}

// ParseEventID accepts '$' and one or more characters of opaque text.
func ParseEventID(s string) (EventID, error) {
	if err := checkOpaque(s, '$'); err != nil {
		return "", fmt.Errorf("event ID %q: %w", clip(s), err)
	}
	return EventID(s), nil
}

// ParseUserID accepts the historical grammar: a localpart of any characters but
// ':' and NUL, even an empty one (appendices, "Historical User IDs").
func ParseUserID(s string) (UserID, error) {
	if err := checkOnServer(s, '@'); err != nil {
		return "", fmt.Errorf("user ID %q: %w", clip(s), err)
	}
	return UserID(s), nil
}

// ParseRoomAlias accepts a localpart of any characters but ':' and NUL.
func ParseRoomAlias(s string) (RoomAlias, error) {
	if err := checkOnServer(s, '#'); err != nil {
		return "", fmt.Errorf("room alias %q: %w", clip(s), err)
	}
	return RoomAlias(s), nil
}

// ParseServerName accepts the grammar of the appendices, "Server Name".
func ParseServerName(s string) (ServerName, error) {
	if !isServerName(s) {
		return "", fmt.Errorf("server name %q: %w", clip(s), ErrBadID)
	}
	return ServerName(s), nil
}

// ParseDeviceID accepts any text of 1 to 255 bytes without NUL: the
// specification calls device IDs opaque.
func ParseDeviceID(s string) (DeviceID, error) {
	if s == "" || !isText(s) {
		return "", fmt.Errorf("device ID %q: %w", clip(s), ErrBadID)
	}
	return DeviceID(s), nil
}

// NewUserID makes the ID of a new account. It holds the localpart to today's
// grammar: one or more of a-z, 0-9 and "._=-/+" (appendices, "User Identifiers").
func NewUserID(localpart string, server ServerName) (UserID, error) {
	id := "@" + localpart + ":" + string(server)
	if localpart == "" || len(id) > MaxIDBytes || !isServerName(string(server)) {
		return "", fmt.Errorf("user ID %q: %w", clip(id), ErrBadID)
	}
	for i := range len(localpart) {
		c := localpart[i]
		if !isLower(c) && !isDigit(c) && strings.IndexByte("._=-/+", c) < 0 {
			return "", fmt.Errorf("user ID %q: %w", clip(id), ErrBadID)
		}
	}
	return UserID(id), nil
}

// Localpart is the part between '@' and the first ':'.
func (u UserID) Localpart() string { return localpart(string(u)) }

// Server is the part after the first ':'.
func (u UserID) Server() ServerName { return serverPart(string(u)) }

// Localpart is the part between '#' and the first ':'.
func (a RoomAlias) Localpart() string { return localpart(string(a)) }

// Server is the part after the first ':'.
func (a RoomAlias) Server() ServerName { return serverPart(string(a)) }

// Server is the part after the first ':', of the server that made the room, and
// whether the ID has one: those of version 12 rooms do not.
func (r RoomID) Server() (ServerName, bool) {
	s := serverPart(string(r))
	return s, s != ""
}

// Server is the part after the first ':' and whether the ID has one: those of
// version 1 and 2 rooms do.
func (e EventID) Server() (ServerName, bool) {
	s := serverPart(string(e))
	return s, s != ""
}

// Host is the name without its port; brackets of an IPv6 literal stay.
func (n ServerName) Host() string {
	host, _ := splitPort(string(n))
	return host
}

func localpart(id string) string {
	if id == "" {
		return ""
	}
	local, _, _ := strings.Cut(id[1:], ":")
	return local
}

func serverPart(id string) ServerName {
	_, server, _ := strings.Cut(id, ":")
	return ServerName(server)
}

func checkOpaque(s string, sigil byte) error {
	if len(s) < 2 || s[0] != sigil || !isText(s) {
		return ErrBadID
	}
	return nil
}

// checkOnServer checks an ID of the form sigil, localpart, ':', server name.
func checkOnServer(s string, sigil byte) error {
	colon := strings.IndexByte(s, ':')
	if colon < 1 || s[0] != sigil || !isText(s) || !isServerName(s[colon+1:]) {
		return ErrBadID
	}
	return nil
}

// isText reports whether s is short enough, valid UTF-8 and free of NUL.
func isText(s string) bool {
	return len(s) <= MaxIDBytes && strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

func isServerName(s string) bool {
	host, port := splitPort(s)
	if len(s) > MaxIDBytes || host == "" {
		return false
	}
	if host != s && !isPort(port) {
		return false
	}
	if host[0] == '[' {
		// Cloned, as the error would make every name that is checked escape to the heap.
		addr, err := netip.ParseAddr(strings.Clone(strings.TrimSuffix(host[1:], "]")))
		return err == nil && addr.Is6() && addr.Zone() == "" && host[len(host)-1] == ']'
	}
	for i := range len(host) {
		c := host[i]
		if !isLower(c) && !isDigit(c) && c != '-' && c != '.' && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// splitPort cuts a server name at the colon before its port; host is all of s
// when there is none.
func splitPort(s string) (host, port string) {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || colon < strings.LastIndexByte(s, ']') {
		return s, ""
	}
	return s[:colon], s[colon+1:]
}

func isPort(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 5
}

func isLower(c byte) bool { return c >= 'a' && c <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// clip shortens hostile text for an error message.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
