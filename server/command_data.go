package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"hearth/store"
)

func checkCommand() command {
	return command{
		name: "check", help: "read all that is stored and report what is wrong with it",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				var found checkAnswer
				if err := socket.do(ctx, "/check", struct{}{}, &found); err != nil {
					return err
				}
				for _, fault := range found.Faults {
					fmt.Fprintln(c.std.Out, fault)
				}
				if found.Count > 0 {
					return fmt.Errorf("%d faults", found.Count)
				}
				fmt.Fprintln(c.std.Out, "no faults")
				return nil
			})
		},
	}
}

// standardStream as a file name means standard output or input.
const standardStream = "-"

func backupCommand() command {
	return command{
		name: "backup", args: "FILE", least: 1, most: 1,
		help: "write all that is stored to a file, while the server runs on; - is standard output",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				body, err := socket.open(ctx, "/backup", struct{}{})
				if err != nil {
					return err
				}
				defer body.Close()
				if c.args[0] == standardStream {
					_, err = io.Copy(c.std.Out, body)
					return err
				}
				size, err := writeWhole(c.args[0], body)
				if err != nil {
					return fmt.Errorf("backup: %w", err)
				}
				fmt.Fprintf(c.std.Out, "wrote %s, %d bytes\n", c.args[0], size)
				return nil
			})
		},
	}
}

// writeWhole writes a file that is there whole or not at all: under another name
// first, which takes the place of name when everything is on the disk.
func writeWhole(name string, content io.Reader) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*.tmp")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if size, err = io.Copy(f, content); err != nil {
		return 0, err
	}
	if err = f.Sync(); err != nil {
		return 0, err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return 0, err
	}
	return size, errors.Join(f.Close(), syncFolder(filepath.Dir(name)))
}

// syncFolder brings the names in a folder onto the disk.
func syncFolder(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func restoreCommand() command {
	return command{
		name: "restore", args: "FILE", least: 1, most: 1,
		help: "make the data directory of a backup; - is standard input",
		run: func(ctx context.Context, c call) error {
			in := c.std.In
			if c.args[0] != standardStream {
				f, err := os.Open(c.args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			if err := store.Restore(ctx, c.config.Data, bufio.NewReaderSize(in, 64<<10)); err != nil {
				return err
			}
			fmt.Fprintf(c.std.Out, "restored into %s\n", c.config.Data)
			return checkCommand().run(ctx, c)
		},
	}
}
