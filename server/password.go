package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxPasswordLine bounds what is read for a password, in bytes.
const maxPasswordLine = 4096

// errInterrupted is returned where ctx ends before a password is there.
var errInterrupted = errors.New("interrupted")

// readPassword asks for a password at the terminal, twice and without showing it,
// or reads one line where standard input is no terminal. It is never an argument:
// those are seen by every process of the machine.
func readPassword(ctx context.Context, std Stdio) (string, error) {
	shown, err := hideInput(std.In)
	if errors.Is(err, errNoTerminal) {
		return awaitLine(ctx, std.In)
	}
	if err != nil {
		return "", err
	}
	defer shown()
	ask := func(what string) (string, error) {
		fmt.Fprintf(std.Err, "%s: ", what)
		line, err := awaitLine(ctx, std.In)
		fmt.Fprintln(std.Err)
		return line, err
	}
	first, err := ask("Password")
	if err != nil {
		return "", err
	}
	second, err := ask("Once more")
	if err == nil && first != second {
		err = errors.New("the two passwords differ")
	}
	return first, err
}

// errNoTerminal is returned where input cannot be hidden as nobody types it.
var errNoTerminal = errors.New("standard input is no terminal")

// awaitLine is readLine until ctx ends. Nothing cuts a read of a terminal short: the
// process ends soon after, and the read with it.
func awaitLine(ctx context.Context, in *os.File) (string, error) {
	done := make(chan struct{})
	var text string
	var fault error
	go func() {
		defer close(done)
		text, fault = readLine(in)
	}()
	select {
	case <-done:
		return text, fault
	case <-ctx.Done():
		return "", errInterrupted
	}
}

// readLine reads one line, byte by byte as a terminal gives it: what follows is
// left to the next reader.
func readLine(in *os.File) (string, error) {
	line, err := bufio.NewReaderSize(io.LimitReader(oneByte{in}, maxPasswordLine), 16).ReadString('\n')
	line = strings.TrimRight(line, "\r\n")
	switch {
	case err != nil && err != io.EOF:
		return "", fmt.Errorf("read the password: %w", err)
	case line == "":
		return "", errors.New("no password was given")
	}
	return line, nil
}

// oneByte reads one byte at a time.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }
