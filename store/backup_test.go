package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"hearth/state/matrix"
	"hearth/store/blob"
)

// fillForBackup puts an account, a room and two files into a store.
func fillForBackup(t *testing.T, s *Store) (files []blob.Hash) {
	t.Helper()
	update(t, s, func(tx *Tx) error {
		user := matrix.UserID("@alice:" + string(testServer))
		if _, err := tx.CreateAccount(user, Account{PasswordHash: "x"}); err != nil {
			return err
		}
		_, err := newTestRoom(tx, "12", user)
		return err
	})
	for _, content := range []string{"one file", "another"} {
		w, err := s.Blobs().Create(100)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(content))
		h, _, err := w.Commit()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, h)
	}
	return files
}

// A backup that is made while others write restores to a whole store, as of one
// commit.
func TestBackupAndRestore(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := openTest(t)
	files := fillForBackup(t, s)
	writing := make(chan error)
	go func() {
		for ctx.Err() == nil {
			err := s.Update(ctx, func(tx *Tx) error {
				tx.Touch(1)
				return tx.UpdateAccount(tx.Owner(), func(a *Account) { a.Locked = !a.Locked })
			})
			if err != nil && ctx.Err() == nil {
				writing <- err
				return
			}
		}
		close(writing)
	}()
	var packed bytes.Buffer
	err := s.Backup(ctx, &packed)
	cancel()
	if werr := <-writing; err != nil || werr != nil {
		t.Fatal(err, werr)
	}
	left, err := filepath.Glob(filepath.Join(s.Dir(), "*.tmp"))
	if err != nil || left != nil {
		t.Errorf("the backup left %v", left)
	}

	dir := filepath.Join(t.TempDir(), "new")
	if err := Restore(context.Background(), dir, bytes.NewReader(packed.Bytes())); err != nil {
		t.Fatal(err)
	}
	restored := openDir(t, dir)
	defer closeStore(t, restored)
	defer checkStore(t, restored)
	for _, h := range files {
		if _, err := restored.Blobs().Size(h); err != nil {
			t.Error(err)
		}
	}
	view(t, restored, func(tx *Tx) error {
		if id := tx.UserID(tx.Owner()); id.Localpart() != "alice" {
			t.Errorf("the owner is %q", id)
		}
		return nil
	})
	if err := Restore(context.Background(), dir, bytes.NewReader(packed.Bytes())); !errors.Is(err, ErrExists) {
		t.Errorf("over a database: %v", err)
	}
}

// A damaged or cut archive is refused, wherever the damage is, and leaves no
// database. Some bits of a zstd frame mean nothing: damage there is none.
func TestRestoreRefusesDamage(t *testing.T) {
	s := openTest(t)
	fillForBackup(t, s)
	var packed bytes.Buffer
	if err := s.Backup(context.Background(), &packed); err != nil {
		t.Fatal(err)
	}
	whole := packed.Bytes()
	content := unpacked(t, whole)
	random := rand.New(rand.NewPCG(1, 2))
	try := func(what string, archive []byte) {
		t.Helper()
		dir := t.TempDir()
		if err := Restore(context.Background(), dir, bytes.NewReader(archive)); !errors.Is(err, ErrBadBackup) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(filepath.Join(dir, databaseFile)); err == nil {
			t.Errorf("%s: there is a database", what)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); left != nil {
			t.Errorf("%s: it left %v", what, left)
		}
	}
	try("nothing", nil)
	try("text", []byte("this is no backup"))
	for range 20 {
		try("cut", whole[:random.IntN(len(whole))])
		damaged := bytes.Clone(whole)
		damaged[20+random.IntN(len(whole)-20)] ^= 1 << random.IntN(8)
		if !bytes.Equal(unpacked(t, damaged), content) {
			try("damaged", damaged)
		}
	}
}

// unpacked returns what a zstd frame holds, as far as it can be read.
func unpacked(t *testing.T, frame []byte) []byte {
	t.Helper()
	r, err := zstd.NewReader(bytes.NewReader(frame))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var content bytes.Buffer
	if _, err := io.Copy(&content, r); err != nil {
		content.WriteString(err.Error())
	}
	return content.Bytes()
}

// A backup stops when its context does, or when nobody takes it.
func TestBackupStops(t *testing.T) {
	s := openTest(t)
	fillForBackup(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Backup(ctx, new(bytes.Buffer)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := s.Backup(context.Background(), refusing{}); !errors.Is(err, errRefused) {
		t.Errorf("%v", err)
	}
}

var errRefused = errors.New("refused")

// refusing is a writer that takes nothing.
type refusing struct{}

func (refusing) Write([]byte) (int, error) { return 0, errRefused }
