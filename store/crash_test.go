package store

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"hearth/state/matrix"
)

var crashKills = flag.Int("crash.kills", 5, "how often TestCrash kills the process that writes")

// crashChildDir is set for the process that TestCrash kills: its data.
const crashChildDir = "HEARTH_CRASH_CHILD"

// crashWriters is how many goroutines write at once, each in a room of its own.
const crashWriters = 4

// What is acknowledged survives: a process that writes from several goroutines
// is killed again and again, and each time everything that it has said to be
// stored must be there, and all of it whole. -crash.kills 100 is the long form.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	var acknowledged []crashAck
	for kill := range *crashKills {
		acks := runAndKill(t, dir, uint64(kill))
		if len(acks) == 0 {
			t.Errorf("kill %d: nothing was acknowledged", kill)
		}
		acknowledged = append(acknowledged, acks...)
		s := openDir(t, dir)
		checkStore(t, s)
		lost := 0
		view(t, s, func(tx *Tx) error {
			for _, ack := range acknowledged {
				if err := ack.verify(tx); err != nil {
					lost++
					t.Errorf("kill %d: %v: %v", kill, ack, err)
				}
			}
			return nil
		})
		closeStore(t, s)
		if t.Failed() {
			t.Fatalf("kill %d: %d of %d acknowledged writes are lost", kill, lost, len(acknowledged))
		}
	}
	t.Logf("%d kills, %d acknowledged writes, 0 lost", *crashKills, len(acknowledged))
}

// runAndKill starts a process that writes to dir, kills it some time after its
// first acknowledgement, and returns all that it acknowledged.
func runAndKill(t *testing.T, dir string, seed uint64) []crashAck {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), crashChildDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	random := rand.New(rand.NewPCG(seed, uint64(time.Now().UnixNano())))
	var acks []crashAck
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // the pipe is empty and its writer is dead
		}
		ack, err := readAck(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if acks = append(acks, ack); len(acks) == 1 {
			time.AfterFunc(time.Duration(random.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the writing process was not killed: %v", err)
	}
	return acks
}

// A crashAck says that one write was stored.
type crashAck struct {
	room     RoomNum
	num      EventNum       // a message
	id       matrix.EventID // its ID
	relation EventNum       // an event that relates to it
	user     UserNum        // a local user whose membership changed
	pos      Position       // where that stood after the write
	txn      string         // the transaction of the message
	sender   UserNum        // and the sender
}

const ackFormat = "%d %d %s %d %d %d %s %d\n"

func (a crashAck) write(w io.Writer) error {
	_, err := fmt.Fprintf(w, ackFormat, a.room, a.num, a.id, a.relation, a.user, a.pos, a.txn, a.sender)
	return err
}

func readAck(line string) (a crashAck, err error) {
	_, err = fmt.Sscanf(line, ackFormat, &a.room, &a.num, &a.id, &a.relation, &a.user, &a.pos, &a.txn, &a.sender)
	return a, err
}

// verify looks for all of an acknowledged write.
func (a crashAck) verify(tx *Tx) error {
	ev, err := tx.Event(a.room, a.num)
	if err != nil {
		return err
	}
	if ev.ID != a.id || ev.Txn.ID != a.txn || ev.SenderNum != a.sender {
		return fmt.Errorf("event is %s by %d in %q", ev.ID, ev.SenderNum, ev.Txn.ID)
	}
	found := false
	err = tx.Relations(a.room, a.id, Place{}, func(rel Relation) (bool, error) {
		found = found || rel.Child == a.relation
		return true, nil
	})
	if err != nil || !found {
		return fmt.Errorf("relation is lost: %w", err)
	}
	m, ok, err := tx.LocalMembership(a.user, a.room)
	if err != nil || !ok || m.Position < a.pos {
		return fmt.Errorf("membership at %d is lost, newest at %d: %w", a.pos, m.Position, err)
	}
	return nil
}

// crashChild writes to dir until it is killed, and a line to standard output
// for each write that the store has acknowledged.
func crashChild(dir string) {
	s, err := Open(dir, testServer, Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	failed := make(chan error)
	for n := range crashWriters {
		go func() { failed <- crashWrite(s, n) }()
	}
	fmt.Fprintln(os.Stderr, <-failed)
	os.Exit(1)
}

// crashWrite is one of the child's goroutines.
func crashWrite(s *Store, n int) error {
	user := matrix.UserID(fmt.Sprintf("@user%d:%s", n, testServer))
	var r *testRoom
	err := s.Update(context.Background(), func(tx *Tx) (err error) {
		if r, err = findTestRoom(tx, user); err == nil && r == nil {
			r, err = newTestRoom(tx, []string{"12", "11", "2", "3"}[n%4], user)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		ack := crashAck{room: r.num, txn: fmt.Sprintf("%d.%d", os.Getpid(), i)}
		write := func(tx *Tx) error { return r.crashWrite(tx, user, i, &ack) }
		if i%3 == 0 {
			err = s.UpdatePatiently(context.Background(), 5*time.Millisecond, write)
		} else {
			err = s.Update(context.Background(), write)
		}
		if err != nil {
			return err
		}
		if err := ack.write(os.Stdout); err != nil {
			return err
		}
	}
}

// crashWrite makes one write of several parts that must stay together.
func (r *testRoom) crashWrite(tx *Tx, user matrix.UserID, i int, ack *crashAck) (err error) {
	ack.sender, ack.user = tx.UserNum(user), tx.UserNum(user)
	txn := TxnID{User: ack.sender, Device: "D", Endpoint: "send", ID: ack.txn}
	content := fmt.Sprintf(`{"body":%q}`, strings.Repeat("text ", i%200))
	if ack.num, err = r.send(tx, user, content, txn); err != nil {
		return err
	}
	if ack.id, err = tx.EventID(r.num, ack.num); err != nil {
		return err
	}
	membership := matrix.Join
	if i%2 == 1 {
		membership = matrix.Leave
	}
	if ack.relation, err = r.member(tx, user, membership); err != nil {
		return err
	}
	if err := tx.PutRelation(r.num, ack.id, Relation{Child: ack.relation, Sender: ack.sender, Type: "m.reference"}); err != nil {
		return err
	}
	ack.pos = tx.Position()
	return nil
}

// findTestRoom returns the room that newTestRoom made for its creator in an
// earlier run, nil if there is none.
func findTestRoom(tx *Tx, creator matrix.UserID) (*testRoom, error) {
	var r *testRoom
	err := tx.LocalMemberships(tx.UserNum(creator), func(m LocalMembership) (bool, error) {
		head, err := tx.Head(m.Room)
		if err != nil {
			return false, err
		}
		key, err := tx.SigningKey()
		r = &testRoom{
			id: tx.RoomID(m.Room), num: m.Room, version: head.Version, key: key, creator: creator,
			time: roomTime(tx),
		}
		return false, err
	})
	return r, err
}
