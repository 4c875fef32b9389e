package auth

import (
	"fmt"
	"strings"

	"hearth/state/matrix"
)

// A Reason is a rule that can refuse an event, whatever number the rule has in
// a version. It is an error, so that errors.Is(err, auth.JoinBanned) asks why.
// [Reason.Number] gives the rule's number, and the table below is where to look
// up a number: the row's name leads to the check, which quotes the rule.
type Reason uint8

// The reasons, in the order of the rules.
const (
	CreateHasPrev Reason = iota + 1
	CreateRoomID
	CreateUnknownVersion
	CreateNoCreator
	CreateBadCreators

	NoCreate

	AuthDuplicate
	AuthExcess
	AuthRejected
	AuthOtherRoom

	NotFederated

	AliasesNoStateKey
	AliasesOtherServer

	MemberMalformed
	MemberUnsigned

	JoinNotOneself
	JoinBanned
	JoinUnauthorised
	JoinRefused

	ThirdPartyBanned
	ThirdPartyNoSigned
	ThirdPartyNoToken
	ThirdPartyOtherUser
	ThirdPartyUnknown
	ThirdPartyOtherSender
	ThirdPartyBadSignature

	InviteNotJoined
	InvitePointless
	InviteLevel

	LeaveNotIn
	KickNotJoined
	UnbanLevel
	KickLevel

	BanNotJoined
	BanLevel

	KnockJoinRule
	KnockNotOneself
	KnockRefused

	MembershipUnknown

	NotJoined
	ThirdPartyInviteLevel
	RequiredLevel
	ForeignStateKey

	PowerLevelMalformed
	PowerEntryMalformed
	PowerUserMalformed
	PowerListsCreator
	PowerLevelAboveOld
	PowerLevelAboveNew
	PowerEntryAboveOld
	PowerEntryAboveNew
	PowerUserAboveOld
	PowerUserAboveNew

	RedactionLevel

	reasonCount
)

