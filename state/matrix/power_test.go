package matrix

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"testing"
)

func TestPowerLevels(t *testing.T) {
	p, err := state(t, version(t, "12"), "m.room.power_levels", `{"ban":1,"kick":2,"redact":3,"invite":4,"state_default":5,
		"events_default":6,"users_default":-7,"events":{"m.room.name":8},"users":{"@a:b":9},"notifications":{"room":10}}`).PowerLevels()
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[PowerField]int64{
		BanLevel: 1, KickLevel: 2, RedactLevel: 3, InviteLevel: 4, StateDefault: 5, EventsDefault: 6, UsersDefault: -7,
	} {
		if level, given := p.Field(f); level != want || !given {
			t.Errorf("%s: %d, %v", f, level, given)
		}
	}
	if p.Ban != 1 || p.Kick != 2 || p.Redact != 3 || p.Invite != 4 || p.StateDefault != 5 || p.EventsDefault != 6 || p.UsersDefault != -7 {
		t.Errorf("%+v", p)
	}
	if p.User("@a:b") != 9 || p.User("@c:d") != -7 || p.Notifications["room"] != 10 {
		t.Errorf("%+v", p)
	}
	if p.Send("m.room.name", true) != 8 || p.Send("m.room.topic", true) != 5 || p.Send("m.room.message", false) != 6 {
		t.Errorf("%+v", p)
	}
}

func TestPowerLevelDefaults(t *testing.T) {
	empty, err := state(t, version(t, "12"), "m.room.power_levels", `{}`).PowerLevels()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*PowerLevels{empty, DefaultPowerLevels(nil)} {
		for f, want := range map[PowerField]int64{
			BanLevel: 50, KickLevel: 50, RedactLevel: 50, InviteLevel: 0, StateDefault: 50, EventsDefault: 0, UsersDefault: 0,
		} {
			if level, given := p.Field(f); level != want || given {
				t.Errorf("%s: %d, %v", f, level, given)
			}
		}
	}
	for _, tt := range []struct {
		version, content string
		user             UserID
		want             int64
	}{
		{"1", `{"creator":"@c:d"}`, "@c:d", 100},
		{"1", `{"creator":"@c:d"}`, "@alice:example.org", 0},
		{"11", `{}`, "@alice:example.org", 100},
		{"12", `{}`, "@alice:example.org", 0}, // above all levels, and not among them
	} {
		create := state(t, version(t, tt.version), "m.room.create", tt.content)
		if got := DefaultPowerLevels(create).User(tt.user); got != tt.want {
			t.Errorf("version %s, %s: %s has %d", tt.version, tt.content, tt.user, got)
		}
	}
}

// How a level may be written depends on the version.
func TestPowerLevelForms(t *testing.T) {
	type outcome int
	const (
		refused outcome = iota // in users; elsewhere before version 10, taken as not given
		read
		noEvent // such a number is in no event of that version
	)
	for _, tt := range []struct {
		text        string
		level       int64
		v1, v6, v10 outcome
	}{
		{`10`, 10, read, read, read},
		{`-10`, -10, read, read, read},
		{`9007199254740991`, 9007199254740991, read, read, read},
		{`"10"`, 10, read, read, refused},
		{`" +0010\t"`, 10, read, read, refused},
		{`"-10"`, -10, read, read, refused},
		{`"99999999999999999999"`, math.MaxInt64, read, read, refused},
		{`"-99999999999999999999"`, math.MinInt64, read, read, refused},
		{`""`, 0, refused, refused, refused},
		{`"+"`, 0, refused, refused, refused},
		{`"+-1"`, 0, refused, refused, refused},
		{`"1 0"`, 0, refused, refused, refused},
		{`"1.5"`, 0, refused, refused, refused},
		{`"1_0"`, 0, refused, refused, refused},
		{`"0x1"`, 0, refused, refused, refused},
		{`"١"`, 0, refused, refused, refused},
		{`null`, 0, refused, refused, refused},
		{`true`, 0, refused, refused, refused},
		{`[]`, 0, refused, refused, refused},
		{`{}`, 0, refused, refused, refused},
		{`50.57`, 50, read, noEvent, noEvent},
		{`-50.57`, -50, read, noEvent, noEvent},
		{`5.114698E4`, 51146, read, noEvent, noEvent},
		{`1e300`, math.MaxInt64, read, noEvent, noEvent},
		{`-1e300`, math.MinInt64, read, noEvent, noEvent},
		{`99999999999999999999`, math.MaxInt64, read, noEvent, noEvent},
		{`-99999999999999999999`, math.MinInt64, read, noEvent, noEvent},
		{`1e400`, 0, noEvent, noEvent, noEvent},
	} {
		for id, want := range map[string]outcome{"1": tt.v1, "5": tt.v1, "6": tt.v6, "9": tt.v6, "10": tt.v10, "12": tt.v10} {
			v := version(t, id)
			pdu := minimal(v, map[string]string{"content": `{"users":{"@a:b":` + tt.text + `}}`})
			e, err := Parse(v, []byte(pdu))
			if (err != nil) != (want == noEvent) {
				t.Errorf("version %s, %s: %v", id, tt.text, err)
			}
			if err != nil {
				continue
			}
			p, err := e.PowerLevels()
			if want == read && (err != nil || p.User("@a:b") != tt.level) || want == refused && !errors.Is(err, ErrBadJSON) {
				t.Errorf("version %s, user at %s: %+v, %v", id, tt.text, p, err)
			}
			for _, content := range []string{`{"kick":` + tt.text + `}`, `{"events":{"kick":` + tt.text + `}}`} {
				e, err := Parse(v, []byte(minimal(v, map[string]string{"content": content})))
				if err != nil {
					t.Fatal(err)
				}
				p, err := e.PowerLevels()
				switch {
				case want == refused && v.IntegerPowerLevels:
					if !errors.Is(err, ErrBadJSON) {
						t.Errorf("version %s, %s: %v", id, content, err)
					}
				case err != nil:
					t.Errorf("version %s, %s: %v", id, content, err)
				default:
					kick, given := p.Field(KickLevel)
					event, inEvents := p.Events["kick"]
					if (given || inEvents) != (want == read) || given && kick != tt.level || inEvents && event != tt.level {
						t.Errorf("version %s, %s: %+v", id, content, p)
					}
				}
			}
		}
	}
}

