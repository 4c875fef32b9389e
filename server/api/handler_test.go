package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"hearth/state"
	"hearth/state/auth"
	"hearth/state/matrix"
	"hearth/store"
)

// errorBody is a standard error response.
type errorBody struct {
	Code       string `json:"errcode"`
	Text       string `json:"error"`
	RetryAfter int64  `json:"retry_after_ms"`
	SoftLogout bool   `json:"soft_logout"`
}

func wantJSONError(t *testing.T, rec *httptest.ResponseRecorder) errorBody {
	t.Helper()
	if ct := rec.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type is %q", ct)
	}
	var body errorBody
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
		t.Fatalf("%q: %v", rec.Body, err)
	}
	if body.Code == "" || body.Text == "" {
		t.Errorf("errcode or error is missing in %q", rec.Body)
	}
	return body
}

// serve answers one request with a handler and returns the response and the log.
func serve(h HandlerFunc, r *http.Request) (*httptest.ResponseRecorder, string) {
	var logged bytes.Buffer
	rt, err := NewRouter(slog.New(slog.NewTextHandler(&logged, nil)), Route{"GET /", h}, Route{"POST /", h})
	if err != nil {
		panic(err)
	}
	rec := httptest.NewRecorder()
	rt.ServeHTTP(rec, r)
	return rec, logged.String()
}

func TestErrorsBecomeCodes(t *testing.T) {
	tests := []struct {
		err    error
		status int
		code   string
		logged bool
	}{
		{ErrForbidden, 403, "M_FORBIDDEN", false},
		{fmt.Errorf("send: %w", ErrForbidden.Because("no")), 403, "M_FORBIDDEN", false},
		{InvalidParam("roomID", errors.New("no sigil")), 400, "M_INVALID_PARAM", false},
		{MissingParam("type"), 400, "M_MISSING_PARAM", false},
		{ErrUnknownToken.SoftLogout(), 401, "M_UNKNOWN_TOKEN", false},
		{ErrNotYetUploaded, 504, "M_NOT_YET_UPLOADED", false},
		{fmt.Errorf("send: %w", &auth.Error{Text: "you are banned"}), 403, "M_FORBIDDEN", false},
		{fmt.Errorf("send: %w", &auth.Error{Reason: auth.PowerListsCreator, Text: "a creator"}), 400, "M_BAD_JSON", false},
		{fmt.Errorf("join: %w", &state.Refusal{Kind: state.ErrUnknownRoom, Text: "no"}), 404, "M_NOT_FOUND", false},
		{fmt.Errorf("unban: %w", &state.Refusal{Kind: state.ErrBadState, Text: "no"}), 403, "M_BAD_STATE", false},
		{fmt.Errorf("room: %w", matrix.ErrBadID), 400, "M_INVALID_PARAM", false},
		{fmt.Errorf("event: %w", matrix.ErrTooLarge), 413, "M_TOO_LARGE", false},
		{fmt.Errorf("event: %w", matrix.ErrBadJSON), 400, "M_BAD_JSON", false},
		{fmt.Errorf("event: %w", matrix.ErrNotJSON), 400, "M_NOT_JSON", false},
		{fmt.Errorf("room: %w", store.ErrNotFound), 404, "M_NOT_FOUND", false},
		{fmt.Errorf("alias: %w", store.ErrExists), 409, "M_UNKNOWN", false},
		{fmt.Errorf("commit: %w", store.ErrFull), 403, "M_RESOURCE_LIMIT_EXCEEDED", false},
		{fmt.Errorf("write: %w", syscall.ENOSPC), 403, "M_RESOURCE_LIMIT_EXCEEDED", false},
		{fmt.Errorf("read: %w", &http.MaxBytesError{Limit: 3}), 413, "M_TOO_LARGE", false},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), 504, "M_UNKNOWN", true},
		{fmt.Errorf("wait: %w", context.Canceled), 503, "M_UNKNOWN", false},
		{errors.New("the secret is swordfish"), 500, "M_UNKNOWN", true},
	}
	for _, tt := range tests {
		t.Run(tt.err.Error(), func(t *testing.T) {
			rec, logged := serve(func(http.ResponseWriter, *http.Request) error { return tt.err },
				httptest.NewRequest("GET", "/?access_token=swordfish", nil))
			body := wantJSONError(t, rec)
			if rec.Code != tt.status || body.Code != tt.code {
				t.Errorf("got %d %s, want %d %s", rec.Code, body.Code, tt.status, tt.code)
			}
			if (logged != "") != tt.logged {
				t.Errorf("log: %q", logged)
			}
			if strings.Contains(rec.Body.String(), "swordfish") || strings.Contains(logged, "access_token") {
				t.Errorf("a secret left: %s %s", rec.Body, logged)
			}
		})
	}
}

