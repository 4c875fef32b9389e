package auth_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hearth/state/auth"
	"hearth/state/matrix"
)

// ruleNumbers are the numbers of all rules that decide something, by the text that
// has them, as the specification v1.19 prints them. "5.2.1-6" are the rules 5.2.1 to
// 5.2.6. Headings, such as 5.2, and the two places of keys in the rule on third-party
// invites, 5.3.1.7.1 and 5.3.1.7.2, are left out.
//
// Version 12 has no 3.4 and prints 10.10 twice: the second is 10.11 here.
var ruleNumbers = map[matrix.AuthRules]string{
	matrix.AuthRulesV1: "1.1-5 2.1-5 3 4.1-3 5.1 5.2.1-6 5.3.1.1-8 5.3.2-5 5.4.1-5 5.5.1-3 5.6 6 7.1 8 9 " +
		"10.1-2 10.3.1-2 10.4.1 10.5.1 10.6.1 10.7.1 10.8 11.1-3 12",
	matrix.AuthRulesV3: "1.1-5 2.1-5 3 4.1-3 5.1 5.2.1-6 5.3.1.1-8 5.3.2-5 5.4.1-5 5.5.1-3 5.6 6 7.1 8 9 " +
		"10.1-2 10.3.1-2 10.4.1 10.5.1 10.6.1 10.7.1 10.8 11",
	matrix.AuthRulesV6: "1.1-5 2.1-5 3 4.1 4.2.1-6 4.3.1.1-8 4.3.2-5 4.4.1-5 4.5.1-3 4.6 5 6.1 7 8 " +
		"9.1-2 9.3.1-2 9.4.1 9.5.1 9.6.1 9.7.1 9.8 10",
	matrix.AuthRulesV7: "1.1-5 2.1-5 3 4.1 4.2.1-6 4.3.1.1-8 4.3.2-5 4.4.1-5 4.5.1-3 4.6.1-4 4.7 5 6.1 7 8 " +
		"9.1-2 9.3.1-2 9.4.1 9.5.1 9.6.1 9.7.1 9.8 10",
	matrix.AuthRulesV8: "1.1-5 2.1-5 3 4.1 4.2.1 4.3.1-4 4.3.5.1-3 4.3.6-7 4.4.1.1-8 4.4.2-5 4.5.1-5 4.6.1-3 4.7.1-4 4.8 5 6.1 7 8 " +
		"9.1-2 9.3.1-2 9.4.1 9.5.1 9.6.1 9.7.1 9.8 10",
	matrix.AuthRulesV10: "1.1-5 2.1-5 3 4.1 4.2.1 4.3.1-4 4.3.5.1-3 4.3.6-7 4.4.1.1-8 4.4.2-5 4.5.1-5 4.6.1-3 4.7.1-4 4.8 5 6.1 7 8 " +
		"9.1-4 9.5.1-2 9.6.1 9.7.1 9.8.1 9.9.1 9.10 10",
	matrix.AuthRulesV11: "1.1-4 2.1-5 3 4.1 4.2.1 4.3.1-4 4.3.5.1-3 4.3.6-7 4.4.1.1-8 4.4.2-5 4.5.1-5 4.6.1-3 4.7.1-4 4.8 5 6.1 7 8 " +
		"9.1-4 9.5.1-2 9.6.1 9.7.1 9.8.1 9.9.1 9.10 10",
	matrix.AuthRulesV12: "1.1-5 2 3.1-3 3.5 4 5.1 5.2.1 5.3.1-4 5.3.5.1-3 5.3.6-7 5.4.1.1-8 5.4.2-5 5.5.1-5 5.6.1-3 5.7.1-4 5.8 6 7.1 8 9 " +
		"10.1-5 10.6.1-2 10.7.1 10.8.1 10.9.1 10.10.1 10.11 11",
}

// numbersOf are the numbers of a version's rules, one by one.
func numbersOf(t *testing.T, v *matrix.Version) map[string]bool {
	t.Helper()
	numbers := map[string]bool{}
	for entry := range strings.FieldsSeq(ruleNumbers[v.AuthRules]) {
		first, last, isRange := strings.Cut(entry, "-")
		numbers[first] = true
		if !isRange {
			continue
		}
		dot := strings.LastIndexByte(first, '.') + 1
		from, err := strconv.Atoi(first[dot:])
		to, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || from >= to {
			t.Fatalf("version %s: bad range %s", v.ID, entry)
		}
		for n := from; n <= to; n++ {
			numbers[first[:dot]+strconv.Itoa(n)] = true
		}
	}
	return numbers
}

// citation is how the source quotes a rule: "v8-11 4.3.2".
var citation = regexp.MustCompile(`\bv(\d+)(?:-(\d+))? (\d+(?:\.\d+)*)`)

// cited are the rules that the comments of this package quote, by version and
// number, each with the places.
func cited(t *testing.T) map[string]map[string][]string {
	t.Helper()
	files := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]map[string][]string{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, comment := range file.Comments {
			if comment == file.Doc {
				continue // tells how rules are quoted
			}
			for _, m := range citation.FindAllStringSubmatch(strings.Join(strings.Fields(comment.Text()), " "), -1) {
				from, _ := strconv.Atoi(m[1])
				to := from
				if m[2] != "" {
					to, _ = strconv.Atoi(m[2])
				}
				for n := from; n <= to; n++ {
					version := strconv.Itoa(n)
					if found[version] == nil {
						found[version] = map[string][]string{}
					}
					at := fmt.Sprintf("%s:%d", name, files.Position(comment.Pos()).Line)
					found[version][m[3]] = append(found[version][m[3]], at)
				}
			}
		}
	}
	return found
}

// Every rule of every version is quoted where it is checked, and what is quoted as a
// rule of a version is one, or the heading of some.
func TestEveryRuleIsQuoted(t *testing.T) {
	found := cited(t)
	for _, v := range matrix.Versions() {
		numbers := numbersOf(t, v)
		for _, n := range slices.Sorted(maps.Keys(numbers)) {
			if len(found[v.ID][n]) == 0 {
				t.Errorf("rule %s of version %s is quoted nowhere", n, v.ID)
			}
		}
		for n, at := range found[v.ID] {
			heading := func(number string) bool { return strings.HasPrefix(number, n+".") }
			if !numbers[n] && !slices.ContainsFunc(slices.Collect(maps.Keys(numbers)), heading) {
				t.Errorf("version %s has no rule %s, quoted at %v", v.ID, n, at)
			}
		}
		delete(found, v.ID)
	}
	if len(found) > 0 {
		t.Errorf("rules of unknown versions: %v", found)
	}
}

// The table in reason.go names rules that there are, and each but once.
func TestReasonsAreRules(t *testing.T) {
	for _, v := range matrix.Versions() {
		numbers, seen := numbersOf(t, v), map[string]auth.Reason{}
		for rule := auth.Reason(1); !strings.HasPrefix(rule.Error(), "Reason("); rule++ {
			n := rule.Number(v)
			if n == "" {
				continue
			}
			if !numbers[n] {
				t.Errorf("%v is rule %s of version %s, which has none", rule, n, v.ID)
			}
			if other, taken := seen[n]; taken {
				t.Errorf("%v and %v are both rule %s of version %s", other, rule, n, v.ID)
			}
			seen[n] = rule
		}
	}
}
