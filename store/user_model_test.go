package store

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"hearth/state/matrix"
)

// userModel is a store beside plain maps that say what local users should find
// in it: account data, receipts, unread events and memberships.
type userModel struct {
	*testing.T
	dir     string
	store   *Store
	random  *rand.Rand
	users   []UserNum
	rooms   []*testRoom
	events  map[RoomNum][]EventNum
	data    map[accountDataName]AccountData
	reads   map[receiptName]Receipt
	unread  map[[2]uint32]Unread
	members map[[2]uint32]LocalMembership
}

type accountDataName struct {
	user UserNum
	room RoomNum
	typ  string
}

type receiptName struct {
	room        RoomNum
	user        UserNum
	typ, thread string
}

// What a random session of writes, with the store closed and opened again in
// between, leaves behind is what plain maps say.
func TestUserDataAgainstMaps(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newUserModel(t, seed)
			for range 25 {
				update(t, m.store, func(tx *Tx) error {
					for range 1 + m.random.IntN(8) {
						if err := m.step(tx); err != nil {
							return err
						}
					}
					return nil
				})
				if m.random.IntN(6) == 0 {
					closeStore(t, m.store)
					m.store = openDir(t, m.dir)
				}
				view(t, m.store, m.compare)
			}
			checkStore(t, m.store)
			closeStore(t, m.store)
		})
	}
}

func newUserModel(t *testing.T, seed uint64) *userModel {
	m := &userModel{
		T: t, dir: t.TempDir(), random: rand.New(rand.NewPCG(seed, 7)),
		events: map[RoomNum][]EventNum{}, data: map[accountDataName]AccountData{}, reads: map[receiptName]Receipt{},
		unread: map[[2]uint32]Unread{}, members: map[[2]uint32]LocalMembership{},
	}
	m.store = openDir(t, m.dir)
	for range 2 {
		m.rooms = append(m.rooms, putTestRoom(t, m.store, "12", alice, bob))
	}
	view(t, m.store, func(tx *Tx) error {
		m.users = []UserNum{tx.UserNum(alice), tx.UserNum(bob)}
		for _, room := range m.rooms {
			for _, user := range m.users {
				member, _, err := tx.LocalMembership(user, room.num)
				if err != nil {
					return err
				}
				m.members[pairOf(user, room.num)] = member
			}
		}
		return nil
	})
	return m
}

func pairOf(user UserNum, room RoomNum) [2]uint32 { return [2]uint32{uint32(user), uint32(room)} }

func pick[T any](m *userModel, list ...T) T { return list[m.random.IntN(len(list))] }

// step makes one random change in the store and in the maps.
func (m *userModel) step(tx *Tx) error {
	user, room := pick(m, m.users...), pick(m, m.rooms...)
	switch m.random.IntN(7) {
	case 0, 1:
		return m.putData(tx, user, pick(m, 0, m.rooms[0].num, m.rooms[1].num))
	case 2:
		num, err := room.send(tx, tx.UserID(user), `{"body":"x"}`, TxnID{})
		m.events[room.num] = append(m.events[room.num], num)
		return err
	case 3:
		return m.putReceipt(tx, user, room.num)
	case 4:
		return m.putUnread(tx, user, room.num)
	case 5:
		return m.putMember(tx, user, room)
	}
	return m.forget(tx, user, room.num)
}

func (m *userModel) putData(tx *Tx, user UserNum, room RoomNum) error {
	d := AccountData{Room: room, Type: pick(m, "m.a", "m.ab", "m.b\x01"), Content: fmt.Appendf(nil, `{"n":%d}`, m.random.IntN(1000))}
	if err := tx.PutAccountData(user, d); err != nil {
		return err
	}
	d.Position = tx.Position()
	m.data[accountDataName{user, room, d.Type}] = d
	return nil
}

