package client

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"hearth/server/api"
	"hearth/server/remote"
	"hearth/state"
)

// What a policy server says instead of signing is for the client as it is, but for what
// is a fault of that server, or would end the client's session with us.
func TestPolicyAnswerIsPassedOn(t *testing.T) {
	for _, tt := range []struct {
		status       int
		code, more   string
		want         int
		wantCode     string
		wantVerbatim bool
	}{
		{400, "M_FORBIDDEN", "", 400, "M_FORBIDDEN", true},
		{403, "M_FORBIDDEN", "", 403, "M_FORBIDDEN", true},
		{429, "M_LIMIT_EXCEEDED", `,"retry_after_ms":5000`, 429, "M_LIMIT_EXCEEDED", true},
		{400, "ORG.EXAMPLE_SPAM", "", 502, "M_UNKNOWN", false},
		{500, "M_UNKNOWN", "", 502, "M_UNKNOWN", false},
		{404, "M_UNRECOGNIZED", "", 502, "M_UNKNOWN", false},
		{400, "M_UNRECOGNIZED", "", 502, "M_UNKNOWN", false},
		{401, "M_UNKNOWN_TOKEN", `,"soft_logout":true`, 502, "M_UNKNOWN", false},
		{403, "M_USER_DEACTIVATED", "", 502, "M_UNKNOWN", false},
	} {
		answer := &remote.Error{Server: "policy.test", Status: tt.status, Code: tt.code, Text: "No spam",
			Answer: fmt.Appendf(nil, `{"errcode":%q,"error":"No spam"%s}`, tt.code, tt.more)}
		var told *api.Error
		if !errors.As(remoteError(fmt.Errorf("%w: %w", state.ErrPolicyAnswer, answer)), &told) {
			t.Fatalf("%d %s: no error", tt.status, tt.code)
		}
		if told.Status != tt.want || told.Code != tt.wantCode || (told.Text == "No spam") != tt.wantVerbatim {
			t.Errorf("%d %s: %d %s %s", tt.status, tt.code, told.Status, told.Code, told.Text)
		}
		w := httptest.NewRecorder()
		if api.WriteError(w, told); tt.wantVerbatim && !strings.Contains(w.Body.String(), tt.more) {
			t.Errorf("%d %s: %s", tt.status, tt.code, w.Body)
		}
	}
}
