package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

// Stdio is what a command reads and writes.
type Stdio struct {
	In  *os.File // passwords are read from it
	Out io.Writer
	Err io.Writer
}

// Exit codes of the process.
const (
	exitFine   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Serve runs a server until ctx ends.
type Serve func(ctx context.Context, config Config, std Stdio) error

// command is a subcommand: what the help says and what it does with the arguments
// that are no flags.
type command struct {
	name   string // "user add"
	args   string // "NAME"
	least  int    // fewest arguments
	most   int    // most arguments
	hidden bool   // from the overview
	help   string
	flags  []*Flag
	run    func(ctx context.Context, call call) error
}

// call is one use of a command.
type call struct {
	config Config
	args   []string
	std    Stdio
}

// Main runs the command that args ask for and returns the exit code: 0 fine, 1
// failed, 2 used wrongly.
func Main(ctx context.Context, args, environ []string, std Stdio, serve Serve) int {
	err := dispatch(ctx, args, environ, std, serve)
	var wrong *UsageError
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &wrong):
		fmt.Fprintf(std.Err, "hearth: %v\n", err)
		return exitUsage
	default:
		fmt.Fprintf(std.Err, "hearth: %v\n", err)
		return exitFailed
	}
}

// dispatch finds the command and runs it. Without one, or with a flag first, it
// is serve.
func dispatch(ctx context.Context, args, environ []string, std Stdio, serve Serve) error {
	all := commands(serve)
	if len(args) == 0 || strings.HasPrefix(args[0], "-") && !asksHelp(args[:1]) {
		args = append([]string{"serve"}, args...)
	}
	if asksHelp(args[:1]) || args[0] == "help" {
		return writeHelp(std.Out, all, args[1:])
	}
	c, rest, err := find(all, args)
	if err != nil {
		return err
	}
	if asksHelp(rest) {
		return writeHelp(std.Out, all, strings.Fields(c.name))
	}
	config, operands, err := Load(rest, environ, c.flags...)
	if err != nil {
		return err
	}
	if len(operands) < c.least || len(operands) > c.most {
		return usage("usage: hearth %s", strings.TrimSpace(c.name+" "+c.args))
	}
	return c.run(ctx, call{config, operands, std})
}

// asksHelp reports whether -h or --help is among args.
func asksHelp(args []string) bool {
	for _, a := range args {
		if a == "-h" || a == "-help" || a == "--help" {
			return true
		}
	}
	return false
}

// find returns the command whose name args begin with, and what follows.
func find(all []command, args []string) (command, []string, error) {
	for words := min(2, len(args)); words > 0; words-- {
		name := strings.Join(args[:words], " ")
		for _, c := range all {
			if c.name == name {
				return c, args[words:], nil
			}
		}
	}
	var names, below []string
	for _, c := range all {
		names = append(names, c.name)
		if strings.HasPrefix(c.name, args[0]+" ") {
			below = append(below, c.name)
		}
	}
	if below != nil {
		return command{}, nil, usage("say one of: %s", strings.Join(below, ", "))
	}
	whole := strings.Join(args[:min(2, len(args))], " ")
	if near := nearest(whole, names); near != "" {
		return command{}, nil, usage("command %s is not known: did you mean %s?", whole, near)
	}
	return command{}, nil, unknown("command ", args[0], names)
}

// commands returns all subcommands.
func commands(serve Serve) []command {
	return []command{
		{name: "serve", help: "run the server (the default)",
			run: func(ctx context.Context, c call) error { return serve(ctx, c.config, c.std) }},
		addUserCommand(), resetUserCommand(), listUsersCommand(), deactivateUserCommand(),
		addTokenCommand(), listTokensCommand(), revokeTokenCommand(),
		listRoomsCommand(), leaveRoomCommand(), purgeRoomCommand(),
		listDestinationsCommand(), retryDestinationsCommand(),
		rotateKeysCommand(),
		checkCommand(), backupCommand(), restoreCommand(),
		{name: "version", help: "print the version, and that of the running server", run: printVersion},
		{name: "health", hidden: true, help: "ask the running server whether it is well", run: askHealth},
	}
}

// release is the version of this source.
const release = "0.1.0"

// Version returns the release and, where the binary knows it, the commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return release + " (" + s.Value[:12] + ")"
		}
	}
	return release
}

// printVersion prints our version and, if a server runs on the data, its.
func printVersion(ctx context.Context, c call) error {
	fmt.Fprintf(c.std.Out, "hearth %s\n", Version())
	client, err := dialAdmin(ctx, c.config.Data)
	if errors.Is(err, errNoServer) {
		return nil
	}
	if err != nil {
		return err
	}
	defer client.close()
	var running versionAnswer
	if err := client.do(ctx, "/version", struct{}{}, &running); err != nil {
		return err
	}
	fmt.Fprintf(c.std.Out, "running: %s, serving %s\n", running.Version, running.Server)
	return nil
}
