package server

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hearth/state"
	"hearth/state/matrix"
	"hearth/store"
)

// The connections to other servers follow the memory and ulimit -n, within bounds.
func TestMaxRemoteConns(t *testing.T) {
	for _, tt := range []struct {
		memory Bytes
		files  uint64
		want   int
	}{
		{64 << 20, 1024, 128}, {64 << 20, 256, 64}, {64 << 20, 20, leastRemoteConns}, {32 << 20, 1 << 20, 64},
		{16 << 30, 1 << 62, mostRemoteConns}, {1, 1, leastRemoteConns},
	} {
		if got := maxRemoteConns(tt.memory, tt.files); got != tt.want {
			t.Errorf("%s and %d files: %d, want %d", tt.memory, tt.files, got, tt.want)
		}
	}
	if openFiles() < 64 {
		t.Errorf("this process may open %d files", openFiles())
	}
}

// --federation-ca adds to the system's roots; what holds none is an error.
func TestReadRoots(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ours"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.pem"), filepath.Join(dir, "bad.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(good, text, 0o600), os.WriteFile(bad, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	roots, err := readRoots(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		t.Error(err)
	}
	if roots, err := readRoots(""); roots != nil || err != nil {
		t.Errorf("no file: %v, %v", roots, err)
	}
	for _, file := range []string{bad, filepath.Join(dir, "none.pem")} {
		if _, err := readRoots(file); err == nil {
			t.Errorf("%s is taken", file)
		}
	}
}

// A new key signs the next event of the running server; the old one still counts
// for what it has signed until then.
func TestRotateKeys(t *testing.T) {
	st, err := store.Open(t.TempDir(), "hearth.example", store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	rooms, err := openRooms(st, "", time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	o := &owner{store: st, rooms: rooms, now: time.Now}
	before := rooms.Key().ID
	began := time.Now()
	made, err := o.rotateKeys(t.Context())
	if err != nil || made == before || rooms.Key().ID != made {
		t.Fatalf("from %s to %s, signing with %s: %v", before, made, rooms.Key().ID, err)
	}
	if err := st.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.CreateOpenAccount("@a:hearth.example", store.Account{Created: began})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	room, err := rooms.Create(t.Context(), state.Creation{Creator: "@a:hearth.example"})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.View(func(tx *store.Tx) error {
		head, err := tx.Head(tx.RoomNum(room))
		if err != nil {
			return err
		}
		ev, err := state.EventAt(tx, tx.RoomNum(room), head.Current, "m.room.create", "")
		if err != nil {
			return err
		}
		signatures, err := ev.Signatures()
		if keys := signatures[matrix.ServerName("hearth.example")]; len(keys) != 1 || keys[0] != made {
			t.Errorf("signed with %v", keys)
		}
		keys, err2 := tx.SigningKeys()
		for _, k := range keys {
			if k.ID == before && k.Retired < began.UnixMilli() {
				t.Errorf("the old key has ended at %d", k.Retired)
			}
		}
		return errors.Join(err, err2)
	}); err != nil {
		t.Error(err)
	}
}
