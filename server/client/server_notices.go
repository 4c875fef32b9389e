package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/server/api"
	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// Server notices: what the server has to say to a user stands in a room of its own
// with them, whose other member is an account that belongs to the server.
//
// Spec: CS Server Notices. "Servers should manage exactly 1 server notices room
// per user": the room whose creator is the server's account and whose member, or
// once a member, is the user. Nothing else says which it is.

// noticesLocalpart is the name of the server's own account, which tools know from
// other servers. Nobody can register it.
const noticesLocalpart = "_server"

// noticesTag marks the room for clients.
const noticesTag = "m.server_notice"

// noticesPower lets the server alone speak in the room.
const noticesPower = `{"events_default": 50, "state_default": 100, "invite": 100, "redact": 100}`

// serverNotices is what sending notices needs beside the store.
type serverNotices struct {
	mu sync.Mutex // held while a room is looked for and made: each user gets one
}

// notice is an event for a user's notices room.
type notice struct {
	typ      string
	stateKey *string
	content  jsontext.Value
	txn      store.TxnID
}

// textNotice is a notice that every client can show.
func textNotice(text string) (notice, error) {
	content, err := encodeJSON(map[string]string{"msgtype": "m.text", "body": text})
	return notice{typ: "m.room.message", content: content}, err
}

// NoticesUser is the server's own account, which speaks to users in their notices
// rooms. Nobody else can have the name, or log in to the account.
func (s *Server) NoticesUser() matrix.UserID {
	return matrix.UserID("@" + noticesLocalpart + ":" + string(s.store.Server()))
}

// notify sends a notice to a local user and returns its event's ID. Where the user
// has left the notices room, they are invited again. A transaction that has been
// used before returns the event it made.
func (s *Server) notify(ctx context.Context, to matrix.UserID, n notice) (matrix.EventID, error) {
	room, err := s.noticesRoom(ctx, to)
	if err != nil {
		return "", fmt.Errorf("notices room of %s: %w", to, err)
	}
	known, standing, err := s.noticeStanding(room, to, n.txn)
	if known != "" || err != nil {
		return known, err
	}
	if standing != matrix.Join && standing != matrix.Invite {
		invite := state.MembershipChange{Room: room, Sender: s.NoticesUser(), Target: to, Membership: matrix.Invite}
		if _, err := s.rooms.ChangeMembership(ctx, invite); err != nil {
			return "", fmt.Errorf("invite %s to the notices room: %w", to, err)
		}
	}
	if err := s.tagNotices(ctx, room, to); err != nil {
		return "", fmt.Errorf("tag the notices room of %s: %w", to, err)
	}
	return s.rooms.Send(ctx, n.txn, matrix.Draft{
		Room: room, Sender: s.NoticesUser(), Type: n.typ, StateKey: n.stateKey, Content: n.content,
	})
}

// noticeStanding returns what a transaction has made already, if anything, and what
// the room is to the user.
func (s *Server) noticeStanding(id matrix.RoomID, to matrix.UserID, txn store.TxnID) (known matrix.EventID, standing matrix.Membership, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		room := tx.RoomNum(id)
		member, _, err := tx.LocalMembership(tx.UserNum(to), room)
		if standing = member.Membership; txn.ID == "" || err != nil {
			return err
		}
		num, made, err := tx.TxnEvent(room, txn)
		if made && err == nil {
			known, err = tx.EventID(room, num)
		}
		return err
	})
	return known, standing, err
}

// noticesRoom finds the notices room of a user, or makes it.
func (s *Server) noticesRoom(ctx context.Context, to matrix.UserID) (matrix.RoomID, error) {
	s.notices.mu.Lock()
	defer s.notices.mu.Unlock()
	if err := s.ensureNoticesUser(ctx); err != nil {
		return "", err
	}
	var found matrix.RoomID
	err := s.store.View(func(tx *store.Tx) error {
		return tx.LocalMemberships(tx.UserNum(s.NoticesUser()), func(m store.LocalMembership) (bool, error) {
			if m.Membership != matrix.Join {
				return true, nil
			}
			_, theirs, err := tx.LocalMembership(tx.UserNum(to), m.Room)
			if theirs && err == nil {
				found = tx.RoomID(m.Room)
			}
			return found == "", err
		})
	})
	if err != nil || found != "" {
		return found, err
	}
	return s.rooms.Create(ctx, state.Creation{
		Creator: s.NoticesUser(), Preset: state.PresetPrivate, PowerOverride: jsontext.Value(noticesPower),
		Name: "Server notices", Topic: "What " + string(s.store.Server()) + " has to tell you",
		Invite: []matrix.UserID{to},
	})
}

