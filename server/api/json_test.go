package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

type sample struct {
	Name  string         `json:"name"`
	Count int64          `json:"count"`
	Raw   jsontext.Value `json:"raw"`
}

func TestReadJSON(t *testing.T) {
	tests := []struct {
		body     string
		json     *Error // what ReadJSON into a sample gives
		optional *Error // what ReadOptionalJSON gives
		object   *Error // what ReadObject gives
	}{
		{`{}`, nil, nil, nil},
		{" {\"name\":\"x\",\"count\":3,\"raw\":[1],\"other\":null}\n", nil, nil, nil},
		{`{"name":null}`, nil, nil, nil},
		{``, ErrNotJSON, nil, ErrNotJSON},
		{` `, ErrNotJSON, nil, ErrNotJSON},
		{`{`, ErrNotJSON, ErrNotJSON, ErrNotJSON},
		{`{"name":1`, ErrNotJSON, ErrNotJSON, ErrNotJSON},
		{`{} {}`, ErrNotJSON, ErrNotJSON, ErrNotJSON},
		{`{}x`, ErrNotJSON, ErrNotJSON, ErrNotJSON},
		{"{\"name\":\"\xff\"}", ErrNotJSON, ErrNotJSON, ErrNotJSON},
		{`{"name":"\ud800"}`, ErrNotJSON, ErrNotJSON, ErrNotJSON},
		{`{'name':1}`, ErrNotJSON, ErrNotJSON, ErrNotJSON},
		{`NaN`, ErrNotJSON, ErrNotJSON, ErrNotJSON},
		{`{"a":1,"a":2}`, ErrBadJSON, ErrBadJSON, ErrBadJSON},
		{`{"name":1}`, ErrBadJSON, ErrBadJSON, nil},
		{`{"count":"1"}`, ErrBadJSON, ErrBadJSON, nil},
		{`{"count":1.5}`, ErrBadJSON, ErrBadJSON, nil},
		{`{"count":1e30}`, ErrBadJSON, ErrBadJSON, nil},
		{`[]`, ErrBadJSON, ErrBadJSON, ErrBadJSON},
		{`"x"`, ErrBadJSON, ErrBadJSON, ErrBadJSON},
		{`{"name":"` + strings.Repeat("x", 200) + `"}`, ErrTooLarge, ErrTooLarge, ErrTooLarge},
		{strings.Repeat("[", 99), ErrNotJSON, ErrNotJSON, ErrNotJSON},
	}
	for _, tt := range tests {
		t.Run(tt.body[:min(len(tt.body), 30)], func(t *testing.T) {
			var v sample
			check := func(what string, err error, want *Error) {
				t.Helper()
				if want == nil && err != nil || want != nil && !errors.Is(err, want) {
					t.Errorf("%s: got %v, want %v", what, err, want)
				}
			}
			for _, chunked := range []bool{false, true} {
				check("ReadJSON", ReadJSON(request(tt.body, chunked), 100, &v), tt.json)
				check("ReadOptionalJSON", ReadOptionalJSON(request(tt.body, chunked), 100, &v), tt.optional)
				got, err := ReadObject(request(tt.body, chunked), 100)
				check("ReadObject", err, tt.object)
				if err == nil && string(got) != strings.TrimSpace(tt.body) {
					t.Errorf("ReadObject returned %q", got)
				}
			}
		})
	}
}

// request returns a POST of body, with or without a Content-Length.
func request(body string, chunked bool) *http.Request {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	if chunked {
		r.ContentLength = -1
	}
	return r
}

// A client that announces much and sends little costs little.
func TestAnnouncedLengthIsNotBelieved(t *testing.T) {
	r := httptest.NewRequest("POST", "/", strings.NewReader("{}"))
	r.ContentLength = 50 << 20
	got := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			r.Body = io.NopCloser(strings.NewReader("{}"))
			if _, err := ReadObject(r, 50<<20); err != nil {
				b.Fatal(err)
			}
		}
	})
	if per := got.AllocedBytesPerOp(); per > 1<<20 {
		t.Errorf("%d bytes for an empty object", per)
	}
}

func TestWriteJSON(t *testing.T) {
	rec := httptest.NewRecorder()
	value := struct {
		List []string       `json:"list"`
		Raw  jsontext.Value `json:"raw"`
		Bad  string         `json:"bad"`
		HTML string         `json:"html"`
	}{Raw: jsontext.Value(`{"a":1,"a":2}`), Bad: "\xff", HTML: "<&>"}
	if err := WriteJSONStatus(rec, 201, value); err != nil {
		t.Fatal(err)
	}
	want := `{"list":[],"raw":{"a":1,"a":2},"bad":"` + "\ufffd" + `","html":"<&>"}`
	if got := strings.TrimSpace(rec.Body.String()); got != want || rec.Code != 201 {
		t.Errorf("got %d %s", rec.Code, got)
	}
	rec = httptest.NewRecorder()
	if err := WriteEmpty(rec); err != nil || !bytes.Equal(rec.Body.Bytes(), []byte("{}")) {
		t.Errorf("WriteEmpty: %v %s", err, rec.Body)
	}
}

// No body makes ReadJSON or ReadObject panic or fail with a 5xx.
func FuzzReadBody(f *testing.F) {
	for _, s := range []string{`{}`, `{"name":1}`, `[`, `{"raw":{"a":1,"a":2}}`, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var v sample
		err := ReadJSON(request(string(body), false), 1000, &v)
		if err != nil && AsError(err).Status >= 500 {
			t.Errorf("ReadJSON: %v", err)
		}
		if _, err := ReadObject(request(string(body), false), 1000); err != nil && AsError(err).Status >= 500 {
			t.Errorf("ReadObject: %v", err)
		}
	})
}
