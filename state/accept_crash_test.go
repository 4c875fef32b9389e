package state

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"hearth/state/matrix"
	"hearth/store"
)

var acceptKills = flag.Int("state.kills", 2, "how often TestKilledArrival kills the process that accepts")

// acceptChildDir is set for the process that TestKilledArrival kills: its data.
const acceptChildDir = "HEARTH_ACCEPT_CHILD"

// acceptChildFile is the dump, in the child's folder, of what it accepts.
const acceptChildFile = "arrival.jsonl"

func TestMain(m *testing.M) {
	if dir := os.Getenv(acceptChildDir); dir != "" {
		if err := acceptChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// acceptChild accepts the events that its store lacks, and says after each step
// how many are there.
func acceptChild(dir string) error {
	st, err := store.Open(filepath.Join(dir, "data"), "home.example", store.Options{Lock: time.Second})
	if err != nil {
		return err
	}
	rooms := New(Config{Store: st, Server: "home.example"})
	in, err := os.Open(filepath.Join(dir, acceptChildFile))
	if err != nil {
		return err
	}
	done := 0
	_, err = readDump(in, 3, func(events []*matrix.Event) error {
		_, err := rooms.AcceptAll(context.Background(), events)
		done += len(events)
		fmt.Println(done)
		return err
	})
	return errors.Join(err, in.Close(), st.Close())
}

// A process that accepts a forked room is killed at any time, starts again and
// goes on with what it lacks. The room becomes what it becomes undisturbed.
// -state.kills 100 is the long form.
func TestKilledArrival(t *testing.T) {
	for i, version := range []string{"1", "11", "12"} {
		t.Run(version, func(t *testing.T) {
			forked := growForks(newHouse(t), version, uint64(i), 120)
			events := causalShuffle(forked.events, uint64(i))
			plain := newHouse(t)
			plain.arrive(events)
			want := plain.arrived(forked)
			for kills := 0; kills < *acceptKills; {
				dir := t.TempDir()
				plain.must(os.WriteFile(filepath.Join(dir, acceptChildFile), dumpOf(events), 0o600))
				for kills < *acceptKills && runAcceptChild(t, dir, rand.IntN(len(events)/6)) {
					kills++
				}
				if runAcceptChild(t, dir, len(events)) {
					t.Fatal("the child was killed by another")
				}
				killed := &house{T: t}
				killed.open(filepath.Join(dir, "data"))
				if got := killed.arrived(forked); !reflect.DeepEqual(got, want) {
					t.Errorf("after %d kills it has become %v, want %v", kills, got, want)
				}
				killed.must(killed.store.Check(t.Context(), func(problem string) { t.Errorf("check: %s", problem) }))
				killed.must(killed.store.Close())
			}
		})
	}
}

// dumpOf writes events one to a line, as readDump reads them.
func dumpOf(events []*matrix.Event) (dump []byte) {
	for _, ev := range events {
		dump = append(dump, `{"pdu":`...)
		dump = append(append(dump, jsontext.Value(ev.JSON())...), "}\n"...)
	}
	return dump
}

// runAcceptChild starts a child and kills it some time after it has said that it
// took so many steps; false if it ended first.
func runAcceptChild(t *testing.T, dir string, steps int) (killed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), acceptChildDir+"="+dir)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); steps-- {
		if steps == 0 {
			time.AfterFunc(rand.N(2*time.Millisecond), func() { _ = cmd.Process.Kill() })
		}
	}
	var exit *exec.ExitError
	switch err := cmd.Wait(); {
	case errors.As(err, &exit) && !exit.Exited():
		return true
	case err != nil:
		t.Fatalf("the child failed: %v\n%s", err, &errs)
	}
	return false
}
