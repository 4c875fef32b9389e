package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// deadlines notes until when a request may be read.
type deadlines struct {
	*httptest.ResponseRecorder
	read time.Time
}

func (d *deadlines) SetReadDeadline(until time.Time) error {
	d.read = until
	return nil
}

// A body that is hurried gets a time that begins then, however much comes.
func TestHurry(t *testing.T) {
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest(http.MethodPut, "/", strings.NewReader(strings.Repeat("x", 10<<20)))
	serverPace.body(d, r)
	left := func() time.Duration { return time.Until(d.read) }
	if left() < serverPace.stall/2 {
		t.Errorf("%v for the first bytes", left())
	}
	r.Body.(*pacedBody).start = time.Now().Add(-time.Hour) // it came slowly so far
	Hurry(r)
	if left() < hurriedPace.stall/2 || left() > hurriedPace.stall {
		t.Errorf("%v when it is hurried", left())
	}
	if _, err := r.Body.Read(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	r.Body.(*pacedBody).extend(time.Now().Add(time.Hour)) // and then it stands still
	if left() > hurriedPace.stall {
		t.Errorf("%v for what follows", left())
	}
	Hurry(httptest.NewRequest(http.MethodGet, "/", nil)) // which has no body to be hurried
}
