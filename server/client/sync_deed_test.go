package client

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
)

// act lets a random user do something in a random room. That the server refuses
// it is fine.
func (h *syncHouse) act() {
	user, other, room := h.someone(), h.someone(), h.rooms[h.random.IntN(len(h.rooms))]
	target := fmt.Sprintf(`{"user_id":%q}`, other.id)
	switch h.random.IntN(40) {
	case 0, 1, 2, 3:
		h.speak()
	case 4, 5:
		h.reply(user, room)
	case 6:
		h.react(user, room)
	case 7, 8:
		h.post(user, room, "invite", target)
	case 9, 10, 11, 12:
		h.join(user, room)
	case 13:
		h.post(user, room, "leave", "{}")
	case 14:
		h.post(user, room, []string{"kick", "ban"}[h.random.IntN(2)], target)
	case 15:
		h.post(user, room, "unban", target)
	case 16:
		h.server.do(http.MethodPost, "/_matrix/client/v3/knock/"+url.PathEscape(room), user.token, "{}")
	case 17:
		if h.post(user, room, "forget", "{}") {
			user.forgotten[room] = true
		}
	case 18:
		h.setState(user, room, "m.room.name", "", fmt.Sprintf(`{"name":%q}`, []string{"", "", "Kitchen", "Cellar"}[h.random.IntN(4)]))
	case 19:
		visibility := []string{"shared", "shared", "joined", "invited"}[h.random.IntN(4)]
		h.setState(user, room, "m.room.history_visibility", "", fmt.Sprintf(`{"history_visibility":%q}`, visibility))
	case 20:
		rule := []string{"public", "public", "invite", "knock", "knock"}[h.random.IntN(5)]
		h.setState(user, room, "m.room.join_rules", "", fmt.Sprintf(`{"join_rule":%q}`, rule))
	case 21, 22, 23:
		h.setTest(user, room)
	case 24:
		h.redact(user, room)
	case 25:
		h.put(user, "/_matrix/client/v3/profile/"+user.id+"/displayname", fmt.Sprintf(`{"displayname":"%s %d"}`, user.name, h.random.IntN(100)))
	case 26, 27, 28:
		h.readOn(user, room)
	case 29:
		h.ignore(user, other)
	case 30, 31:
		h.keepData(user, room)
	case 32:
		h.tag(user, room)
	case 33, 34:
		h.put(user, roomPath(room, "typing", user.id), fmt.Sprintf(`{"typing":%v}`, h.random.IntN(3) > 0))
	case 35, 36:
		h.sendToDevices(user)
	case 37:
		h.uploadKeys(user)
	case 38:
		h.put(user, "/_matrix/client/v3/presence/"+user.id+"/status", fmt.Sprintf(`{"presence":"online","status_msg":"%d"}`, h.random.IntN(100)))
	case 39:
		h.upgrade(user, room)
	}
}

// speak is what may happen while a client syncs: it takes nothing away from anybody.
func (h *syncHouse) speak() {
	user, room := h.someone(), h.rooms[h.random.IntN(len(h.rooms))]
	if h.random.IntN(3) == 0 {
		h.setTest(user, room)
		return
	}
	h.say(user, room)
}

func (h *syncHouse) someone() *syncUser { return h.users[h.random.IntN(len(h.users))] }

// send sends an event and returns its ID, "" if the server refuses it.
func (h *syncHouse) send(user *syncUser, path, body string) string {
	var answer struct {
		ID string `json:"event_id"`
	}
	w := h.server.do(http.MethodPut, path, user.token, body)
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code >= http.StatusInternalServerError {
		h.t.Fatalf("PUT %s: %d %s", path, w.Code, w.Body)
	}
	return answer.ID
}

func (h *syncHouse) nextTxn() string {
	h.txn++
	return fmt.Sprint(h.txn)
}

func (h *syncHouse) say(user *syncUser, room string) {
	body, url := `{"body":"hello"}`, h.random.IntN(3) == 0
	if url {
		body = `{"body":"look","url":"mxc://hearth.test/x"}`
	}
	if id := h.send(user, roomPath(room, "send", "m.room.message", h.nextTxn()), body); id != "" {
		h.events[room] = append(h.events[room], id)
		h.urls[id] = url
	}
}

