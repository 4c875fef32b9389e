package server

import (
	"fmt"
	"io"
	"strings"
)

// writeHelp answers "hearth help [COMMAND]" and "hearth COMMAND -h".
func writeHelp(w io.Writer, all []command, topic []string) error {
	switch {
	case len(topic) == 0:
		writeOverview(w, all)
		return nil
	case topic[0] == "config":
		writeSample(w)
		return nil
	}
	c, _, err := find(all, topic)
	switch {
	case err != nil:
		return err
	case c.name == "serve":
		writeSettings(w)
	default:
		writeCommand(w, c)
	}
	return nil
}

// writeOverview writes the list of the commands.
func writeOverview(w io.Writer, all []command) {
	fmt.Fprint(w, `Hearth is a Matrix homeserver for one household.

usage: hearth [serve] [settings]
       hearth COMMAND [arguments] [--data DIR]

commands:
`)
	for _, c := range all {
		if !c.hidden {
			fmt.Fprintf(w, "  %-24s %s\n", strings.TrimSpace(c.name+" "+c.args), c.help)
		}
	}
	fmt.Fprint(w, `
"hearth serve -h" lists the settings, "hearth help config" prints a hearth.toml,
"hearth help COMMAND" tells more of a command.
`)
}

// writeCommand writes the help of one command.
func writeCommand(w io.Writer, c command) {
	fmt.Fprintf(w, "usage: hearth %s\n\n%s.\n", strings.TrimSpace(c.name+" "+c.args), upperFirst(c.help))
	if len(c.flags) > 0 {
		fmt.Fprintln(w)
	}
	for _, f := range c.flags {
		fmt.Fprintf(w, "  %-20s %s\n", strings.TrimSpace("--"+f.Name+" "+f.Arg), f.Help)
	}
	fmt.Fprint(w, "\nThe settings of \"hearth serve\" hold here too; --data DIR says where the data is.\n")
}

// writeSettings writes the help of every setting.
func writeSettings(w io.Writer) {
	fmt.Fprintf(w, `usage: hearth [serve] [settings]

Each setting is a flag, a line of hearth.toml in the data directory (or of
--config FILE) and an environment variable: --log-level debug, log-level =
"debug", %sLOG_LEVEL=debug. A flag is stronger than the environment, and
the environment is stronger than the file.
`, envPrefix)
	for _, s := range new(Config).settings() {
		if s.group != "" {
			fmt.Fprintf(w, "\n%s:\n", s.group)
		}
		fmt.Fprintf(w, "  %s\n", strings.TrimSpace("--"+s.name+" "+s.arg))
		fmt.Fprintf(w, "      %s%s\n", s.help, s.defaultNote())
		if note := s.later + s.warn; note != "" {
			fmt.Fprintf(w, "      (%s)\n", note)
		}
	}
}

// defaultNote says what holds where a setting is not given.
func (s setting) defaultNote() string {
	switch {
	case s.computed != "":
		return " (default: " + s.computed + ")"
	case s.initial != "":
		return " (default: " + s.initial + ")"
	}
	return ""
}

// writeSample writes a hearth.toml in which every line is a comment with the
// default.
func writeSample(w io.Writer) {
	fmt.Fprint(w, "# hearth.toml: settings of a Hearth server. A line without # in front counts.\n")
	for _, s := range new(Config).settings() {
		if s.group != "" {
			fmt.Fprintf(w, "\n## %s\n", s.group)
		}
		fmt.Fprintf(w, "\n# %s%s\n", s.help, s.sampleNote())
		fmt.Fprintf(w, "#%s = %s\n", s.name, s.tomlDefault())
	}
}

// sampleNote says what values there are and what holds without the line.
func (s setting) sampleNote() string {
	switch {
	case s.computed != "":
		return " (default: " + s.computed + ")"
	case strings.Contains(s.arg, "|"):
		return " (" + strings.ReplaceAll(s.arg, "|", ", ") + ")"
	}
	return ""
}

// tomlDefault returns the default as a value of the file. A list is written as
// one, a number as a number.
func (s setting) tomlDefault() string {
	isNumber := s.initial != "" && strings.Trim(s.initial, "0123456789") == ""
	switch {
	case isNumber:
		return s.initial
	case strings.HasSuffix(s.arg, ",…") && (s.initial == "" || s.initial == "off"):
		return "[]"
	case strings.HasSuffix(s.arg, ",…"):
		return fmt.Sprintf("[%q]", s.initial)
	}
	return fmt.Sprintf("%q", s.initial)
}

// upperFirst returns s with a capital letter.
func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// unknown is the error for a name that is none of names; it suggests the nearest.
func unknown(prefix, name string, names []string) error {
	if near := nearest(name, names); near != "" {
		return usage("%s%s is not known: did you mean %s?", prefix, name, near)
	}
	return usage("%s%s is not known", prefix, name)
}

// nearest returns the one of names that takes the fewest changes to become name,
// or "" if even that one is far.
func nearest(name string, names []string) string {
	best, least := "", max(2, len(name)/3)+1
	for _, n := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance counts the letters to insert, drop or replace (Levenshtein).
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j]+1, row[j+1]+1, diagonal+cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
