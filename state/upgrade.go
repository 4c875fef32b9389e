package state

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// transferable are the types of the state events that a replacement room begins
// with, in their order there. m.room.power_levels comes behind them, when it cannot
// keep the user from sending them any more. Spec: CS Room Upgrades.
var transferable = []string{
	"m.room.server_acl",
	"m.room.encryption",
	"m.room.name",
	"m.room.avatar",
	"m.room.topic",
	"m.room.guest_access",
	"m.room.history_visibility",
	"m.room.join_rules",
}

// Upgrade replaces a room by one of another version, in one write: the new room
// with the state that goes over, the tombstone in the old one, whose local aliases
// and place in the published directory move. It returns the new room's ID. A user
// who may not send m.room.tombstone is ErrForbidden. creators are the new room's
// besides the user, where its version has such; those of the old room are none
// because of that. Where the old room has a policy server, that must sign the tombstone.
//
// Spec: CS Room Upgrades; SS Policy Servers.
func (r *Rooms) Upgrade(ctx context.Context, id matrix.RoomID, user matrix.UserID, version string, creators []matrix.UserID) (matrix.RoomID, error) {
	v, ok := matrix.VersionByID(version)
	if !ok {
		return "", refuse(ErrUnsupportedVersion, "There is no room version %q here", version)
	}
	if !v.PrivilegedCreators {
		creators = nil
	}
	plan := upgrade{user: user, version: v, at: r.now().UnixMilli(),
		signed: make(map[matrix.EventID]*matrix.Event), declined: make(map[string]bool)}
	if !v.RoomIDIsHash {
		plan.id = r.newRoomID()
	}
	for _, creator := range creators {
		if creator != user && !slices.Contains(plan.creators, creator) {
			plan.creators = append(plan.creators, creator)
		}
	}
	for range maxUpgradeTries {
		u := plan
		err := r.changeAsMember(ctx, id, u.run)
		p, proposed := errors.AsType[*proposal](err)
		if !proposed && err != nil {
			return "", fmt.Errorf("upgrade %s: %w", id, err)
		}
		if !proposed {
			return u.fresh.id, nil
		}
		if err := plan.sign(ctx, r, p); err != nil {
			return "", fmt.Errorf("upgrade %s: %w", id, err)
		}
	}
	return "", refuse(ErrPolicy, "So much happens in this room that its policy server cannot sign the upgrade in time: try again")
}

// maxUpgradeTries is how often an upgrade is drafted where a policy server must sign it:
// each draft may find one more event to sign, and what others have sent meanwhile is
// below both of them.
const maxUpgradeTries = 8

// upgrade is one room's replacement. It is the same each time that it is drafted, as
// long as nothing happens in the old room: what had to be signed fits still.
type upgrade struct {
	user     matrix.UserID
	version  *matrix.Version
	creators []matrix.UserID // besides the user
	id       matrix.RoomID   // of the new room, where it can be chosen
	at       int64           // when it began
	signed   map[matrix.EventID]*matrix.Event
	declined map[string]bool // types of events of the old room that the policy server does not sign

	// Within one write:
	old       *room
	create    *matrix.Event  // of the old room
	levels    powerLevels    // of the old room, as they were
	tombstone matrix.EventID // "" until it is there
	fresh     *room
}

// sign gets the policy server's signature on an event of the old room. The upgrade does
// without it for all but the tombstone.
func (u *upgrade) sign(ctx context.Context, r *Rooms, p *proposal) error {
	signed, err := r.askPolicy(ctx, p.policy, p.event)
	if err != nil && p.event.Type != "m.room.tombstone" && ctx.Err() == nil {
		u.declined[p.event.Type] = true
		return nil
	}
	if err == nil {
		u.signed[signed.ID] = signed
	}
	return err
}

