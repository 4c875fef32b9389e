//go:build !linux

package server

import "os"

// hideInput knows no terminals but those of Linux: the password is read from a
// pipe, or shown.
func hideInput(*os.File) (shown func(), err error) { return nil, errNoTerminal }