func (m *userModel) putReceipt(tx *Tx, user UserNum, room RoomNum) error {
	r := Receipt{User: user, Type: pick(m, ReceiptRead, ReceiptPrivate), Thread: pick(m, "", "main", "$root"), TS: m.random.Int64N(1000)}
	r.Event = pick(m, matrix.EventID("$unknown1"), "$unknown2")
	if events := m.events[room]; len(events) > 0 && m.random.IntN(8) > 0 {
		r.Num = pick(m, events...)
		r.Event = matrix.EventID(fmt.Sprintf("$event%d", r.Num))
	}
	name := receiptName{room, user, r.Type, r.Thread}
	old, known := m.reads[name]
	moves := !known || r.Event != old.Event && r.Num >= old.Num
	moved, err := tx.PutReceipt(room, r)
	if err != nil {
		return err
	}
	if moved != moves {
		m.Errorf("receipt %+v behind %+v moves: %v", r, old, moved)
	}
	if moves {
		r.Position = tx.Position()
		m.reads[name] = r
	}
	return nil
}

func (m *userModel) putUnread(tx *Tx, user UserNum, room RoomNum) error {
	if m.random.IntN(4) == 0 {
		delete(m.unread, pairOf(user, room))
		return tx.DeleteUnread(user, room)
	}
	u := Unread{Rules: Position(m.random.Uint64N(1 << 20)), Upto: EventNum(m.random.Uint64N(1 << 40))}
	for i := range m.random.IntN(3) {
		u.Threads = append(u.Threads, matrix.EventID(fmt.Sprintf("$thread%d", i)))
	}
	num := EventNum(0)
	for range m.random.IntN(20) {
		num += EventNum(1 + m.random.Uint64N(1000))
		u.Events = append(u.Events, UnreadEvent{Num: num, Thread: uint32(m.random.IntN(len(u.Threads) + 1)), Highlight: m.random.IntN(2) == 0})
	}
	m.unread[pairOf(user, room)] = u
	return tx.PutUnread(user, room, u)
}

func (m *userModel) putMember(tx *Tx, user UserNum, room *testRoom) error {
	was := m.members[pairOf(user, room.num)]
	is := LocalMembership{Room: room.num, Membership: pick(m, matrix.Join, matrix.Leave, matrix.Invite, matrix.Ban, matrix.Knock)}
	if is.Membership == matrix.Invite && m.random.IntN(2) == 0 {
		is.Stripped = []byte(`[{"type":"m.room.name"}]`)
	}
	num, err := room.putState(tx, tx.UserID(user), memberType, string(tx.UserID(user)), `{"membership":"`+string(is.Membership)+`"}`)
	if err != nil {
		return err
	}
	is.Event = num
	if err := tx.PutLocalMembership(user, is); err != nil {
		return err
	}
	is.Position, is.Joined, is.Left = tx.Position(), was.Joined, was.Left
	gone := is.Membership == matrix.Leave || is.Membership == matrix.Ban
	is.Forgotten = was.Forgotten && gone
	if is.Membership == matrix.Join && was.Membership != matrix.Join {
		is.Joined, is.Left = is.Position, 0
	}
	if was.Membership == matrix.Join && is.Membership != matrix.Join {
		is.Left = is.Position
	}
	m.members[pairOf(user, room.num)] = is
	return nil
}

func (m *userModel) forget(tx *Tx, user UserNum, room RoomNum) error {
	if err := tx.ForgetRoom(user, room+1000); !errors.Is(err, ErrNotFound) {
		m.Errorf("forget a room that never was: %v", err)
	}
	is := m.members[pairOf(user, room)]
	is.Forgotten = true
	m.members[pairOf(user, room)] = is
	return tx.ForgetRoom(user, room)
}

// compare reads everything back, whole and behind some position.
func (m *userModel) compare(tx *Tx) error {
	after := Position(m.random.Uint64N(uint64(tx.Position()) + 2))
	for _, user := range m.users {
		if err := errors.Join(m.compareData(tx, user, after), m.compareMembers(tx, user, after)); err != nil {
			return err
		}
	}
	for _, room := range m.rooms {
		if err := errors.Join(m.compareReceipts(tx, room.num, after), m.compareRoom(tx, room.num)); err != nil {
			return err
		}
	}
	return nil
}

