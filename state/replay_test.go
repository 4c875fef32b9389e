package state

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

var (
	dumpFile  = flag.String("state.dump", "", "replay the room that a dump in this `file` has")
	dumpGroup = flag.Int("state.group", 256, "events handed to AcceptAll at once in a replay")
)

// dumpLine is a line of a dump: an event, or at the end the room and its state.
type dumpLine struct {
	ID      matrix.EventID   `json:"event_id"`
	PDU     jsontext.Value   `json:"pdu"`
	RoomID  matrix.RoomID    `json:"room_id"`
	State   []matrix.EventID `json:"state"`
	Version string           `json:"version"`
}

// readDump calls fn for the events of a dump, n at a time, and returns its last
// line.
func readDump(r io.Reader, n int, fn func([]*matrix.Event) error) (end dumpLine, err error) {
	var version *matrix.Version
	var events []*matrix.Event
	in := jsontext.NewDecoder(bufio.NewReaderSize(r, 1<<20))
	for {
		var line dumpLine
		if err := json.UnmarshalDecode(in, &line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return end, err
		}
		if line.RoomID != "" {
			end = line
		}
		if line.PDU == nil {
			continue
		}
		if version == nil {
			if version, err = versionOfCreate(line.PDU); err != nil {
				return end, err
			}
		}
		ev, err := matrix.Parse(version, line.PDU)
		if err != nil {
			return end, err
		}
		if events = append(events, ev); len(events) == n {
			if err := fn(events); err != nil {
				return end, err
			}
			events = nil
		}
	}
	return end, fn(events)
}

func versionOfCreate(pdu []byte) (*matrix.Version, error) {
	var create struct {
		Content struct {
			Version string `json:"room_version"`
		} `json:"content"`
	}
	if err := json.Unmarshal(pdu, &create); err != nil {
		return nil, err
	}
	version, ok := matrix.VersionByID(create.Content.Version)
	if !ok {
		return nil, errors.New("a dump that does not begin with a room's create event")
	}
	return version, nil
}

// A room that a whole federation has made is taken in without refusing any of its
// events, and ends in the state that the dump ends with. Run it by hand:
//
//	bigroom dump -members 50000 > room.jsonl
//	go test ./state -run ReplayDump -v -state.dump $PWD/room.jsonl
func TestReplayDump(t *testing.T) {
	if *dumpFile == "" {
		t.Skip("no -state.dump")
	}
	in, err := os.Open(*dumpFile)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }() // it was only read
	h := newHouse(t)
	n, peak, spent, written := 0, uint64(0), time.Duration(0), writtenBytes()
	end, err := readDump(in, *dumpGroup, func(events []*matrix.Event) error {
		began := time.Now()
		verdicts, err := h.rooms.AcceptAll(context.Background(), events)
		spent += time.Since(began)
		for i, verdict := range verdicts {
			if verdict != Accepted {
				t.Errorf("event %d, %s: verdict %d", n+i, events[i].ID, verdict)
			}
		}
		n += len(verdicts)
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		peak = max(peak, mem.HeapInuse)
		return err
	})
	h.must(err)
	file, err := os.Stat(filepath.Join(h.store.Dir(), "hearth.db"))
	h.must(err)
	each := int64(max(1, n))
	t.Logf("%d events in %v, %v each; database of %d bytes, %d bytes written an event; heap at most %d MiB",
		n, spent.Round(time.Millisecond), (spent / time.Duration(each)).Round(time.Microsecond),
		file.Size(), (writtenBytes()-written)/each, peak>>20)
	h.sameState(end)
}

// writtenBytes returns how many bytes this process has handed to write calls, 0
// where the system does not tell.
func writtenBytes() (n int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(line, "wchar: "); ok {
			n, _ = strconv.ParseInt(strings.TrimSpace(count), 10, 64)
		}
	}
	return n
}

// sameState compares a room's current state with that at the end of a dump.
func (h *house) sameState(end dumpLine) {
	h.Helper()
	rest := make(map[matrix.EventID]bool)
	for _, id := range end.State {
		rest[id] = true
	}
	h.must(h.store.View(func(tx *store.Tx) error {
		num, head, err := Head(tx, end.RoomID)
		if err != nil {
			return err
		}
		return tx.WalkState(num, head.Current, store.StateAll, func(_ store.Slot, ev store.EventNum) (bool, error) {
			id, err := tx.EventID(num, ev)
			if !rest[id] {
				h.Errorf("the state has %s", id)
			}
			delete(rest, id)
			return true, err
		})
	}))
	for id := range rest {
		h.Errorf("the state lacks %s", id)
	}
}
