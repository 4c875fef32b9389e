package federation

import (
	"errors"
	"strings"

	"hearth/state/matrix"
)

// claim is what a header says about who has signed a request.
type claim struct {
	origin      matrix.ServerName
	destination matrix.ServerName // "": the header does not say
	key         string
	signature   string
}

// errNoClaim is wrapped where a header is not of the form that is expected.
var errNoClaim = errors.New("the Authorization header is not well formed")

// xMatrix is the scheme of signed requests.
const xMatrix = "X-Matrix"

// parseClaim reads an Authorization header. found is false where it is one of
// another scheme.
//
// Spec: SS Request Authentication, step 2; RFC 9110, 11.4. More is let through than
// that allows: values without quotes may have every character but those that end
// them, as old servers write colons, slashes and equals signs so.
func parseClaim(header string) (c claim, found bool, err error) {
	scheme, rest, spaced := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, xMatrix) {
		return claim{}, false, nil
	}
	if !spaced {
		return claim{}, true, errNoClaim
	}
	fields := map[string]string{}
	for rest = strings.Trim(rest, " \t"); rest != ""; {
		var name, value string
		if name, value, rest, err = nextParam(rest); err != nil {
			return claim{}, true, err
		}
		if _, twice := fields[name]; twice {
			return claim{}, true, errNoClaim
		}
		fields[name] = value
	}
	c = claim{key: fields["key"], signature: fields["sig"]}
	if c.signature == "" {
		c.signature = fields["signature"]
	}
	if c.origin, err = matrix.ParseServerName(fields["origin"]); err != nil {
		return claim{}, true, errNoClaim
	}
	if to, given := fields["destination"]; given {
		if c.destination, err = matrix.ParseServerName(to); err != nil {
			return claim{}, true, errNoClaim
		}
	}
	if c.key == "" || c.signature == "" {
		return claim{}, true, errNoClaim
	}
	return c, true, nil
}

// nextParam reads the parameter that s begins with and the comma behind it.
func nextParam(s string) (name, value, rest string, err error) {
	name, rest, found := strings.Cut(s, "=")
	name = strings.ToLower(strings.TrimRight(name, " \t"))
	if !found || name == "" || strings.ContainsAny(name, " \t\",") {
		return "", "", "", errNoClaim
	}
	rest = strings.TrimLeft(rest, " \t")
	if strings.HasPrefix(rest, `"`) {
		value, rest, err = unquote(rest[1:])
	} else {
		end := strings.IndexAny(rest, ", \t\"")
		if end < 0 {
			end = len(rest)
		}
		value, rest = rest[:end], rest[end:]
	}
	rest = strings.TrimLeft(rest, " \t")
	if err != nil || rest == "" {
		return name, value, rest, err
	}
	after, comma := strings.CutPrefix(rest, ",")
	if !comma {
		return "", "", "", errNoClaim
	}
	return name, value, strings.TrimLeft(after, ", \t"), nil // RFC 9110, 5.6.1: empty elements are let through
}

// unquote reads a quoted value up to its closing quote; the opening one is gone.
func unquote(s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], nil
		case '\\':
			if i++; i == len(s) {
				return "", "", errNoClaim
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", errNoClaim
}
