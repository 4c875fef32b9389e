package auth_test

import (
	"fmt"
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// powerUsers makes power levels as clients write them, with that many users.
func powerUsers(n int) string {
	var users []string
	for i := range n {
		users = append(users, fmt.Sprintf(`"@user%d:server%d.example":%d`, i, i%7, i%50))
	}
	return `{"ban":50,"events":{"m.room.avatar":50,"m.room.canonical_alias":50,"m.room.encryption":100,` +
		`"m.room.history_visibility":100,"m.room.name":50,"m.room.power_levels":100,"m.room.server_acl":100,` +
		`"m.room.tombstone":150},"events_default":0,"invite":0,"kick":50,"notifications":{"room":50},"redact":50,` +
		`"state_default":50,"users":{` + strings.Join(users, ",") + `},"users_default":0}`
}

func BenchmarkCheck(b *testing.B) {
	v, _ := matrix.VersionByID(matrix.DefaultVersion)
	for _, n := range []int{5, 500} {
		r := newRoom(b, v)
		r.levels(powerUsers(n))
		r.joinRule("restricted")
		r.member(bob, "join")
		for _, c := range []struct {
			name string
			ev   *matrix.Event
		}{
			{"message", r.message(bob)},
			{"join", r.change(carol, carol, "join", `,"displayname":"Carol","join_authorised_via_users_server":"@bob:b.example"`)},
			{"levels", r.power(alice, strings.Replace(powerUsers(n), `"kick":50`, `"kick":51`, 1))},
		} {
			b.Run(fmt.Sprintf("%s/users=%d", c.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := auth.Check(c.ev, r.state); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
