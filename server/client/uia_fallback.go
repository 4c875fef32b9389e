package client

import (
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"

	"hearth/server/api"
)

// The fallback pages of user-interactive authentication: for each stage a page on
// which a person can complete it with a browser.
//
// Spec: CS Fallback.

// fallbackForms are what the page of each stage asks for.
var fallbackForms = map[string]string{
	stagePassword: `<p><label>User name <input name="user" autocomplete="username" required></label></p>
<p><label>Password <input name="password" type="password" autocomplete="current-password" required></label></p>`,
	stageRegistrationToken: `<p><label>Registration token <input name="token" autocomplete="off" required></label></p>`,
	stageDummy:             `<p>There is nothing to fill in here.</p>`,
}

const fallbackPage = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Authentication</title>
</head>
<body>
<h1>Authentication</h1>
%s
</body>
</html>
`

// fallbackDone tells the client that the stage is complete, in the words of the
// specification.
const fallbackDone = `<p>Thank you. You can close this window and go back to your client.</p>
<script>
if (window.onAuthDone) {
    window.onAuthDone();
} else if (window.opener && window.opener.postMessage) {
    window.opener.postMessage("authDone", "*");
}
</script>`

// getFallbackPage answers GET /auth/{type}/fallback/web.
func (s *Server) getFallbackPage(w http.ResponseWriter, r *http.Request, _ session) error {
	st, err := s.fallbackSession(r)
	if err != nil {
		return err
	}
	return writeFallbackForm(w, r.PathValue("type"), st.id, "")
}

// submitFallbackPage answers POST /auth/{type}/fallback/web: a form filled in.
func (s *Server) submitFallbackPage(w http.ResponseWriter, r *http.Request, _ session) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxLoginBytes)
	if err := r.ParseForm(); err != nil {
		return api.BodyError(err)
	}
	st, err := s.fallbackSession(r)
	if err != nil {
		return err
	}
	who, err := s.sessionOf(st)
	if err != nil {
		return err
	}
	auth := &authData{
		Type: r.PathValue("type"), User: r.PostForm.Get("user"),
		Password: r.PostForm.Get("password"), Token: r.PostForm.Get("token"),
		house: api.HouseKey(api.ClientIP(r)),
	}
	if auth.Type == stageRegistrationToken {
		if err := s.limits.TakeIP(api.LimitTokenCheck, api.ClientIP(r)); err != nil {
			return err
		}
	}
	err = s.tryStage(r.Context(), st, who, auth)
	var refused *challenge
	switch {
	case errors.As(err, &refused):
		return writeFallbackForm(w, auth.Type, st.id, refused.Text)
	case err == errOtherUser:
		return writeFallbackForm(w, auth.Type, st.id, errOtherUser.Text)
	case err != nil:
		return err
	}
	return writePage(w, fallbackDone)
}

// fallbackSession returns the session of a fallback page, M_NOT_FOUND where there
// is none that offers the stage. A stranger's session takes no password on a page:
// whoever began it could send a link to it to a user of this server, who would see
// the right address, and confirm with their password a deed that the stranger chose.
func (s *Server) fallbackSession(r *http.Request) (*stageSession, error) {
	st := s.stages.get(r.URL.Query().Get("session"), s.now())
	if st == nil || !offers(st.flows, r.PathValue("type")) {
		return nil, api.ErrNotFound.Because("This session has expired: begin again in your client")
	}
	if st.request.user == 0 && r.PathValue("type") == stagePassword {
		return nil, api.ErrNotFound.Because("Give your password in your client, or log in first")
	}
	return st, nil
}

func writeFallbackForm(w http.ResponseWriter, stage, session, fault string) error {
	var page strings.Builder
	if fault != "" {
		fmt.Fprintf(&page, "<p role=\"alert\"><strong>%s</strong></p>\n", html.EscapeString(fault))
	}
	fmt.Fprintf(&page, "<form method=\"post\" action=\"?session=%s\">\n%s\n<p><button>Continue</button></p>\n</form>",
		html.EscapeString(session), fallbackForms[stage])
	return writePage(w, page.String())
}

// writePage writes a page that loads nothing from anywhere.
func writePage(w http.ResponseWriter, body string) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; form-action 'self'; base-uri 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	_, err := io.WriteString(w, fmt.Sprintf(fallbackPage, body))
	return err
}
