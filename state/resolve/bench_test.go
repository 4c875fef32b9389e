package resolve

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"hearth/state/matrix"
)

// Two forks of a room, on each of which that many members came and went.
func BenchmarkResolve(b *testing.B) {
	for _, version := range []string{"1", "11", "12"} {
		for _, changes := range []int{10, 500} {
			b.Run(fmt.Sprintf("version %s/%d changes", version, changes), func(b *testing.B) {
				r, s := newRoom(b, version)
				one, two := maps.Clone(s), maps.Clone(s)
				for i := range changes {
					user := matrix.UserID(fmt.Sprintf("@user%d:example.org", i))
					r.member(one, "", user, user, "join")
					r.member(two, "", user, user, "join")
				}
				in := r.input(one, two)
				difference, _ := in.AuthDifference()
				subgraph, _ := in.Subgraph(slices.Concat(slices.Collect(maps.Values(in.Conflicted))...))
				in.AuthDifference = func() ([]matrix.EventID, error) { return difference, nil }
				in.Subgraph = func([]matrix.EventID) ([]matrix.EventID, error) { return subgraph, nil }
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Resolve(in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
