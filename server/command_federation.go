package server

import (
	"context"
	"fmt"
	"time"
)

func listDestinationsCommand() command {
	return command{
		name: "federation list", help: "list the other servers that do not answer or have not got everything yet",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				var all destinationsAnswer
				if err := socket.do(ctx, "/federation/list", struct{}{}, &all); err != nil {
					return err
				}
				return table(c.std.Out, func(row func(...any)) {
					for _, d := range all.Destinations {
						row(d.Server, d.waiting(), d.failed(), d.tried(time.Now()), d.Err)
					}
				})
			})
		},
	}
}

func retryDestinationsCommand() command {
	return command{
		name: "federation retry", args: "[SERVER ...]", most: maxDestinations,
		help: "try other servers again now; all that do not answer, if none is named",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				var tried retryAnswer
				if err := socket.do(ctx, "/federation/retry", retryRequest{c.args}, &tried); err != nil {
					return err
				}
				for _, server := range tried.Servers {
					fmt.Fprintf(c.std.Out, "%s is tried again\n", server)
				}
				return nil
			})
		},
	}
}

// waiting says how much waits for a server.
func (d destination) waiting() string {
	switch {
	case d.More && d.Pending == 0:
		return "some pending"
	case d.More:
		return fmt.Sprintf("more than %d pending", d.Pending)
	}
	return fmt.Sprintf("%d pending", d.Pending)
}

// failed says how often a server has failed.
func (d destination) failed() string {
	switch {
	case d.Failures == 0:
		return ""
	case d.Since.IsZero():
		return fmt.Sprintf("%d failures", d.Failures)
	}
	return fmt.Sprintf("%d failures since %s", d.Failures, d.Since.Local().Format(time.DateTime))
}

// tried says when a server is tried again.
func (d destination) tried(now time.Time) string {
	if !d.Retry.After(now) {
		return "tried now"
	}
	return fmt.Sprintf("tried again in %s", d.Retry.Sub(now).Round(time.Second))
}