// reply answers in a thread, which begins at some message.
func (h *syncHouse) reply(user *syncUser, room string) {
	events := h.events[room]
	if len(events) == 0 {
		return
	}
	root := events[h.random.IntN(len(events))]
	if roots := h.roots[room]; len(roots) > 0 && h.random.IntN(2) == 0 {
		root = roots[h.random.IntN(len(roots))]
	}
	body := fmt.Sprintf(`{"body":"answer","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, root)
	if id := h.send(user, roomPath(room, "send", "m.room.message", h.nextTxn()), body); id != "" {
		h.roots[room] = append(h.roots[room], root)
		h.children[root] = append(h.children[root], childModel{user.id, "m.thread", h.place(id)})
	}
}

func (h *syncHouse) react(user *syncUser, room string) {
	events := h.events[room]
	if len(events) == 0 {
		return
	}
	parent := events[h.random.IntN(len(events))]
	body := fmt.Sprintf(`{"m.relates_to":{"rel_type":"m.annotation","event_id":%q,"key":"%d"}}`, parent, h.random.IntN(100))
	if id := h.send(user, roomPath(room, "send", "m.reaction", h.nextTxn()), body); id != "" {
		h.children[parent] = append(h.children[parent], childModel{user.id, "m.annotation", h.place(id)})
	}
}

func (h *syncHouse) setState(user *syncUser, room, typ, key, content string) string {
	return h.send(user, roomPath(room, "state", typ, key), content)
}

func (h *syncHouse) setTest(user *syncUser, room string) {
	url := h.random.IntN(4) == 0
	content := fmt.Sprintf(`{"n":%d}`, h.random.IntN(1000))
	if url {
		content = fmt.Sprintf(`{"url":"%d"}`, h.random.IntN(1000))
	}
	if id := h.setState(user, room, "m.test", fmt.Sprint(h.random.IntN(3)), content); id != "" {
		h.urls[id] = url
	}
}

func (h *syncHouse) redact(user *syncUser, room string) {
	if events := h.events[room]; len(events) > 0 {
		event := events[h.random.IntN(len(events))]
		id := h.send(user, roomPath(room, "redact", event, h.nextTxn()), "{}")
		if id != "" && h.redacted[event] == 0 {
			h.redacted[event] = h.place(id)
		}
	}
}

// post sends a request about a room and says whether it was granted.
func (h *syncHouse) post(user *syncUser, room, deed, body string) bool {
	w := h.server.do(http.MethodPost, roomPath(room, deed), user.token, body)
	if w.Code >= http.StatusInternalServerError {
		h.t.Fatalf("%s: %d %s", deed, w.Code, w.Body)
	}
	return w.Code == http.StatusOK
}

// put sends a request and says whether it was granted.
func (h *syncHouse) put(user *syncUser, path, body string) bool {
	w := h.server.do(http.MethodPut, path, user.token, body)
	if w.Code >= http.StatusInternalServerError {
		h.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return w.Code == http.StatusOK
}

func (h *syncHouse) join(user *syncUser, room string) {
	was, _ := h.membership(room, user)
	if h.post(user, room, "join", "{}") && was != "join" {
		h.enter(user, room)
	}
}

// enter notes that a user is new in a room, to which he takes his tags for the room
// that it replaces, if that one says so still.
func (h *syncHouse) enter(user *syncUser, room string) {
	user.forgotten[room] = false
	old := h.replaced[room]
	if h.replacement[old] != room {
		return
	}
	if content := user.roomData[old]["m.tag"]; content != "" && user.roomData[room]["m.tag"] == "" {
		user.setRoomData(room, "m.tag", content)
		user.tags[room] = user.tags[old]
	}
}

// readOn sends a receipt for some message.
func (h *syncHouse) readOn(user *syncUser, room string) {
	events := h.events[room]
	if len(events) == 0 {
		return
	}
	event, thread := events[h.random.IntN(len(events))], ""
	body := "{}"
	if h.random.IntN(2) == 0 {
		thread, body = "main", `{"thread_id":"main"}`
	}
	typ := []string{"m.read", "m.read.private"}[h.random.IntN(2)]
	if w := h.server.do(http.MethodPost, roomPath(room, "receipt", typ, event), user.token, body); w.Code != http.StatusOK {
		return
	}
	if user.receipts[room] == nil {
		user.receipts[room], user.marks[room] = map[string][]string{}, map[string]string{}
	}
	user.receipts[room][thread] = append(user.receipts[room][thread], event)
	if name := typ + " " + user.id + " " + thread; h.place(event) > h.place(user.marks[room][name]) {
		user.marks[room][name] = event
	}
}

// ignore makes a user ignore another one, or nobody.
func (h *syncHouse) ignore(user, other *syncUser) {
	if !h.ignores || user == other {
		return
	}
	ignored := ignoredModel{user: other.id}
	if h.random.IntN(3) == 0 {
		ignored.user = ""
	}
	was := user.ignored
	user.ignored = append(user.ignored, ignored)
	if !h.putIgnored(user, user.ignoring()) {
		user.ignored = was
		return
	}
	user.ignored[len(was)].from = h.now()
}

func (h *syncHouse) putIgnored(user *syncUser, list string) bool {
	return h.put(user, "/_matrix/client/v3/user/"+user.id+"/account_data/m.ignored_user_list", `{"ignored_users":`+list+`}`)
}

// keepData sets account data of the user's own or about a room.
func (h *syncHouse) keepData(user *syncUser, room string) {
	typ, content := dataTypes[h.random.IntN(2)], fmt.Sprintf(`{"n":%d}`, h.random.IntN(1000))
	if h.random.IntN(2) == 0 {
		if h.put(user, "/_matrix/client/v3/user/"+user.id+"/account_data/"+typ, content) {
			user.data[typ] = content
		}
		return
	}
	path := "/_matrix/client/v3/user/" + user.id + "/rooms/" + url.PathEscape(room) + "/account_data/" + typ
	if h.put(user, path, content) {
		user.setRoomData(room, typ, content)
	}
}

func (u *syncUser) setRoomData(room, typ, content string) {
	if u.roomData[room] == nil {
		u.roomData[room] = map[string]string{}
	}
	u.roomData[room][typ] = content
}

// tag gives a room a tag or takes it away.
func (h *syncHouse) tag(user *syncUser, room string) {
	name := []string{"m.favourite", "u.work"}[h.random.IntN(2)]
	path := "/_matrix/client/v3/user/" + user.id + "/rooms/" + url.PathEscape(room) + "/tags/" + name
	tags := maps.Clone(user.tags[room])
	if tags == nil {
		tags = map[string]string{}
	}
	if h.random.IntN(3) == 0 {
		delete(tags, name)
		if w := h.server.do(http.MethodDelete, path, user.token, ""); w.Code != http.StatusOK {
			return
		}
	} else if tags[name] = fmt.Sprintf(`{"order":0.%d}`, 1+h.random.IntN(9)); !h.put(user, path, tags[name]) {
		return
	}
	user.tags[room] = tags
	content := ""
	for _, name := range []string{"m.favourite", "u.work"} {
		if tags[name] != "" {
			content += fmt.Sprintf(`,%q:%s`, name, tags[name])
		}
	}
	user.setRoomData(room, "m.tag", `{"tags":{`+content[min(1, len(content)):]+`}}`)
}

// sendToDevices sends a numbered message to one of a user's clients or to all.
func (h *syncHouse) sendToDevices(user *syncUser) {
	if len(h.models) == 0 {
		return
	}
	to := h.models[h.random.IntN(len(h.models))]
	device := to.device
	if h.random.IntN(2) == 0 {
		device = "*"
	}
	txn := h.nextTxn()
	body := fmt.Sprintf(`{"messages":{%q:{%q:{"n":%s}}}}`, to.user.id, device, txn)
	for range 1 + h.random.IntN(2) { // a request that is repeated sends nothing
		if !h.put(user, "/_matrix/client/v3/sendToDevice/m.test/"+txn, body) {
			h.t.Fatal("the message is refused")
		}
	}
	for _, c := range h.models {
		if c == to || device == "*" && c.user == to.user {
			h.sent[c.device] = append(h.sent[c.device], h.txn)
		}
	}
}

// uploadKeys changes the keys of a user's device.
func (h *syncHouse) uploadKeys(user *syncUser) {
	body := fmt.Sprintf(`{"device_keys":{"user_id":%q,"device_id":%q,"algorithms":["%s"],"keys":{}}}`, user.id, strings.ToUpper(user.name), h.nextTxn())
	w := h.server.do(http.MethodPost, "/_matrix/client/v3/keys/upload", user.token, body)
	if w.Code != http.StatusOK {
		h.t.Fatalf("upload keys: %d %s", w.Code, w.Body)
	}
	user.keysAt = h.now()
}

// upgrade replaces a room by a new one, if there are not many yet.
func (h *syncHouse) upgrade(user *syncUser, room string) {
	if len(h.rooms) >= 4 {
		return
	}
	var answer struct {
		Room string `json:"replacement_room"`
	}
	w := h.server.do(http.MethodPost, roomPath(room, "upgrade"), user.token, `{"new_version":"11"}`)
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code >= http.StatusInternalServerError {
		h.t.Fatalf("upgrade: %d %s", w.Code, w.Body)
	}
	if answer.Room != "" {
		h.rooms = append(h.rooms, answer.Room)
		h.replaced[answer.Room], h.replacement[room] = room, answer.Room
		h.enter(user, answer.Room)
	}
}
