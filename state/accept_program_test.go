package state

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
)

// fuzzSenders are who sends in a program; the last two are of another server.
var fuzzSenders = []matrix.UserID{alice, bob, carol, dave, eve}

func fuzzSender(n byte) matrix.UserID { return fuzzSenders[int(n)%len(fuzzSenders)] }

// draft is what the event of an instruction says.
func (p *program) draft(s *site, in instruction) matrix.Draft {
	d := matrix.Draft{Sender: fuzzSender(in.who & 0x7f), Type: "m.room.message", Content: []byte(`{"body":"x"}`)}
	state := func(typ, key string, format string, args ...any) {
		d.Type, d.StateKey, d.Content = typ, &key, fmt.Appendf(nil, format, args...)
	}
	switch in.kind {
	case makeMember:
		state("m.room.member", string(fuzzSender(in.a>>4)), "%s", fuzzMember(in))
	case makeLevels:
		state("m.room.power_levels", "", "%s", fuzzLevels(s.version, in))
	case makeRule:
		state("m.room.join_rules", "", "%s", fuzzRules[int(in.a)%len(fuzzRules)])
	case makeTopic:
		state("m.room.topic", "", `{"topic":"%d"}`, in.a)
	case makeRedaction:
		d.Type, d.Content, d.Redacts = "m.room.redaction", []byte(`{}`), "$later:home.example"
		if ev := s.back(in.a); ev != nil {
			d.Redacts = ev.ID
		}
		if held := p.heldBack(s); in.b != 0 && held != nil {
			d.Redacts = held.ID
		}
		if s.version.RedactsInContent {
			d.Content = fmt.Appendf(nil, `{"redacts":%q}`, d.Redacts)
		}
	case makeInvite:
		state("m.room.third_party_invite", "token", `{"display_name":"d","key_validity_url":"https://id.example/v","public_key":"AAAA"}`)
	case makeCreate:
		state("m.room.create", []string{"", "x"}[in.b&1], "%s", fuzzCreate(s.version, d.Sender, in))
	case makeTombstone:
		state("m.room.tombstone", "", `{"body":"moved","replacement_room":%q}`, p.other(s).id)
	case makeAliases:
		state("m.room.aliases", string(fuzzSender(in.a).Server()), `{"aliases":["#a:home.example"]}`)
	case makeReaction:
		d.Type, d.Content = "m.reaction", []byte(`{}`)
		if ev := s.back(in.a); ev != nil {
			d.Content = fmt.Appendf(nil, `{"m.relates_to":{"event_id":%q,"key":"%d","rel_type":"m.annotation"}}`, ev.ID, in.b)
		}
	case makeOther:
		state("m.x"+strconv.Itoa(int(in.a&3)), []string{"", "key", string(fuzzSender(in.b)), "@"}[in.a>>2&3], `{"n":%d}`, in.c)
	case makeContent:
		state(fuzzTypes[int(in.a)%len(fuzzTypes)], "", "{}")
		d.Content = p.content(int(in.c))
		switch in.b % 3 {
		case 1:
			d.StateKey = nil
		case 2:
			*d.StateKey = string(fuzzSender(in.b / 3))
		}
	}
	return d
}

// heldBack is the newest event that was made and is not part of any room.
func (p *program) heldBack(s *site) *matrix.Event {
	for i := range s.made {
		if ev := s.made[len(s.made)-1-i]; p.model.events[ev.ID] == nil {
			return ev
		}
	}
	return nil
}

// content takes content of any kind from the input.
func (p *program) content(n int) jsontext.Value {
	n = min(n, len(p.in))
	content := jsontext.Value(p.in[:n])
	p.in = p.in[n:]
	return content
}

// fuzzTypes are the types that anything is put into.
var fuzzTypes = []string{
	"m.room.create", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.third_party_invite",
	"m.room.aliases", "m.room.redaction", "m.room.message", "m.room.tombstone", "m.reaction",
}

var fuzzRules = []string{
	`{"join_rule":"public"}`, `{"join_rule":"invite"}`, `{"join_rule":"knock"}`, `{"join_rule":"private"}`,
	`{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"!room1:home.example"}]}`,
	`{"join_rule":"knock_restricted"}`, `{"join_rule":7}`, `{}`,
}

func fuzzMember(in instruction) string {
	memberships := []string{
		`"join"`, `"invite"`, `"leave"`, `"ban"`, `"knock"`, `"odd"`, `null`, `["join"]`,
	}
	content := `{"membership":` + memberships[in.a&7]
	switch in.b % 5 {
	case 1:
		content += `,"displayname":"` + strconv.Itoa(int(in.c)) + `"`
	case 2:
		content += `,"join_authorised_via_users_server":` + strconv.Quote(string(fuzzSender(in.c)))
	case 3:
		content += fmt.Sprintf(`,"third_party_invite":{"display_name":"d","signed":{"mxid":%q,"token":"token","signatures":{"id.example":{"ed25519:0":"AAAA"}}}}`, fuzzSender(in.a>>4))
	case 4:
		content += `,"third_party_invite":{}`
	}
	return content + `}`
}

