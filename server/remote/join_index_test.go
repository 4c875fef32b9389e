package remote

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"hearth/state/matrix"
)

// The memory for the index of an answer is taken as it grows, and given back.
func TestIndexTakesMemory(t *testing.T) {
	taken, refuse := int64(0), error(nil)
	j := &Joiner{budget: func(_ context.Context, bytes int64) (func(), error) {
		if refuse != nil {
			return nil, refuse
		}
		taken += bytes
		return func() { taken -= bytes }, nil
	}}
	v, _ := matrix.VersionByID("12")
	x, release := j.newIndex(t.Context(), v, "!a")
	for i := range 3*indexStep + 1 {
		if _, err := x.number(matrix.EventID(fmt.Sprint("$", i))); err != nil {
			t.Fatal(err)
		}
	}
	if taken != 3*indexWeight {
		t.Errorf("%d bytes are taken", taken)
	}
	refuse = errors.New("there is none")
	var err error
	for i := 0; i < indexStep && err == nil; i++ {
		_, err = x.number(matrix.EventID(fmt.Sprint("$more", i)))
	}
	if !errors.Is(err, refuse) {
		t.Errorf("it goes on growing: %v", err)
	}
	if release(); taken != 0 {
		t.Errorf("%d bytes stay taken", taken)
	}
}
