package server

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hearth/state/matrix"
)

// setting is one declared setting.
type setting struct {
	group    string // headline in the help; empty: that of the setting before
	name     string // of the flag and of the line in hearth.toml
	arg      string // what the flag takes, for the help
	bare     bool   // the flag may stand without a value, which means on
	value    value
	initial  string // default, as one would write it
	computed string // says what the default is where it is found at start
	help     string

	// later is set where the function is not in this release and nothing works
	// without it: switching it on is an error with this text.
	later string
	// warn is set where the function is not in this release and the server does
	// the rest: switching it on is logged with this text.
	warn string
}

// env returns the name of the setting's environment variable.
func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.name, "-", "_"))
}

// envPrefix begins the name of each environment variable that is a setting.
const envPrefix = "HEARTH_"

// departs reports whether the setting has another value than its default.
func (s setting) departs() bool { return s.value.get() != s.initial }

// value is a field of Config.
type value struct {
	set  func(string) error
	get  func() string // as one would write it
	zero func() bool
}

// text binds a string field.
func text[T ~string](field *T, parse func(string) (T, error)) value {
	return number(field, parse)
}

// number binds any comparable field.
func number[T comparable](field *T, parse func(string) (T, error)) value {
	var none T
	return value{
		set: func(s string) error {
			v, err := parse(s)
			if err == nil {
				*field = v
			}
			return err
		},
		get:  func() string { return fmt.Sprint(*field) },
		zero: func() bool { return *field == none },
	}
}

// list binds a field of values that are written with commas between them. "off"
// or nothing is the empty list.
func list[T any](field *[]T, parse func(string) (T, error)) value {
	return value{
		set: func(s string) error {
			all := []T{}
			if s = strings.TrimSpace(s); s != "" && s != "off" {
				for part := range strings.SplitSeq(s, ",") {
					v, err := parse(strings.TrimSpace(part))
					if err != nil {
						return err
					}
					all = append(all, v)
				}
			}
			*field = all
			return nil
		},
		get: func() string {
			var parts []string
			for _, v := range *field {
				parts = append(parts, fmt.Sprint(v))
			}
			return strings.Join(parts, ",")
		},
		zero: func() bool { return *field == nil },
	}
}

// oneOf binds a field that has one of a few words.
func oneOf[T ~string](field *T, words ...T) value {
	return text(field, func(s string) (T, error) {
		if slices.Contains(words, T(s)) {
			return T(s), nil
		}
		var all []string
		for _, w := range words {
			all = append(all, string(w))
		}
		return "", fmt.Errorf("%q is none of %s", s, strings.Join(all, ", "))
	})
}

// onOff binds a Switch.
func onOff(field *Switch) value { return oneOf(field, On, Off) }

// Switch is a setting that is on or off.
type Switch string

// The values of a Switch.
const (
	On  Switch = "on"
	Off Switch = "off"
)

// Registration says who may make an account with a client.
type Registration string

// The values of Registration.
const (
	RegistrationClosed Registration = "closed"
	RegistrationToken  Registration = "token"
	RegistrationOpen   Registration = "open"
)

// Presence says whose presence users see.
type Presence string

// The values of Presence.
const (
	PresenceOn    Presence = "on"
	PresenceLocal Presence = "local"
	PresenceOff   Presence = "off"
)

// LogLevel is the least important thing that is logged.
type LogLevel string

// The values of LogLevel.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

// LogFormat is the form of the log.
type LogFormat string

// The values of LogFormat.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Secret is text that neither a log nor an error message shows.
type Secret string

// String returns a placeholder.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(secret)"
}

// GoString returns a placeholder.
func (s Secret) GoString() string { return s.String() }

// Bytes is a size.
type Bytes int64

// String writes a size with the largest unit that divides it.
func (b Bytes) String() string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if b != 0 && b%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(b>>u.shift), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// units are the endings of a size. The short ones are what people mean by them
// when they speak of memory: powers of 1024.
var units = map[string]float64{
	"": 1, "b": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30,
	"kb": 1e3, "mb": 1e6, "gb": 1e9,
}

// parseBytes parses a size: 96MiB, 96m, 0.5GiB, 100663296.
func parseBytes(s string) (Bytes, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit, known := units[strings.ToLower(strings.TrimSpace(s[len(digits):]))]
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !known || !(n >= 0 && n*unit < 1<<60) {
		return 0, fmt.Errorf("%q is no size such as 96MiB", s)
	}
	return Bytes(n * unit), nil
}

// minMemory is the least that --memory may be: below it the server could not
// keep its promise even idle.
const minMemory = 32 << 20

func parseMemory(s string) (Bytes, error) {
	n, err := parseBytes(s)
	if err == nil && n < minMemory {
		return 0, fmt.Errorf("%s is less than %s, which the server needs", n, Bytes(minMemory))
	}
	return n, err
}

// parsePath accepts any file name and cleans it.
func parsePath(s string) (string, error) {
	if s == "" || strings.ContainsRune(s, 0) {
		return "", errors.New("a file name is missing")
	}
	return filepath.Clean(s), nil
}

// unixPrefix marks a listening address that is a socket's file name.
const unixPrefix = "unix:"

// parseListen accepts host:port, :port and unix:/path.
func parseListen(s string) (string, error) {
	if path, isUnix := strings.CutPrefix(s, unixPrefix); isUnix {
		path, err := parsePath(path)
		return unixPrefix + path, err
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is no address such as 127.0.0.1:8008, :8008 or unix:/path", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q has no port number at its end", s)
	}
	return s, nil
}

// parsePrefix accepts a network (10.0.0.0/8) or one address.
func parsePrefix(s string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		ip = ip.Unmap().WithZone("")
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no network such as 10.0.0.0/8", s)
	}
	return p.Masked(), nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port number", s)
	}
	return int(n), nil
}

// parseCost bounds the work factor of bcrypt: 16 takes some ten seconds on a
// small board.
func parseCost(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 4 || n > 16 {
		return 0, fmt.Errorf("%q is no number from 4 to 16", s)
	}
	return n, nil
}

func parseEmail(s string) (string, error) {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Name != "" {
		return "", fmt.Errorf("%q is no e-mail address", s)
	}
	return a.Address, nil
}

func parseHTTPS(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("%q is no https URL", s)
	}
	return s, nil
}

func parseRoomVersion(s string) (string, error) {
	if _, ok := matrix.VersionByID(s); !ok {
		return "", fmt.Errorf("there is no room version %q: name one of 1 to 12", s)
	}
	return s, nil
}

func parseTURN(s string) (string, error) {
	scheme, host, ok := strings.Cut(s, ":")
	if !ok || host == "" || scheme != "turn" && scheme != "turns" && scheme != "stun" && scheme != "stuns" {
		return "", fmt.Errorf("%q is no URI of a TURN server, such as turn:turn.example.org?transport=udp", s)
	}
	return s, nil
}

func parseSecret(s string) (Secret, error) {
	if len(s) < 8 {
		return "", errors.New("a secret has at least 8 characters")
	}
	return Secret(s), nil
}
