package auth_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// ruleCase is one event before the rules, tried in each version that has the rule.
type ruleCase struct {
	rule auth.Reason // the rule that the case is about
	ok   bool        // it lets the event pass; else it refuses it
	name string
	// text, if given, is what the user is told.
	text string
	// on narrows the versions; nil means all that have the rule.
	on func(*matrix.Version) bool
	// run makes the event in a new room and checks it.
	run func(r *room) error
	// extra is more content of the room's create event.
	extra string
}

func (r *room) check(ev *matrix.Event) error { return auth.Check(ev, r.state) }

// The tables of TestRules, by the file that has them.
var ruleTables = [][]ruleCase{
	createCases, roomCases, joinCases, inviteCases, thirdPartyCases, leaveCases, banCases, knockCases,
	eventCases, powerCases, powerFormCases, redactionCases, authEventCases,
}

// proposalTables have the cases that the texts of proposals state; each has a test
// of its own.
var proposalTables = [][]ruleCase{msc4289Cases, msc4291Cases, msc4307Cases}

func TestRules(t *testing.T) { runCases(t, slices.Concat(ruleTables...)) }

// runCases tries each case in each version that has its rule.
func runCases(t *testing.T, cases []ruleCase) {
	for _, c := range cases {
		tried := false
		for _, v := range matrix.Versions() {
			if !c.concerns(v) {
				continue
			}
			tried = true
			t.Run(c.rule.Error()+"/"+c.name+"/v"+v.ID, func(t *testing.T) { c.test(t, v) })
		}
		if !tried {
			t.Errorf("%v, %s: tried in no version", c.rule, c.name)
		}
	}
}

// concerns says whether the case is about a version.
func (c *ruleCase) concerns(v *matrix.Version) bool {
	return c.rule.Number(v) != "" && (c.on == nil || c.on(v))
}

// Every rule of every version that can refuse an event does refuse one and lets
// one pass.
func TestEveryRuleHasCases(t *testing.T) {
	type row struct {
		rule    auth.Reason
		version string
		ok      bool
	}
	seen := map[row]bool{}
	for _, c := range slices.Concat(slices.Concat(ruleTables, proposalTables)...) {
		for _, v := range matrix.Versions() {
			if c.concerns(v) {
				seen[row{c.rule, v.ID, c.ok}] = true
			}
		}
	}
	for rule := auth.Reason(1); !strings.HasPrefix(rule.Error(), "Reason("); rule++ {
		for _, v := range matrix.Versions() {
			if rule.Number(v) == "" {
				continue
			}
			for _, ok := range []bool{false, true} {
				if !seen[row{rule, v.ID, ok}] {
					t.Errorf("no case for %v, rule %s of version %s, allowed: %v", rule, rule.Number(v), v.ID, ok)
				}
			}
		}
	}
}

func (c *ruleCase) test(t *testing.T, v *matrix.Version) {
	err := c.run(newRoom(t, v, c.extra))
	if c.ok {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var refusal *auth.Error
	if !errors.As(err, &refusal) {
		t.Fatalf("got %v, want a refusal by %v", err, c.rule)
	}
	if !errors.Is(err, c.rule) || refusal.Rule != c.rule.Number(v) || refusal.Version != v {
		t.Errorf("refused by %v, rule %s: %v; want %v, rule %s",
			refusal.Reason, refusal.Rule, err, c.rule, c.rule.Number(v))
	}
	if c.text != "" && refusal.Text != c.text {
		t.Errorf("text %q, want %q", refusal.Text, c.text)
	}
	if refusal.Text == "" || strings.Contains(refusal.Text, "%!") {
		t.Errorf("bad text %q", refusal.Text)
	}
}

// The numbers were read off the specification by hand, a few in each column.
func TestRuleNumbers(t *testing.T) {
	for _, c := range []struct {
		rule    auth.Reason
		numbers string // versions 1 to 12
	}{
		{auth.NoCreate, "2.4 2.4 2.4 2.4 2.4 2.4 2.4 2.4 2.4 2.4 2.4 2"},
		{auth.NotFederated, "3 3 3 3 3 3 3 3 3 3 3 4"},
		{auth.AliasesOtherServer, "4.2 4.2 4.2 4.2 4.2 - - - - - - -"},
		{auth.JoinNotOneself, "5.2.2 5.2.2 5.2.2 5.2.2 5.2.2 4.2.2 4.2.2 4.3.2 4.3.2 4.3.2 4.3.2 5.3.2"},
		{auth.KickLevel, "5.4.5 5.4.5 5.4.5 5.4.5 5.4.5 4.4.5 4.4.5 4.5.5 4.5.5 4.5.5 4.5.5 5.5.5"},
		{auth.KnockRefused, "- - - - - - 4.6.4 4.7.4 4.7.4 4.7.4 4.7.4 5.7.4"},
		{auth.RequiredLevel, "8 8 8 8 8 7 7 7 7 7 7 8"},
		{auth.PowerUserAboveNew, "10.7.1 10.7.1 10.7.1 10.7.1 10.7.1 9.7.1 9.7.1 9.7.1 9.7.1 9.9.1 9.9.1 10.10.1"},
		{auth.RedactionLevel, "11.3 11.3 - - - - - - - - - -"},
	} {
		var got []string
		for _, v := range matrix.Versions() {
			n := c.rule.Number(v)
			if n == "" {
				n = "-"
			}
			got = append(got, n)
		}
		if s := strings.Join(got, " "); s != c.numbers {
			t.Errorf("%v is rule %s, want %s", c.rule, s, c.numbers)
		}
	}
	if got := (&auth.Error{Text: "You may not"}).Error(); got != "You may not" {
		t.Errorf("an error of text alone is %q", got)
	}
	v, _ := matrix.VersionByID("11")
	refusal := &auth.Error{Reason: auth.KickLevel, Rule: auth.KickLevel.Number(v), Version: v, Text: "You may not"}
	if got := refusal.Error(); got != "You may not (rule 4.5.5 of room version 11)" {
		t.Errorf("a refusal is %q", got)
	}
	if got := auth.Reason(0).Error(); got != "Reason(0)" {
		t.Errorf("zero reason is %q", got)
	}
}

// A failing look-up says nothing about the event.
func TestStateFails(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, v := range matrix.Versions() {
		r := newRoom(t, v)
		r.joinRule("restricted")
		r.member(bob, "join")
		events := []*matrix.Event{
			r.message(bob), r.power(alice, `{}`), r.change(carol, carol, "join"), r.change(carol, carol, "knock"),
			r.change(alice, bob, "ban"), r.change(alice, bob, "leave"), r.change(alice, carol, "invite"),
			r.change(carol, carol, "join", `,"join_authorised_via_users_server":"@bob:b.example"`),
			r.event(alice, "m.room.third_party_invite", key("token"), `{}`),
		}
		for _, ev := range events {
			for failing := range 5 { // the look-up that fails
				n := 0
				err := auth.Check(ev, func(typ, stateKey string) (*matrix.Event, error) {
					if n++; n > failing {
						return nil, broken
					}
					return r.state(typ, stateKey)
				})
				var refusal *auth.Error
				if n > failing && (!errors.Is(err, broken) || errors.As(err, &refusal)) {
					t.Errorf("version %s, %s, look-up %d fails: got %v", v.ID, ev.Content, failing, err)
				}
			}
		}
	}
}