// same fails the test unless two lists are alike.
func same[T any](m *userModel, what string, got, want []T) {
	m.Helper()
	if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		m.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// collect returns a function that takes what a store function yields.
func collect[T any](into *[]T) func(T) (bool, error) {
	return func(v T) (bool, error) {
		*into = append(*into, v)
		return true, nil
	}
}

func (m *userModel) compareData(tx *Tx, user UserNum, after Position) error {
	var since, want []AccountData
	if err := tx.AccountDataSince(user, after, collect(&since)); err != nil {
		return err
	}
	byRoom := map[RoomNum][]AccountData{}
	for name, d := range m.data {
		if name.user != user {
			continue
		}
		byRoom[d.Room] = append(byRoom[d.Room], d)
		if d.Position > after {
			want = append(want, d)
		}
		got, err := tx.AccountData(user, d.Room, d.Type)
		if at := tx.AccountDataPosition(user, d.Room, d.Type); err != nil || !reflect.DeepEqual(got, d) || at != d.Position {
			m.Errorf("account data %+v at %d, %v, want %+v", got, at, err, d)
		}
	}
	slices.SortFunc(want, func(a, b AccountData) int { return cmp.Compare(a.Position, b.Position) })
	same(m, "account data by position", since, want)
	for _, room := range []RoomNum{0, m.rooms[0].num, m.rooms[1].num} {
		var all []AccountData
		if err := tx.AllAccountData(user, room, collect(&all)); err != nil {
			return err
		}
		slices.SortFunc(byRoom[room], func(a, b AccountData) int { return cmp.Compare(a.Type, b.Type) })
		same(m, "account data of a room", all, byRoom[room])
	}
	if _, err := tx.AccountData(user, 0, "m.none"); !errors.Is(err, ErrNotFound) || tx.AccountDataPosition(user, 0, "m.none") != 0 {
		m.Errorf("account data that is not there: %v", err)
	}
	return nil
}

func (m *userModel) compareReceipts(tx *Tx, room RoomNum, after Position) error {
	var since, want []Receipt
	if err := tx.ReceiptsSince(room, after, collect(&since)); err != nil {
		return err
	}
	byUser := map[UserNum][]Receipt{}
	for name, r := range m.reads {
		if name.room != room {
			continue
		}
		byUser[r.User] = append(byUser[r.User], r)
		if r.Position > after {
			want = append(want, r)
		}
	}
	slices.SortFunc(want, func(a, b Receipt) int { return cmp.Compare(a.Position, b.Position) })
	same(m, "receipts by position", since, want)
	for _, user := range m.users {
		var all []Receipt
		if err := tx.UserReceipts(room, user, collect(&all)); err != nil {
			return err
		}
		slices.SortFunc(byUser[user], func(a, b Receipt) int {
			return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Thread, b.Thread))
		})
		same(m, "receipts of a user", all, byUser[user])
	}
	return nil
}

func (m *userModel) compareMembers(tx *Tx, user UserNum, after Position) error {
	var all, since, want, wantSince []LocalMembership
	if err := errors.Join(tx.LocalMemberships(user, collect(&all)), tx.LocalMembershipsSince(user, after, collect(&since))); err != nil {
		return err
	}
	for _, room := range m.rooms {
		want = append(want, m.members[pairOf(user, room.num)])
	}
	for _, member := range want {
		if member.Position > after {
			wantSince = append(wantSince, member)
		}
	}
	slices.SortFunc(wantSince, func(a, b LocalMembership) int { return cmp.Compare(a.Position, b.Position) })
	same(m, "memberships", all, want)
	same(m, "memberships by position", since, wantSince)
	return nil
}

// compareRoom compares what stands in a room's records.
func (m *userModel) compareRoom(tx *Tx, room RoomNum) error {
	var got, want []string
	err := tx.LocalMembers(room, func(user UserNum, is matrix.Membership) (bool, error) {
		got = append(got, fmt.Sprint(user, is))
		return true, nil
	})
	for _, user := range m.users {
		want = append(want, fmt.Sprint(user, m.members[pairOf(user, room)].Membership))
		u, err := tx.Unread(user, room)
		if err != nil {
			return err
		}
		if is := m.unread[pairOf(user, room)]; !reflect.DeepEqual(u, is) {
			m.Errorf("unread of user %d in room %d: %+v, want %+v", user, room, u, is)
		}
	}
	same(m, "local members", got, want)
	return err
}
