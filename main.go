// Command hearth is a Matrix homeserver for one household. Package
// hearth/server tells how it is built.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"hearth/server"
)

func main() {
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, release) // a second signal ends the process at once
	std := server.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	os.Exit(server.Main(ctx, os.Args[1:], os.Environ(), std, serve))
}

// serve puts the parts together and runs them.
func serve(ctx context.Context, config server.Config, std server.Stdio) error {
	s, err := server.New(config, server.NewLogger(config, std.Err))
	if err != nil {
		return err
	}
	if err := s.Welcome(std.Out); err != nil {
		return err
	}
	return s.Run(ctx)
}
