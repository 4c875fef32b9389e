package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func addUserCommand() command {
	admin := &Flag{Name: "admin", Help: "the account may administer the server (the first one may anyway)"}
	return command{
		name: "user add", args: "NAME", least: 1, most: 1, flags: []*Flag{admin},
		help: "make an account; the password is asked for, or read from standard input",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				password, err := readPassword(ctx, c.std)
				if err != nil {
					return err
				}
				var made account
				in := userRequest{Name: c.args[0], Password: password, Admin: admin.Given()}
				if err := socket.do(ctx, "/user/add", in, &made); err != nil {
					return err
				}
				fmt.Fprintf(c.std.Out, "made %s%s\n", made.User, made.roles())
				return nil
			})
		},
	}
}

// roles says what an account is beside a user.
func (a account) roles() string {
	var all []string
	for _, role := range []struct {
		is   bool
		name string
	}{
		{a.Owner, "owner"}, {a.Admin, "administrator"}, {a.Deactivated, "deactivated"},
		{a.Locked, "locked"}, {a.Suspended, "suspended"},
		{a.Guest, "guest"}, {a.Service, "the server itself"},
	} {
		if role.is {
			all = append(all, role.name)
		}
	}
	if all == nil {
		return ""
	}
	return " (" + strings.Join(all, ", ") + ")"
}

func resetUserCommand() command {
	logOut := &Flag{Name: "log-out", Help: "end the sessions of all devices, too"}
	return command{
		name: "user reset", args: "NAME", least: 1, most: 1, flags: []*Flag{logOut},
		help: "give an account a new password",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				password, err := readPassword(ctx, c.std)
				if err != nil {
					return err
				}
				var who nameAnswer
				in := userRequest{Name: c.args[0], Password: password, LogOut: logOut.Given()}
				if err := socket.do(ctx, "/user/reset", in, &who); err != nil {
					return err
				}
				fmt.Fprintf(c.std.Out, "%s has a new password\n", who.User)
				return nil
			})
		},
	}
}

func listUsersCommand() command {
	return command{
		name: "user list", help: "list the accounts",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				var all usersAnswer
				if err := socket.do(ctx, "/user/list", struct{}{}, &all); err != nil {
					return err
				}
				return table(c.std.Out, func(row func(...any)) {
					for _, a := range all.Users {
						row(a.User, day(a.Created), strings.Trim(a.roles(), " ()"))
					}
				})
			})
		},
	}
}

func deactivateUserCommand() command {
	erase := &Flag{Name: "erase", Help: "what the user has written is to be forgotten as far as possible"}
	return command{
		name: "user deactivate", args: "NAME", least: 1, most: 1, flags: []*Flag{erase},
		help: "close an account for good; nobody can have its name again",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				var who nameAnswer
				in := userRequest{Name: c.args[0], Erase: erase.Given()}
				if err := socket.do(ctx, "/user/deactivate", in, &who); err != nil {
					return err
				}
				fmt.Fprintf(c.std.Out, "deactivated %s\n", who.User)
				return nil
			})
		},
	}
}

func addTokenCommand() command {
	uses := &Flag{Name: "uses", Arg: "N", Help: "how many accounts it is good for (default: 1, 0: without bound)"}
	days := &Flag{Name: "days", Arg: "N", Help: "for how many days it is good (default: for ever)"}
	return command{
		name: "token add", args: "[TOKEN]", most: 1, flags: []*Flag{uses, days},
		help: "make a registration token, for --registration token",
		run: func(ctx context.Context, c call) error {
			in, err := tokenFlags(uses, days)
			if err != nil {
				return err
			}
			if len(c.args) > 0 {
				in.Token = c.args[0]
			}
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				var made token
				if err := socket.do(ctx, "/token/add", in, &made); err != nil {
					return err
				}
				fmt.Fprintln(c.std.Out, made.Token)
				return nil
			})
		},
	}
}

func tokenFlags(uses, days *Flag) (tokenRequest, error) {
	in := tokenRequest{Uses: 1}
	for _, f := range []struct {
		flag *Flag
		to   *uint64
	}{{uses, &in.Uses}, {days, &in.Days}} {
		if !f.flag.Given() {
			continue
		}
		n, err := strconv.ParseUint(f.flag.Value, 10, 32)
		if err != nil {
			return in, usage("--%s: %q is no number", f.flag.Name, f.flag.Value)
		}
		*f.to = n
	}
	return in, nil
}

