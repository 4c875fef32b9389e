package state

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

// ServerAllowed says whether the server ACL of a room's current state lets another
// server take part in the room. A room without one lets all.
//
// Spec: CS Server Access Control Lists (ACLs) for rooms; SS Server Access Control
// Lists.
func ServerAllowed(tx *store.Tx, room store.RoomNum, server matrix.ServerName) (bool, error) {
	head, err := tx.Head(room)
	if err != nil {
		return false, fmt.Errorf("server ACL for %s: %w", server, err)
	}
	ev, err := EventAt(tx, room, head.Current, "m.room.server_acl", "")
	if err != nil {
		return false, fmt.Errorf("server ACL for %s: %w", server, err)
	}
	return ev == nil || aclAllows(ev.Content, server), nil
}

// aclAllows holds a server to the content of m.room.server_acl. What is of another
// type than it should be counts as not there.
func aclAllows(content jsontext.Value, server matrix.ServerName) bool {
	var acl struct {
		IPLiterals jsontext.Value `json:"allow_ip_literals"`
		Allow      jsontext.Value `json:"allow"`
		Deny       jsontext.Value `json:"deny"`
	}
	if json.Unmarshal(content, &acl, jsontext.AllowDuplicateNames(true)) != nil {
		return false // no event that was parsed has such a content
	}
	// "When comparing against the server ACLs, the suspect server's port number must
	// not be considered."
	host, isIP := aclHost(server)
	switch {
	// "2. If the server name is an IP address (v4 or v6) literal, and
	// allow_ip_literals is present and false, deny."
	case isIP && acl.IPLiterals.Kind() == 'f':
		return false
	// "3. If the server name matches an entry in the deny list, deny."
	case aclMatches(acl.Deny, host):
		return false
	}
	// "4. If the server name matches an entry in the allow list, allow. 5. Otherwise,
	// deny."
	return aclMatches(acl.Allow, host)
}

// aclHost returns a server name without its port and in lower case, and whether it
// is the literal of an address. One of version 6 keeps its brackets.
func aclHost(server matrix.ServerName) (host string, isIP bool) {
	host = strings.ToLower(server.Host())
	_, err := netip.ParseAddr(host)
	return host, err == nil || strings.HasPrefix(host, "[")
}

// aclMatches says whether one of a list of patterns is that of a host.
func aclMatches(list jsontext.Value, host string) bool {
	var patterns []jsontext.Value
	if json.Unmarshal(list, &patterns) != nil {
		return false
	}
	for _, v := range patterns {
		var pattern string
		if v.Kind() == '"' && json.Unmarshal(v, &pattern) == nil && aclGlob(strings.ToLower(pattern), host) {
			return true
		}
	}
	return false
}

// aclGlob matches a host with a pattern, in which * stands for any characters and ?
// for one. A host is ASCII. It takes no more steps than the square of the host's
// length, whatever the pattern.
//
// Spec: appendices, Glob-style matching.
func aclGlob(pattern, host string) bool {
	if len(pattern)-strings.Count(pattern, "*") > len(host) {
		return false
	}
	for strings.Contains(pattern, "**") {
		pattern = strings.ReplaceAll(pattern, "**", "*")
	}
	p, h := 0, 0
	star, from := -1, 0 // the last star, and where in the host what follows it was tried
	for h < len(host) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, h
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == host[h]):
			p, h = p+1, h+1
		case star >= 0:
			from++
			p, h = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