// fuzzLevels has the level of a user in each of a, b and c.
func fuzzLevels(v *matrix.Version, in instruction) string {
	level := func(b byte) string {
		return []string{
			"100", "50", "0", "40", "99", "101", "-1", "9007199254740991", `"50"`, `" 7 "`, `"x"`, "null", "1.5", "1e2", "[]", "{}",
		}[b&15]
	}
	content := `{"users":{`
	if !v.PrivilegedCreators || in.a&0x80 != 0 {
		content += fmt.Sprintf(`%q:%s,`, alice, level(in.a))
	}
	content += fmt.Sprintf(`%q:%s,%q:%s}`, bob, level(in.b), dave, level(in.c))
	switch in.b >> 4 & 7 {
	case 1:
		content += `,"state_default":` + level(in.c>>4)
	case 2:
		content += `,"events":{"m.room.topic":` + level(in.c>>4) + `}`
	case 3:
		content += `,"users_default":` + level(in.c>>4)
	case 4:
		content += `,"invite":` + level(in.c>>4)
	case 5:
		content += `,"redact":` + level(in.c>>4)
	case 6:
		content += `,"kick":0,"ban":` + level(in.c>>4)
	case 7:
		content += `,"notifications":{"room":` + level(in.c>>4) + `}`
	}
	return content + `}`
}

func fuzzCreate(v *matrix.Version, sender matrix.UserID, in instruction) string {
	content := `{"room_version":` + strconv.Quote(v.ID)
	if v.CreatorInContent {
		content += `,"creator":` + strconv.Quote(string(sender))
	}
	switch in.a & 7 {
	case 1:
		content += `,"m.federate":false`
	case 2:
		content += `,"additional_creators":["` + string(bob) + `"]`
	case 3:
		content += `,"additional_creators":[7]`
	case 4:
		content = `{"room_version":"99"`
	}
	return content + fmt.Sprintf(`,"n":%d}`, in.c)
}

// acceptSeeds are programs that bring about what chance seldom does, and some that
// are chance.
func acceptSeeds() (seeds [][]byte) {
	for version := range byte(12) {
		for _, code := range acceptPrograms {
			seeds = append(seeds, append([]byte{version | (11-version)<<4, flagBoth | version%2*flagBrief}, code...))
		}
		rnd := rand.New(rand.NewPCG(uint64(version), 4))
		for _, steps := range []int{12, 30, 60} {
			seeds = append(seeds, append([]byte{version * 17, byte(rnd.IntN(8))}, chance(rnd, steps)...))
		}
	}
	return seeds
}

// code writes an instruction.
func code(k kind, flags, who, prev, auth, depth, a, b, c byte) []byte {
	return []byte{byte(k) | flags, who, prev, auth, depth, a, b, c}
}