func TestPowerLevelsRefused(t *testing.T) {
	for _, tt := range []struct {
		content         string
		before10, after bool
	}{
		{`{"users":[]}`, true, true},
		{`{"users":null}`, true, true},
		{`{"users":{"a":1}}`, true, true},
		{`{"users":{"@a:b c":1}}`, true, true},
		{`{"events":[]}`, false, true},
		{`{"events":null}`, false, true},
		{`{"notifications":1}`, false, true},
		{`{"notifications":{"room":"1"}}`, false, true},
		{`{"other":"x"}`, false, false},
	} {
		for _, v := range Versions() {
			e := state(t, v, "m.room.power_levels", tt.content)
			want := tt.before10
			if v.IntegerPowerLevels {
				want = tt.after
			}
			if _, err := e.PowerLevels(); errors.Is(err, ErrBadJSON) != want || (err != nil) != want {
				t.Errorf("version %s, %s: %v", v.ID, tt.content, err)
			}
			if _, err := e.PowerLevelsFor("x"); (err != nil) != want {
				t.Errorf("version %s, %s, for one type: %v", v.ID, tt.content, err)
			}
		}
	}
}

// PowerLevelsFor says the same as PowerLevels about those it was asked for.
func TestPowerLevelsFor(t *testing.T) {
	e := manyLevels(t, 20)
	all, err := e.PowerLevels()
	if err != nil {
		t.Fatal(err)
	}
	some, err := e.PowerLevelsFor("m.room.name", "@user3:example.org", "@user7:example.org", "@nobody:example.org")
	if err != nil {
		t.Fatal(err)
	}
	if want := map[UserID]int64{"@user3:example.org": 3, "@user7:example.org": 7}; !maps.Equal(some.Users, want) {
		t.Errorf("users %v", some.Users)
	}
	if some.Send("m.room.name", true) != all.Send("m.room.name", true) || len(some.Events) != 1 {
		t.Errorf("events %v", some.Events)
	}
	for f := range powerFieldCount {
		level, given := some.Field(f)
		if wantLevel, want := all.Field(f); level != wantLevel || given != want {
			t.Errorf("%s: %d, %v", f, level, given)
		}
	}
}

// Any content is read or refused, by both readers alike.
func FuzzPowerLevels(f *testing.F) {
	for _, seed := range []string{
		`{"users":{"@a:b":"10"},"events":{"m.room.name":50.5},"ban":" +1 "}`, `{"users":1}`, `{"notifications":{"room":null}}`, `{}`,
		`{"users":{"@a:b":1e30},"users_default":-0}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		for _, id := range []string{"1", "6", "10", "12"} {
			v := version(t, id)
			e, err := Parse(v, []byte(minimal(v, map[string]string{"content": content})))
			if err != nil {
				continue
			}
			all, err := e.PowerLevels()
			some, errFor := e.PowerLevelsFor("m.room.name", "@a:b")
			if (err == nil) != (errFor == nil) {
				t.Fatalf("version %s: %v and %v", id, err, errFor)
			}
			if err != nil {
				continue
			}
			if all.User("@a:b") != some.User("@a:b") || all.Send("m.room.name", true) != some.Send("m.room.name", true) {
				t.Fatalf("version %s: %+v and %+v", id, all, some)
			}
		}
	})
}

func BenchmarkPowerLevels(b *testing.B) {
	for _, users := range []int{5, 500} {
		e := manyLevels(b, users)
		b.Run(fmt.Sprintf("all/%d users", users), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.PowerLevels(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("one/%d users", users), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.PowerLevelsFor("m.room.message", "@user3:example.org"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// manyLevels is an m.room.power_levels with that many users.
func manyLevels(t testing.TB, users int) *Event {
	t.Helper()
	content := `{"ban":50,"kick":50,"redact":50,"invite":0,"state_default":50,"events":{"m.room.name":50},"users":{`
	for i := range users {
		if i > 0 {
			content += ","
		}
		content += fmt.Sprintf(`"@user%d:example.org":%d`, i, i%100)
	}
	key := ""
	return build(t, version(t, "12"), Draft{Type: "m.room.power_levels", StateKey: &key, Content: []byte(content + `}}`)})
}