// reasons is the table of rule numbers: the columns are the eight texts of the
// rules by matrix.AuthRules, "-" where a text has no such rule. Specification:
// rooms, v1.md to v12.md, "Authorisation rules".
//
// Rule 1.2 of version 12 has no row: matrix.Parse refuses what it is about. The
// specification prints 3.5 of version 12 so, after 3.3.
var reasons = [reasonCount]struct{ numbers, name string }{
	// room version:          1-2      3-5      6        7        8-9      10       11       12
	CreateHasPrev:          {"1.1      1.1      1.1      1.1      1.1      1.1      1.1      1.1     ", "CreateHasPrev"},
	CreateRoomID:           {"1.2      1.2      1.2      1.2      1.2      1.2      1.2      -       ", "CreateRoomID"},
	CreateUnknownVersion:   {"1.3      1.3      1.3      1.3      1.3      1.3      1.3      1.3     ", "CreateUnknownVersion"},
	CreateNoCreator:        {"1.4      1.4      1.4      1.4      1.4      1.4      -        -       ", "CreateNoCreator"},
	CreateBadCreators:      {"-        -        -        -        -        -        -        1.4     ", "CreateBadCreators"},
	NoCreate:               {"2.4      2.4      2.4      2.4      2.4      2.4      2.4      2       ", "NoCreate"},
	AuthDuplicate:          {"2.1      2.1      2.1      2.1      2.1      2.1      2.1      3.1     ", "AuthDuplicate"},
	AuthExcess:             {"2.2      2.2      2.2      2.2      2.2      2.2      2.2      3.2     ", "AuthExcess"},
	AuthRejected:           {"2.3      2.3      2.3      2.3      2.3      2.3      2.3      3.3     ", "AuthRejected"},
	AuthOtherRoom:          {"2.5      2.5      2.5      2.5      2.5      2.5      2.5      3.5     ", "AuthOtherRoom"},
	NotFederated:           {"3        3        3        3        3        3        3        4       ", "NotFederated"},
	AliasesNoStateKey:      {"4.1      4.1      -        -        -        -        -        -       ", "AliasesNoStateKey"},
	AliasesOtherServer:     {"4.2      4.2      -        -        -        -        -        -       ", "AliasesOtherServer"},
	MemberMalformed:        {"5.1      5.1      4.1      4.1      4.1      4.1      4.1      5.1     ", "MemberMalformed"},
	MemberUnsigned:         {"-        -        -        -        4.2.1    4.2.1    4.2.1    5.2.1   ", "MemberUnsigned"},
	JoinNotOneself:         {"5.2.2    5.2.2    4.2.2    4.2.2    4.3.2    4.3.2    4.3.2    5.3.2   ", "JoinNotOneself"},
	JoinBanned:             {"5.2.3    5.2.3    4.2.3    4.2.3    4.3.3    4.3.3    4.3.3    5.3.3   ", "JoinBanned"},
	JoinUnauthorised:       {"-        -        -        -        4.3.5.2  4.3.5.2  4.3.5.2  5.3.5.2 ", "JoinUnauthorised"},
	JoinRefused:            {"5.2.6    5.2.6    4.2.6    4.2.6    4.3.7    4.3.7    4.3.7    5.3.7   ", "JoinRefused"},
	ThirdPartyBanned:       {"5.3.1.1  5.3.1.1  4.3.1.1  4.3.1.1  4.4.1.1  4.4.1.1  4.4.1.1  5.4.1.1 ", "ThirdPartyBanned"},
	ThirdPartyNoSigned:     {"5.3.1.2  5.3.1.2  4.3.1.2  4.3.1.2  4.4.1.2  4.4.1.2  4.4.1.2  5.4.1.2 ", "ThirdPartyNoSigned"},
	ThirdPartyNoToken:      {"5.3.1.3  5.3.1.3  4.3.1.3  4.3.1.3  4.4.1.3  4.4.1.3  4.4.1.3  5.4.1.3 ", "ThirdPartyNoToken"},
	ThirdPartyOtherUser:    {"5.3.1.4  5.3.1.4  4.3.1.4  4.3.1.4  4.4.1.4  4.4.1.4  4.4.1.4  5.4.1.4 ", "ThirdPartyOtherUser"},
	ThirdPartyUnknown:      {"5.3.1.5  5.3.1.5  4.3.1.5  4.3.1.5  4.4.1.5  4.4.1.5  4.4.1.5  5.4.1.5 ", "ThirdPartyUnknown"},
	ThirdPartyOtherSender:  {"5.3.1.6  5.3.1.6  4.3.1.6  4.3.1.6  4.4.1.6  4.4.1.6  4.4.1.6  5.4.1.6 ", "ThirdPartyOtherSender"},
	ThirdPartyBadSignature: {"5.3.1.8  5.3.1.8  4.3.1.8  4.3.1.8  4.4.1.8  4.4.1.8  4.4.1.8  5.4.1.8 ", "ThirdPartyBadSignature"},
	InviteNotJoined:        {"5.3.2    5.3.2    4.3.2    4.3.2    4.4.2    4.4.2    4.4.2    5.4.2   ", "InviteNotJoined"},
	InvitePointless:        {"5.3.3    5.3.3    4.3.3    4.3.3    4.4.3    4.4.3    4.4.3    5.4.3   ", "InvitePointless"},
	InviteLevel:            {"5.3.5    5.3.5    4.3.5    4.3.5    4.4.5    4.4.5    4.4.5    5.4.5   ", "InviteLevel"},
	LeaveNotIn:             {"5.4.1    5.4.1    4.4.1    4.4.1    4.5.1    4.5.1    4.5.1    5.5.1   ", "LeaveNotIn"},
	KickNotJoined:          {"5.4.2    5.4.2    4.4.2    4.4.2    4.5.2    4.5.2    4.5.2    5.5.2   ", "KickNotJoined"},
	UnbanLevel:             {"5.4.3    5.4.3    4.4.3    4.4.3    4.5.3    4.5.3    4.5.3    5.5.3   ", "UnbanLevel"},
	KickLevel:              {"5.4.5    5.4.5    4.4.5    4.4.5    4.5.5    4.5.5    4.5.5    5.5.5   ", "KickLevel"},
	BanNotJoined:           {"5.5.1    5.5.1    4.5.1    4.5.1    4.6.1    4.6.1    4.6.1    5.6.1   ", "BanNotJoined"},
	BanLevel:               {"5.5.3    5.5.3    4.5.3    4.5.3    4.6.3    4.6.3    4.6.3    5.6.3   ", "BanLevel"},
	KnockJoinRule:          {"-        -        -        4.6.1    4.7.1    4.7.1    4.7.1    5.7.1   ", "KnockJoinRule"},
	KnockNotOneself:        {"-        -        -        4.6.2    4.7.2    4.7.2    4.7.2    5.7.2   ", "KnockNotOneself"},
	KnockRefused:           {"-        -        -        4.6.4    4.7.4    4.7.4    4.7.4    5.7.4   ", "KnockRefused"},
	MembershipUnknown:      {"5.6      5.6      4.6      4.7      4.8      4.8      4.8      5.8     ", "MembershipUnknown"},
	NotJoined:              {"6        6        5        5        5        5        5        6       ", "NotJoined"},
	ThirdPartyInviteLevel:  {"7.1      7.1      6.1      6.1      6.1      6.1      6.1      7.1     ", "ThirdPartyInviteLevel"},
	RequiredLevel:          {"8        8        7        7        7        7        7        8       ", "RequiredLevel"},
	ForeignStateKey:        {"9        9        8        8        8        8        8        9       ", "ForeignStateKey"},
	PowerLevelMalformed:    {"-        -        -        -        -        9.1      9.1      10.1    ", "PowerLevelMalformed"},
	PowerEntryMalformed:    {"-        -        -        -        -        9.2      9.2      10.2    ", "PowerEntryMalformed"},
	PowerUserMalformed:     {"10.1     10.1     9.1      9.1      9.1      9.3      9.3      10.3    ", "PowerUserMalformed"},
	PowerListsCreator:      {"-        -        -        -        -        -        -        10.4    ", "PowerListsCreator"},
	PowerLevelAboveOld:     {"10.3.1   10.3.1   9.3.1    9.3.1    9.3.1    9.5.1    9.5.1    10.6.1  ", "PowerLevelAboveOld"},
	PowerLevelAboveNew:     {"10.3.2   10.3.2   9.3.2    9.3.2    9.3.2    9.5.2    9.5.2    10.6.2  ", "PowerLevelAboveNew"},
	PowerEntryAboveOld:     {"10.4.1   10.4.1   9.4.1    9.4.1    9.4.1    9.6.1    9.6.1    10.7.1  ", "PowerEntryAboveOld"},
	PowerEntryAboveNew:     {"10.5.1   10.5.1   9.5.1    9.5.1    9.5.1    9.7.1    9.7.1    10.8.1  ", "PowerEntryAboveNew"},
	PowerUserAboveOld:      {"10.6.1   10.6.1   9.6.1    9.6.1    9.6.1    9.8.1    9.8.1    10.9.1  ", "PowerUserAboveOld"},
	PowerUserAboveNew:      {"10.7.1   10.7.1   9.7.1    9.7.1    9.7.1    9.9.1    9.9.1    10.10.1 ", "PowerUserAboveNew"},
	RedactionLevel:         {"11.3     -        -        -        -        -        -        -       ", "RedactionLevel"},
}

