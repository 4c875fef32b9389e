package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"hearth/server/api"
	"hearth/state/matrix"
	"hearth/store"
)

// Reports of content reach the administrators as server notices, which keeps them
// as safe as any message; the log says that there was one. Whether the room or the
// user that is reported exists is told to nobody.
//
// Spec: CS Reporting Content.

// maxReason bounds the words of a report, in bytes.
const maxReason = 4 << 10

// reportEvent answers POST /rooms/{roomID}/report/{eventID}.
//
// "When processing event reports, servers MUST verify that the reporting user is
// currently joined to the room the event is in before accepting a report."
func (s *Server) reportEvent(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	event, err := pathEvent(r)
	if err != nil {
		return err
	}
	reason, err := s.readReport(r, who, false)
	if err != nil {
		return err
	}
	var sender matrix.UserID
	err = s.store.View(func(tx *store.Tx) error {
		member, _, err := tx.LocalMembership(who.num, tx.RoomNum(room))
		if err != nil {
			return err
		}
		if member.Membership != matrix.Join {
			return errNoEvent
		}
		ev, _, err := s.visibleEvent(tx, room, event, who)
		if err == nil {
			sender = ev.Sender
		}
		return err
	})
	if err != nil {
		return err
	}
	s.log.Warn("an event was reported", "room", room, "event", event, "user", who.user)
	return s.report(w, r, who, reason,
		fmt.Sprintf("the event %s of %s in the room %s\nhttps://matrix.to/#/%s/%s", event, sender, room, room, event))
}

// reportRoom answers POST /rooms/{roomID}/report, whether the user is in the room
// or not.
func (s *Server) reportRoom(w http.ResponseWriter, r *http.Request, who session) error {
	room, err := pathRoom(r)
	if err != nil {
		return err
	}
	reason, err := s.readReport(r, who, true)
	if err != nil {
		return err
	}
	s.log.Warn("a room was reported", "room", room, "user", who.user)
	return s.report(w, r, who, reason, fmt.Sprintf("the room %s\nhttps://matrix.to/#/%s", room, room))
}

// reportUser answers POST /users/{userID}/report.
func (s *Server) reportUser(w http.ResponseWriter, r *http.Request, who session) error {
	user, err := matrix.ParseUserID(r.PathValue("userID"))
	if err != nil {
		return api.InvalidParam("userId", err)
	}
	reason, err := s.readReport(r, who, true)
	if err != nil {
		return err
	}
	s.log.Warn("a user was reported", "reported", user, "user", who.user)
	return s.report(w, r, who, reason, fmt.Sprintf("the user %s\nhttps://matrix.to/#/%s", user, user))
}

// readReport counts a report and reads its reason.
func (s *Server) readReport(r *http.Request, who session, required bool) (string, error) {
	if err := s.limits.Take(api.LimitReport, string(who.user)); err != nil {
		return "", err
	}
	var body struct {
		Reason *string `json:"reason"`
	}
	if err := api.ReadJSON(r, maxSmallBody, &body); err != nil {
		return "", err
	}
	switch {
	case body.Reason == nil && required:
		return "", api.MissingParam("reason")
	case body.Reason == nil:
		return "", nil
	case len(*body.Reason) > maxReason:
		return "", api.ErrTooLarge.Because("reason may have %d bytes at most", maxReason)
	}
	return *body.Reason, nil
}

// report tells the administrators what was reported. It answers well once one of
// them has been told, or where there is nobody to tell.
func (s *Server) report(w http.ResponseWriter, r *http.Request, who session, reason, what string) error {
	text := fmt.Sprintf("%s has reported %s", who.user, what)
	if reason != "" {
		text += "\nThe reason that they give:\n> " + strings.ReplaceAll(strings.TrimSpace(reason), "\n", "\n> ")
	}
	if err := s.notifyAdministrators(context.WithoutCancel(r.Context()), text); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return api.WriteEmpty(w)
}

// notifyAdministrators sends a notice to each administrator. The error is nil where
// one of them at least gets it, or where there are none.
func (s *Server) notifyAdministrators(ctx context.Context, text string) error {
	n, err := textNotice(text)
	if err != nil {
		return err
	}
	all, err := s.administrators()
	if err != nil || len(all) == 0 {
		return err
	}
	told := 0
	for _, user := range all {
		_, sendErr := s.notify(ctx, user, n)
		switch {
		case sendErr == nil:
			told++
		case api.AsError(sendErr).Is(api.ErrInviteBlocked):
			s.log.Warn("an administrator accepts no invites and gets no server notices", "user", user)
			told++ // as they wish; the log has the report
		default:
			err = errors.Join(err, fmt.Errorf("notice to %s: %w", user, sendErr))
		}
	}
	if told > 0 && err != nil {
		s.log.Error("tell an administrator of a report", "err", err)
		return nil
	}
	return err
}
