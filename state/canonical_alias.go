package state

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// canonicalAlias is the content of m.room.canonical_alias.
type canonicalAlias struct {
	Alias *string  `json:"alias"`
	Other []string `json:"alt_aliases"`
}

// all returns the aliases that the event names, each as it is written there.
func (c canonicalAlias) all() []string {
	if c.Alias == nil || *c.Alias == "" {
		return c.Other
	}
	return append([]string{*c.Alias}, c.Other...)
}

// lenient reads what stands in a room, where old versions allow what the json
// package refuses by default.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// checkCanonicalAlias refuses an m.room.canonical_alias with an alias that it did
// not have before and that does not lead to the room. Those of other servers cannot
// be checked here.
//
// Spec: CS room_state.yaml, M_BAD_ALIAS and M_INVALID_PARAM.
func (rm *room) checkCanonicalAlias(draft matrix.Draft) error {
	if draft.Type != "m.room.canonical_alias" || draft.StateKey == nil || *draft.StateKey != "" {
		return nil
	}
	var named canonicalAlias
	if json.Unmarshal(draft.Content, &named, lenient) != nil {
		return refuse(ErrBadEvent, "alias must be text, and alt_aliases a list of text")
	}
	known, err := rm.knownAliases()
	if err != nil {
		return err
	}
	for _, text := range named.all() {
		if known[text] {
			continue
		}
		alias, err := matrix.ParseRoomAlias(text)
		if err != nil {
			return fmt.Errorf("m.room.canonical_alias of %s: %w", rm.id, err)
		}
		if alias.Server() != rm.rooms.server {
			return refuse(ErrBadAlias, "%s is an alias of another server, and this server does not federate", alias)
		}
		if num, _, err := rm.tx.Alias(alias); err != nil || num != rm.num {
			return refuse(ErrBadAlias, "%s does not lead to this room", alias)
		}
	}
	return nil
}

// knownAliases are the aliases that the room's m.room.canonical_alias names.
func (rm *room) knownAliases() (map[string]bool, error) {
	known := make(map[string]bool)
	was, err := rm.current("m.room.canonical_alias", "")
	if was == nil || err != nil {
		return known, err
	}
	var named canonicalAlias
	if json.Unmarshal(was.Content, &named, lenient) != nil {
		return known, nil // what stands in the room may be anything
	}
	for _, alias := range named.all() {
		known[alias] = true
	}
	return known, nil
}
