package server

import (
	"context"
	"fmt"
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
