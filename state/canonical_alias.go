package state

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
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
// not have before and that does not lead to the room. Where those of other servers
// lead has been asked before; see askAliases.
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
			if rm.elsewhere[alias] != rm.id {
				return refuse(ErrBadAlias, "%s is an alias of another server, which does not say that it leads to this room", alias)
			}
			continue
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

// maxAliasesAsked is how many new aliases of other servers one event may have.
const maxAliasesAsked = 10

// askAliases asks other servers where the aliases lead that an m.room.canonical_alias
// of a member would add to what its room has. An alias of which nobody says where it
// leads is left out: so it is no alias of the room.
func (r *Rooms) askAliases(ctx context.Context, draft matrix.Draft) (map[matrix.RoomAlias]matrix.RoomID, error) {
	var named canonicalAlias
	if r.outside.Alias == nil || draft.Type != "m.room.canonical_alias" || json.Unmarshal(draft.Content, &named, lenient) != nil {
		return nil, nil
	}
	var foreign []matrix.RoomAlias
	err := r.store.View(func(tx *store.Tx) error {
		foreign = nil
		rm, err := r.open(tx, draft.Room)
		if err == nil {
			err = rm.requireMember(draft.Sender)
		}
		if errors.Is(err, ErrUnknownRoom) || errors.Is(err, ErrForbidden) {
			return nil // which the write tells
		}
		if err != nil {
			return err
		}
		known, err := rm.knownAliases()
		for _, text := range named.all() {
			alias, bad := matrix.ParseRoomAlias(text)
			if bad == nil && !known[text] && alias.Server() != r.server && !slices.Contains(foreign, alias) {
				foreign = append(foreign, alias)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(foreign) > maxAliasesAsked {
		return nil, refuse(ErrBadAlias, "No more than %d aliases of other servers can be added at once", maxAliasesAsked)
	}
	leads := make(map[matrix.RoomAlias]matrix.RoomID, len(foreign))
	for _, alias := range foreign {
		if room, _, err := r.outside.Alias(ctx, alias); err == nil {
			leads[alias] = room
		}
	}
	return leads, ctx.Err()
}