// ensureNoticesUser makes the server's account where there is none yet.
func (s *Server) ensureNoticesUser(ctx context.Context) error {
	id := s.NoticesUser()
	var account store.Account
	look := func(tx *store.Tx) (err error) {
		account, err = tx.Account(tx.UserNum(id))
		return err
	}
	err := s.store.View(look)
	if errors.Is(err, store.ErrNotFound) {
		err = s.store.Update(ctx, func(tx *store.Tx) error {
			num, err := tx.CreateOpenAccount(id, store.Account{Created: s.now(), Service: true})
			if err != nil {
				return err
			}
			account.Service = true
			return tx.PutProfileField(num, fieldDisplayName, quote("Server notices"))
		})
	}
	if err == nil && !account.Service {
		err = errors.New("somebody has the name of the server's account")
	}
	return err
}

// tagNotices gives the notices room its tag, if it has lost it.
func (s *Server) tagNotices(ctx context.Context, id matrix.RoomID, to matrix.UserID) error {
	missing := func(tx *store.Tx) (who session, room store.RoomNum, t tags, err error) {
		who, room = session{num: tx.UserNum(to)}, tx.RoomNum(id)
		if t, err = readTags(tx, who, room); t.Tags[noticesTag] != nil {
			room = 0
		}
		return who, room, t, err
	}
	var done bool
	err := s.store.View(func(tx *store.Tx) error {
		_, room, _, err := missing(tx)
		done = room == 0
		return err
	})
	if done || err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx *store.Tx) error {
		who, room, t, err := missing(tx)
		if room == 0 || err != nil {
			return err
		}
		t.Tags[noticesTag] = jsontext.Value("{}")
		content, err := encodeJSON(t)
		if err != nil {
			return err
		}
		return tx.PutAccountData(who.num, store.AccountData{Room: room, Type: tagType, Content: content})
	})
}

// refuseRejection returns M_CANNOT_LEAVE_SERVER_NOTICE_ROOM to who would reject the
// invite to their notices room. Who has joined it may leave.
func (s *Server) refuseRejection(id matrix.RoomID, who session) error {
	return s.store.View(func(tx *store.Tx) error {
		member, _, err := tx.LocalMembership(who.num, tx.RoomNum(id))
		if err != nil || member.Membership != matrix.Invite {
			return err
		}
		if notices, err := s.isNoticesRoom(tx, id); !notices || err != nil {
			return err
		}
		return api.ErrCannotLeaveServerNoticeRoom.Because("The invite to the server notices cannot be rejected; you can leave once you have joined")
	})
}

// isNoticesRoom says whether a room is one that this server made for its notices.
func (s *Server) isNoticesRoom(tx *store.Tx, id matrix.RoomID) (bool, error) {
	create, err := state.Current(tx, id, "m.room.create", "")
	if errors.Is(err, state.ErrUnknownRoom) {
		return false, nil
	}
	return create != nil && create.Sender == s.NoticesUser(), err
}

// administrators returns those who hear of what needs a person, the owner first.
func (s *Server) administrators() (all []matrix.UserID, err error) {
	err = s.store.View(func(tx *store.Tx) error {
		owner := tx.Owner()
		return tx.Accounts(func(num store.UserNum, a store.Account) (bool, error) {
			switch {
			case !a.Admin || a.Deactivated:
			case num == owner:
				all = slices.Insert(all, 0, tx.UserID(num))
			default:
				all = append(all, tx.UserID(num))
			}
			return true, nil
		})
	})
	return all, err
}

// sendServerNoticeRequest is what tools send to have a notice sent.
type sendServerNoticeRequest struct {
	UserID   string         `json:"user_id"`
	Content  jsontext.Value `json:"content"`
	Type     string         `json:"type"`
	StateKey *string        `json:"state_key"`
}

// sendServerNotice answers POST /_synapse/admin/v1/send_server_notice, and PUT with
// a transaction ID: under the path and in the form that Synapse gave it, as tools
// use it.
func (s *Server) sendServerNotice(w http.ResponseWriter, r *http.Request, who session) error {
	if !who.admin {
		return errNoAdmin
	}
	var req sendServerNoticeRequest
	if err := api.ReadJSON(r, matrix.MaxEventBytes, &req); err != nil {
		return err
	}
	to, err := matrix.ParseUserID(req.UserID)
	switch {
	case err != nil:
		return api.InvalidParam("user_id", err)
	case to.Server() != s.store.Server():
		return api.ErrInvalidParam.Because("Notices can be sent to users of this server only")
	case to == s.NoticesUser():
		return api.ErrInvalidParam.Because("That is the account of the server itself")
	case req.Content.Kind() != '{':
		return api.MissingParam("content")
	}
	n := notice{typ: req.Type, stateKey: req.StateKey, content: req.Content}
	if n.typ == "" {
		n.typ = "m.room.message"
	}
	if r.PathValue("txnID") != "" {
		if n.txn, err = pathTxn(r, who, "send_server_notice", string(to)); err != nil {
			return err
		}
	}
	err = s.store.View(func(tx *store.Tx) error {
		_, err := livingAccount(tx, tx.UserNum(to))
		return err
	})
	if err != nil {
		return err
	}
	id, err := s.notify(r.Context(), to, n)
	if err != nil {
		return err
	}
	return api.WriteJSON(w, eventID{id})
}