// Error is the reason's name.
func (r Reason) Error() string {
	if r == 0 || r >= reasonCount {
		return fmt.Sprintf("Reason(%d)", uint8(r))
	}
	return reasons[r].name
}

// Number is the number of the rule in the rules of a room version, as in "5.3.2",
// and empty when the version has no such rule.
func (r Reason) Number(v *matrix.Version) string {
	if r >= reasonCount || v == nil {
		return ""
	}
	numbers, column := strings.Fields(reasons[r].numbers), int(v.AuthRules-matrix.AuthRulesV1)
	if column >= len(numbers) || numbers[column] == "-" {
		return ""
	}
	return numbers[column]
}

// Malformed says whether the rule is about the event's content alone: it would be
// refused in every state of a room, whoever sends it.
func (r Reason) Malformed() bool {
	switch r {
	case CreateUnknownVersion, CreateNoCreator, CreateBadCreators, MemberMalformed, MembershipUnknown,
		PowerLevelMalformed, PowerEntryMalformed, PowerUserMalformed, PowerListsCreator:
		return true
	}
	return false
}

// Error is a refusal: the event is not allowed. Any other error of this package
// is a failure of a look-up and says nothing about the event.
type Error struct {
	Reason  Reason          // the rule, whatever its number
	Rule    string          // its number in Version, as in "5.3.2"
	Version *matrix.Version // of the event
	Event   matrix.EventID  // the event that was refused
	Text    string          // one clause for the user whose event it is, without a full stop
}

// Error is the text, followed by where the rule is found, if that is given.
func (e *Error) Error() string {
	if e.Version == nil {
		return e.Text
	}
	return fmt.Sprintf("%s (rule %s of room version %s)", e.Text, e.Rule, e.Version.ID)
}

// Unwrap is the reason, for errors.Is.
func (e *Error) Unwrap() error { return e.Reason }

// refuse makes the refusal of ev for a reason.
func refuse(ev *matrix.Event, why Reason, format string, args ...any) error {
	return &Error{
		Reason:  why,
		Rule:    why.Number(ev.Version),
		Version: ev.Version,
		Event:   ev.ID,
		Text:    fmt.Sprintf(format, args...),
	}
}

// maxQuoted is how much of a text from an event a message repeats.
const maxQuoted = 64

// quote is text from an event, in quotes, shortened and without control characters.
func quote(s string) string { return fmt.Sprintf("%q", clip(s)) }

// clip shortens text from an event.
func clip(s string) string {
	if len(s) <= maxQuoted {
		return s
	}
	return strings.ToValidUTF8(s[:maxQuoted], "") + "…"
}
