package client

import (
	"fmt"

	"github.com/go-json-experiment/json"

	"hearth/state/matrix"
)

// The parts of a filter, in the form in which they are looked through. A list is
// nil where the filter has no such list.

// userSet is a list of user IDs.
type userSet map[matrix.UserID]struct{}

func (s userSet) has(user matrix.UserID) bool { _, in := s[user]; return in }

// UnmarshalJSON reads a list of user IDs.
func (s *userSet) UnmarshalJSON(text []byte) (err error) {
	*s, err = readSet(text, matrix.ParseUserID)
	return err
}

// roomSet is a list of room IDs.
type roomSet map[matrix.RoomID]struct{}

func (s roomSet) has(room matrix.RoomID) bool { _, in := s[room]; return in }

// UnmarshalJSON reads a list of room IDs.
func (s *roomSet) UnmarshalJSON(text []byte) (err error) {
	*s, err = readSet(text, matrix.ParseRoomID)
	return err
}

// readSet reads a JSON list whose entries parse accepts; null reads as no list.
func readSet[ID comparable](text []byte, parse func(string) (ID, error)) (map[ID]struct{}, error) {
	var names []string
	if err := json.Unmarshal(text, &names); err != nil || names == nil {
		return nil, err
	}
	set := make(map[ID]struct{}, len(names))
	for _, name := range names {
		id, err := parse(name)
		if err != nil {
			return nil, err
		}
		set[id] = struct{}{}
	}
	return set, nil
}

// limit is how many events a filter wants. Some clients say 0 where they want
// none; less than that is no number of events.
type limit int

// UnmarshalJSON reads a limit.
func (l *limit) UnmarshalJSON(text []byte) error {
	var n int
	if err := json.Unmarshal(text, &n); err != nil {
		return err
	}
	if n < 0 {
		return fmt.Errorf("a limit of %d", n)
	}
	*l = limit(n)
	return nil
}

// patterns is a list of event types in which * stands for any characters.
type patterns []string

// UnmarshalJSON reads a list of patterns.
func (p *patterns) UnmarshalJSON(text []byte) error {
	var list []string
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	if len(list) > maxFilterTypes {
		return fmt.Errorf("more than %d types", maxFilterTypes)
	}
	for _, pattern := range list {
		if len(pattern) > matrix.MaxIDBytes {
			return fmt.Errorf("a type of more than %d bytes", matrix.MaxIDBytes)
		}
	}
	*p = list
	return nil
}

// match says whether one of the patterns matches s.
func (p patterns) match(s string) bool {
	for _, pattern := range p {
		if matchPattern(pattern, s) {
			return true
		}
	}
	return false
}

// matchPattern says whether s is what pattern describes. It takes at most as many
// steps as both lengths multiplied, whatever the pattern.
func matchPattern(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0 // the last *, and where in s its match ends
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0: // let the last * take one more byte
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