func listTokensCommand() command {
	return command{
		name: "token list", help: "list the registration tokens",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				var all tokensAnswer
				if err := socket.do(ctx, "/token/list", struct{}{}, &all); err != nil {
					return err
				}
				return table(c.std.Out, func(row func(...any)) {
					for _, t := range all.Tokens {
						row(t.Token, t.used(), t.end())
					}
				})
			})
		},
	}
}

// used says how often a token was used, and of how many times.
func (t token) used() string {
	if t.Allowed == 0 {
		return fmt.Sprintf("used %d times", t.Completed)
	}
	return fmt.Sprintf("used %d of %d times", t.Completed, t.Allowed)
}

// end says until when a token is good.
func (t token) end() string {
	switch {
	case !t.Valid:
		return "no longer valid"
	case t.Expires.IsZero():
		return "no end"
	}
	return "until " + t.Expires.Local().Format(time.DateTime)
}

func revokeTokenCommand() command {
	return command{
		name: "token revoke", args: "TOKEN", least: 1, most: 1, help: "make a registration token worthless",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				return socket.do(ctx, "/token/revoke", tokenRequest{Token: c.args[0]}, &struct{}{})
			})
		},
	}
}

func listRoomsCommand() command {
	return command{
		name: "room list", help: "list the rooms that the server knows",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				var all roomsAnswer
				if err := socket.do(ctx, "/room/list", struct{}{}, &all); err != nil {
					return err
				}
				return table(c.std.Out, func(row func(...any)) {
					for _, r := range all.Rooms {
						row(r.Room, "version "+r.Version, fmt.Sprintf("%d members, %d here", r.Joined, len(r.Local)),
							fmt.Sprintf("%d servers", r.Servers), fmt.Sprintf("%d extremities", r.Extremities),
							r.size(), strings.Join(r.Aliases, " "))
					}
				})
			})
		},
	}
}

// size says how much of the database is the room's.
func (r room) size() string {
	if r.Bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", (r.Bytes+1<<10-1)>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(r.Bytes)/(1<<20))
}

func leaveRoomCommand() command {
	return command{
		name: "room leave", args: "ROOM", least: 1, most: 1, help: "make all of this server's users leave a room",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				var gone leftAnswer
				if err := socket.do(ctx, "/room/leave", roomRequest{c.args[0]}, &gone); err != nil {
					return err
				}
				for _, user := range gone.Left {
					fmt.Fprintf(c.std.Out, "%s left\n", user)
				}
				return nil
			})
		},
	}
}

func purgeRoomCommand() command {
	return command{
		name: "room purge", args: "ROOM", least: 1, most: 1,
		help: "make all of this server's users leave a room, and remove all that is stored of it",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				body, err := socket.open(ctx, "/room/purge", roomRequest{c.args[0]})
				if err != nil {
					return err
				}
				defer body.Close()
				return printPurge(c.std.Out, c.args[0], jsontext.NewDecoder(body))
			})
		},
	}
}

// printPurge prints how a purge goes on, until it is done.
func printPurge(w io.Writer, room string, answers *jsontext.Decoder) error {
	for {
		var p purgeAnswer
		if err := json.UnmarshalDecode(answers, &p); err != nil {
			return fmt.Errorf("the server has stopped and will go on with the purge: %w", err)
		}
		switch {
		case p.Error != "":
			return errors.New(p.Error)
		case p.Done:
			fmt.Fprintf(w, "purged %s: %d records removed\n", room, p.Removed)
			return nil
		case p.Left != "":
			fmt.Fprintf(w, "%s left\n", p.Left)
		default:
			fmt.Fprintf(w, "%d records removed so far\n", p.Removed)
		}
	}
}

// table writes rows in columns.
func table(w io.Writer, rows func(row func(...any))) error {
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows(func(cells ...any) {
		for i, cell := range cells {
			if i > 0 {
				fmt.Fprint(columns, "\t")
			}
			fmt.Fprint(columns, cell)
		}
		fmt.Fprintln(columns)
	})
	return columns.Flush()
}

// day writes the date of a time.
func day(t time.Time) string { return t.Local().Format(time.DateOnly) }