func (u *upgrade) run(old *room) error {
	u.old = old
	old.asks, old.at, old.signed = true, u.at, u.signed
	steps := []func() error{u.check, u.begin, u.furnish, u.bury, u.restrict}
	if !u.version.RoomIDIsHash {
		// The new room can name the tombstone: it need not be there for its ID.
		steps = []func() error{u.check, u.bury, u.begin, u.furnish, u.restrict}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// check: "Checks that the user has permission to send `m.room.tombstone` events in
// the room."
func (u *upgrade) check() (err error) {
	if err := u.old.requireMember(u.user); err != nil {
		return err
	}
	if u.create, u.levels, err = u.old.powers(); err != nil {
		return err
	}
	if level := u.levels.Send("m.room.tombstone", true); !u.levels.holds(u.create, u.user, level) {
		return refuse(ErrForbidden, "You need power level %d to upgrade this room", level)
	}
	return nil
}

// begin: "Creates a replacement room with a `m.room.create` event containing a
// `predecessor` field, the applicable `room_version`, and a `type` field which is
// copied from the `predecessor` room." A room that was kept from other servers stays
// so.
func (u *upgrade) begin() error {
	was := make(map[string]jsontext.Value)
	if err := readObject(u.create.Content, &was); err != nil {
		return fmt.Errorf("content of m.room.create: %w", err)
	}
	content := make(map[string]jsontext.Value)
	for _, key := range []string{"type", "m.federate"} {
		if value, has := was[key]; has {
			content[key] = value
		}
	}
	predecessor := map[string]string{"room_id": string(u.old.id)}
	if u.tombstone != "" {
		predecessor["event_id"] = string(u.tombstone)
	}
	content["predecessor"] = encode(predecessor)
	if len(u.creators) > 0 {
		content["additional_creators"] = encode(u.creators)
	}
	c := Creation{Creator: u.user, Content: fitting(u.version, content), id: u.id, at: u.at}
	var err error
	u.fresh, err = u.old.rooms.begin(u.old.tx, u.version, c)
	return err
}

// furnish: "Replicates transferable state events to the new room." "Moves any local
// aliases to the new room."
func (u *upgrade) furnish() error {
	for _, step := range []func() error{u.join, u.transfer, u.moveAliases, u.giveLevels} {
		err := step()
		if refused, is := errors.AsType[*auth.Error](err); is {
			return refuse(ErrInvalidRoomState, "The new room cannot begin like this: %s", refused.Error())
		}
		if err != nil {
			return err
		}
	}
	tx := u.old.tx
	if tx.Published(u.old.num) {
		if err := errors.Join(tx.PutPublished(u.fresh.num, true), tx.PutPublished(u.old.num, false)); err != nil {
			return err
		}
	}
	return u.fresh.close()
}

func (u *upgrade) join() error {
	_, err := u.fresh.addMember(u.user, u.user, memberContent{Membership: matrix.Join})
	return err
}

func (u *upgrade) transfer() error {
	for _, typ := range transferable {
		ev, err := u.old.current(typ, "")
		if err != nil {
			return err
		}
		if ev == nil {
			continue
		}
		content := make(map[string]jsontext.Value)
		if err := readObject(ev.Content, &content); err != nil {
			return fmt.Errorf("content of %s: %w", ev.ID, err)
		}
		if err := u.fresh.addState(u.user, typ, "", fitting(u.version, content)); err != nil {
			return err
		}
	}
	return nil
}

// fitting is content for an event of a version. What the version has no form for,
// such as the fractions of the oldest, is left out.
func fitting(v *matrix.Version, content map[string]jsontext.Value) jsontext.Value {
	for key, value := range content {
		if _, err := matrix.CanonicalFor(v, encode(map[string]jsontext.Value{key: value})); err != nil {
			delete(content, key)
		}
	}
	return encode(content)
}

// bury: "Sends a `m.room.tombstone` event to the old room to indicate that it is not
// intended to be used any further."
func (u *upgrade) bury() error {
	id := u.id
	if u.fresh != nil {
		id = u.fresh.id
	}
	key := ""
	ev, err := u.old.add(matrix.Draft{
		Sender: u.user, Type: "m.room.tombstone", StateKey: &key,
		Content: encode(map[string]string{"body": "This room has been replaced", "replacement_room": string(id)}),
	}, store.TxnID{})
	if err != nil {
		return err
	}
	u.tombstone = ev.ID
	return u.old.close() // the new room looks for it
}

// restrict: "If possible, the power levels in the old room should also be modified to
// prevent sending of events and inviting new users. For example, setting
// `events_default` and `invite` to the greater of `50` and `users_default + 1`."
// Levels that are higher already stay.
func (u *upgrade) restrict() error {
	least := max(50, min(u.levels.UsersDefault, maxLevel-1)+1)
	if u.levels.EventsDefault >= least && u.levels.Invite >= least {
		return nil
	}
	content := map[string]jsontext.Value{"users": encode(u.levels.Users)}
	if u.levels.event != nil {
		clear(content)
		if err := readObject(u.levels.event.Content, &content); err != nil {
			return fmt.Errorf("content of m.room.power_levels: %w", err)
		}
	}
	content["events_default"] = encode(max(u.levels.EventsDefault, least))
	content["invite"] = encode(max(u.levels.Invite, least))
	return u.ifAllowed("m.room.power_levels", encode(content))
}

// ifAllowed adds a state event to the old room, unless the user may not, or its policy
// server is against it.
func (u *upgrade) ifAllowed(typ string, content jsontext.Value) error {
	if u.declined[typ] {
		return nil
	}
	err := u.old.addState(u.user, typ, "", content)
	if _, refused := errors.AsType[*auth.Error](err); refused {
		return nil
	}
	return err
}
