// Command launcher is the first process of the image that Complement tests. It
// signs a certificate for the name in SERVER_NAME with the authority that Complement
// put into the container, and becomes the server. It does so at each start: the
// authority may be another one by then, while keys and data of the server stay.
//
// What it does not set can be set with HEARTH_… variables.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Where things are in the container.
const (
	serverPath  = "/hearth"
	dataPath    = "/data"
	tlsPath     = "/tls" // the certificate and its key
	caPath      = "/complement/ca"
	bridgesPath = "/complement/appservice"
)

func main() {
	if err := launch(); err != nil {
		fmt.Fprintln(os.Stderr, "launcher:", err)
		os.Exit(1)
	}
}

// launch replaces this process by the server's. It returns only with an error.
func launch() error {
	name := os.Getenv("SERVER_NAME")
	if name == "" {
		return errors.New("SERVER_NAME is not set")
	}
	ca, err := readAuthority(filepath.Join(caPath, "ca.crt"), filepath.Join(caPath, "ca.key"))
	if err != nil {
		return err
	}
	leaf, err := ca.sign(name)
	if err != nil {
		return fmt.Errorf("certificate for %s: %w", name, err)
	}
	if err := leaf.write(tlsPath); err != nil {
		return err
	}
	bridges, err := os.Stat(bridgesPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	args := arguments(name, bridges != nil)
	return fmt.Errorf("%s: %w", serverPath, syscall.Exec(serverPath, args, os.Environ()))
}

// arguments returns the command line of the server.
func arguments(name string, bridges bool) []string {
	args := []string{
		serverPath, "serve",
		"--server-name", name,
		"--data", dataPath,
		"--listen", ":8008",
		"--listen-tls", ":8448",
		"--tls-cert", filepath.Join(tlsPath, certFile),
		"--tls-key", filepath.Join(tlsPath, keyFile),
		"--federation-ca", filepath.Join(caPath, "ca.crt"),
		"--allow-private-networks",
		"--registration", "open",
		"--registration-shared-secret", "complement",
		"--password-cost", "4",
		"--rate-limits", "off",
		"--presence", "on",
		// Some tests name the creator in power levels of rooms for which they ask no
		// version: room version 12 forbids that.
		"--default-room-version", "11",
		"--url-previews", "on",
		"--legacy-media", "on",
	}
	if bridges {
		args = append(args, "--appservices", bridgesPath)
	}
	return args
}