func codes(parts ...[]byte) (all []byte) {
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

// times repeats an instruction.
func times(n int, part []byte) (all []byte) {
	for range n {
		all = append(all, part...)
	}
	return all
}

// Flags of an instruction's first byte.
const (
	flagFar  = 0x80
	flagMore = 0x40
	flagHold = 0x20
)

// back says "so many ago" in a choice of events.
func back(mode, n byte) byte { return mode | n<<3 }

var acceptPrograms = [][]byte{
	// A ban and what the banned one says beside it, behind it, and where both meet.
	codes(
		code(makeTopic, 0, 1, 0, 0, 0, 1, 0, 0),
		code(makeMember, 0, 0, 0, 0, 0, 1<<4|3, 0, 0),
		code(makeMessage, 0, 1, back(prevBack, 1), 0, 0, 0, 0, 0),
		code(makeMessage, 0, 1, back(prevBack, 0), 0, 0, 0, 0, 0),
		code(makeMessage, 0, 1, back(prevBack, 2), 0, 0, 0, 0, 0),
		code(makeTopic, 0, 0, back(prevTwo, 1), 0, 0, 2, 0, 2),
	),
	// Both sides of a fork change the power levels, the topic and a member.
	codes(
		code(makeLevels, 0, 0, 0, 0, 0, 0, 2, 1),
		code(makeTopic, 0, 0, 0, 0, 0, 1, 0, 0),
		code(makeMember, 0, 1, 0, 0, 0, 1<<4|0, 1, 7),
		code(makeLevels, 0, 0, back(prevBack, 3), 0, 0, 0, 1, 1|3<<4),
		code(makeTopic, 0, 1, back(prevBack, 0), 0, 0, 2, 0, 0),
		code(makeMember, 0, 0, back(prevBack, 0), 0, 0, 1<<4|2, 0, 0),
		code(makeMember, 0, 1, back(prevBack, 0), 0, 0, 1<<4|0, 0, 0),
		code(makeTopic, 0, 3, 0, 0, 0, 3, 0, 0),
		code(makeMessage, 0, 0, 0, 0, 0, 0, 0, 0),
	),
	// More forks than an event may name, and one that ends them.
	codes(
		code(makeMessage, 0, 0, 0, 0, 0, 0, 0, 0),
		times(24, code(makeOther, flagMore, 0, back(prevBack, 0), 0, 0, 0, 0, 1)),
		code(makeMessage, 0, 0, back(prevBack, 20), 0, 0, 0, 0, 0),
		times(30, code(makeTopic, flagMore, 0, back(prevBack, 25), 0, 0, 9, 0, 0)),
		code(makeMessage, 0, 0, back(prevLast, 20), 0, 0, 0, 0, 0),
		code(makeMessage, 0, 0, 0, 0, 0, 0, 0, 0),
	),
	// Events that are missing, foreign, doubled, wrongly cited, and odd in depth.
	codes(
		code(makeMessage, 0, 0, prevUnknown, 0, 0, 0, 0, 0),
		code(makeMessage, 0, 0, back(prevForeign, 0), 0, 0, 0, 0, 0),
		code(makeMessage, 0, 0, back(prevNone, 0), 0, 0, 0, 0, 0),
		code(makeTopic, 0, 0, back(prevNone, 1), authCurrent, 0, 0, 0, 0),
		code(makeTopic, 0, 0, 0, back(authLess, 0), 1, 0, 0, 0),
		code(makeTopic, 0, 0, 0, back(authLess, 1), 0, 0, 0, 0),
		code(makeTopic, 0, 0, 0, back(authTwice, 1), 2, 0, 0, 0),
		code(makeTopic, 0, 0, 0, back(authTwice, 1), 3, 0, 0, 0),
		code(makeTopic, 0, 0, 0, back(authMore, 1), 0, 0, 0, 0),
		code(makeTopic, 0, 0, 0, back(authForeign, 1), 4, 0, 0, 0),
		code(makeTopic, 0, 0, 0, back(authForeign, 31), 0, 0, 0, 0),
		code(makeTopic, 0, 0, 0, back(authNone, 0), 0, 0, 0, 0),
		code(makeMessage, 0, 0, 0, 0, 1, 0, 0, 0),
		code(makeMessage, 0, 0, 0, 0, 0, 0, 0, 0),
	),
	// Events held back and offered late, together and again.
	codes(
		code(makeTopic, flagHold, 0, 0, 0, 0, 1, 0, 0),
		code(makeMessage, 0, 0, back(prevBack, 0), 0, 0, 0, 0, 0),
		code(makeMessage, flagFar|flagMore, 0, 0, 0, 0, 0, 0, 0),
		code(offerAgain, flagMore, 0, 0, 0, 0, 1, 0, 0),
		code(offerAgain, flagMore, 0, 0, 0, 0, 0, 0, 0),
		code(offerAgain, flagMore, 0, 0, 0, 0, 0, 0, 0),
		code(offerAgain, 0, 0, 0, 0, 0, 1, 0, 0),
		code(restartRooms, 0, 0, 0, 0, 0, 1, 0, 0),
		code(makeTopic, 0, 0, back(prevBack, 4), 0, 0, 1, 0, 0),
		code(restartRooms, 0, 0, 0, 0, 0, 1, 0, 0),
		code(makeMessage, 0, 0, 0, 0, 0, 0, 0, 0),
	),
	// Redactions of messages and levels, by who may and who may not, before and
	// after their targets.
	codes(
		code(makeMessage, 0, 3, 0, 0, 0, 0, 0, 0),
		code(makeRedaction, 0, 1, 0, 0, 0, 0, 0, 0),
		code(makeRedaction, flagMore, 0, 0, 0, 0, 1, 0, 0),
		code(makeLevels, flagMore, 0, 0, 0, 0, 0, 1|4<<4, 1|7<<4),
		code(makeRedaction, flagMore, 0, 0, 0, 0, 0, 0, 0),
		code(makeMember, flagMore, 1, 0, 0, 0, 4<<4|1, 0, 0),
		code(makeMember, 0, 1, back(prevBack, 2), 0, 0, 4<<4|1, 0, 0),
		code(makeMessage, flagHold, 0, 0, 0, 0, 0, 0, 0),
		code(makeRedaction, 0, 0, 0, 0, 0, 0, 1, 0),
		code(offerAgain, 0, 0, 0, 0, 0, 1, 0, 0),
		code(makeTopic, 0, 0, back(prevBack, 3), 0, 0, 0, 0, 0),
		code(makeReaction, 0, 0, 0, 0, 0, 0, 0, 0),
		code(makeRedaction, 0, 0, 0, 0, 0, 0, 0, 0),
	),
	// Ways into a room, and out of it.
	codes(
		code(makeRule, 0, 0, 0, 0, 0, 4, 0, 0),
		code(makeMember, 0, 2, 0, 0, 0, 2<<4|0, 2, 0),
		code(makeMember, 0, 4, 0, 0, 0, 4<<4|0, 2, 3),
		code(makeRule, 0, 0, 0, 0, 0, 2, 0, 0),
		code(makeMember, 0, 4, 0, 0, 0, 4<<4|4, 0, 0),
		code(makeMember, 0, 0, 0, 0, 0, 4<<4|1, 0, 0),
		code(makeMember, 0, 4, 0, 0, 0, 4<<4|0, 0, 0),
		code(makeInvite, 0, 0, 0, 0, 0, 0, 0, 0),
		code(makeMember, 0, 0, 0, 0, 0, 2<<4|1, 3, 0),
		code(makeMember, 0, 0, 0, 0, 0, 3<<4|5, 0, 0),
		code(makeRule, 0, 0, back(prevBack, 4), 0, 0, 1, 0, 0),
		code(makeMember, 0, 3, 0, 0, 0, 3<<4|2, 0, 0),
		code(makeMember, 0, 3, 0, 0, 0, 3<<4|0, 0, 0),
		code(makeTombstone, 0, 0, 0, 0, 0, 0, 0, 0),
		code(makeAliases, 0, 0, 0, 0, 0, 0, 0, 0),
		code(makeAliases, 0, 0, 0, 0, 0, 3, 0, 0),
	),
	// Rooms that begin twice, and state that only looks like a beginning.
	codes(
		code(makeCreate, 0, 0, 0, 0, 0, 0, 0, 1),
		code(makeCreate, 0, 0, prevNone, authNone, 0, 1, 0, 2),
		code(makeCreate, 0, 0, prevNone, authNone, 0, 4, 0, 2),
		code(makeCreate, 0, 0, prevNone, authNone, 0, 0, 1, 3),
		code(makeTopic, 0, 0, back(prevBack, 0), 0, 0, 0, 0, 0),
		code(makeTopic, 0, 0, 0, 0, 0, 0, 0, 0),
		code(makeMessage, 0, 0x80, 0, 0, 0, 0, 0, 2),
		code(offerAgain, 0, 0, 0, 0, 0, 5, 0, 0),
	),
	// Content of any kind, and PDUs.
	codes(
		code(makeContent, 0, 0, 0, 0, 0, 2, 0, 17), []byte(`{"users":{"a":1}}`),
		code(makeContent, 0, 0, 0, 0, 0, 1, 2, 21), []byte(`{"membership":"leave"`),
		code(makeContent, 0, 0, 0, 0, 0, 9, 1, 48), []byte(`{"m.relates_to":{"rel_type":"x","event_id":"$y"}}`),
		rawPDU(`{"auth_events":[],"content":{},"depth":3,"hashes":{},"origin_server_ts":1,"prev_events":["TIP"],"room_id":"ROOM","sender":"@alice:home.example","signatures":{},"type":"m.room.message","unsigned":{"age":1}}`),
		rawPDU(`{"auth_events":[["TIP",{}]],"content":{},"depth":3,"event_id":"$a:b","hashes":{},"origin_server_ts":1,"prev_events":[["TIP",{}]],"room_id":"ROOM","sender":"@alice:home.example","signatures":{},"state_key":"","type":"m.room.name"}`),
		code(makeMessage, 0, 0, 0, 0, 0, 0, 0, 0),
	),
}

func rawPDU(text string) []byte {
	head := code(makePDU, 0, 0, 0, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(head[6:], uint16(len(text)))
	return append(head, text...)
}

// chance makes instructions, most of them sound.
func chance(rnd *rand.Rand, steps int) (all []byte) {
	likely := func(value byte) byte {
		if rnd.IntN(8) == 0 {
			return byte(rnd.IntN(256))
		}
		return value
	}
	for range steps {
		op := code(
			kind(rnd.IntN(int(makeContent))), []byte{0, 0, flagMore, flagFar, flagHold}[rnd.IntN(5)],
			byte(rnd.IntN(5)), likely(back(prevTwo, byte(rnd.IntN(4)))), likely(authRight), likely(0),
			byte(rnd.IntN(256)), likely(0), byte(rnd.IntN(6)),
		)
		if rnd.IntN(8) == 0 {
			op[0] = byte(offerAgain)
		}
		all = append(all, op...)
	}
	return all
}