func TestErrorValues(t *testing.T) {
	err := fmt.Errorf("x: %w", ErrUnknownToken.Because("gone %d", 1).SoftLogout())
	if !errors.Is(err, ErrUnknownToken) || errors.Is(err, ErrForbidden) {
		t.Error("errors.Is goes by the code")
	}
	if ErrUnknownToken.Text == "gone 1" || len(ErrUnknownToken.fields) != 0 {
		t.Error("a copy changed the original")
	}
	a := ErrIncompatibleRoomVersion.With("room_version", "13")
	b, c := a.With("x", 1), a.With("x", 2)
	got, _ := b.marshal()
	if want := `{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","error":"The room's version is not supported","room_version":"13","x":1}`; string(got) != want {
		t.Errorf("got %s", got)
	}
	if bytes.Equal(got, must(c.marshal())) {
		t.Error("two copies share their fields")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// 429 has the header in whole seconds, rounded up, and the old body key.
func TestTryAfter(t *testing.T) {
	rec, _ := serve(func(http.ResponseWriter, *http.Request) error { return TryAfter(1200 * time.Millisecond) },
		httptest.NewRequest("GET", "/", nil))
	body := wantJSONError(t, rec)
	if rec.Code != 429 || rec.Header().Get("Retry-After") != "2" || body.RetryAfter != 1200 {
		t.Errorf("%d %v %+v", rec.Code, rec.Header(), body)
	}
}

func TestPanicBecomes500(t *testing.T) {
	rec, logged := serve(func(http.ResponseWriter, *http.Request) error { panic("swordfish") },
		httptest.NewRequest("GET", "/", nil))
	body := wantJSONError(t, rec)
	if rec.Code != 500 || body.Code != "M_UNKNOWN" || strings.Contains(rec.Body.String(), "swordfish") {
		t.Errorf("%d %+v", rec.Code, body)
	}
	if !strings.Contains(logged, "stack=") || strings.Count(logged, "\n") != 1 {
		t.Errorf("log: %q", logged)
	}
}

// An error after the first byte must not look like a whole answer.
func TestErrorInTheMiddleBreaksTheAnswer(t *testing.T) {
	rt := newTestRouter(t, Route{"GET /", func(w http.ResponseWriter, r *http.Request) error {
		io.WriteString(w, "{")
		return errors.New("lost")
	}})
	srv := httptest.NewServer(rt)
	defer srv.Close()
	res, err := http.Get(srv.URL)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("the client saw nothing wrong")
	}
}

// A value that cannot be encoded is an error response, not half an object.
func TestUnencodableValue(t *testing.T) {
	rec, _ := serve(func(w http.ResponseWriter, _ *http.Request) error {
		return WriteJSON(w, map[string]any{"a": func() {}})
	}, httptest.NewRequest("GET", "/", nil))
	if body := wantJSONError(t, rec); rec.Code != 500 || body.Code != "M_UNKNOWN" {
		t.Errorf("%d %+v", rec.Code, body)
	}
}
