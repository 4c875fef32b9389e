package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// UsageError is a command line or a configuration that is wrong: the process ends
// with exit code 2.
type UsageError struct{ Text string }

// Error returns the text.
func (e *UsageError) Error() string { return e.Text }

func usage(format string, args ...any) error {
	return &UsageError{fmt.Sprintf(format, args...)}
}

// configFile is the name of the configuration file in the data directory.
const configFile = "hearth.toml"

// source is where a setting was found, with the strongest last.
type source struct {
	origin string // "--listen", "HEARTH_LISTEN", "hearth.toml: listen"
	text   string
}

// loader gathers settings from the three places.
type loader struct {
	config   Config
	settings []setting
	found    map[string]source // by the setting's name
	file     string            // of --config
	rest     []string          // arguments that are no flags
}

// Load makes the configuration from flags, the environment and hearth.toml, in
// this order of strength. args are the arguments after the command; more are the
// flags of the command itself. It returns the arguments that are no flags. What
// is unknown or malformed is a *UsageError that names the place.
func Load(args, environ []string, more ...*Flag) (Config, []string, error) {
	l := &loader{found: make(map[string]source)}
	l.settings = l.config.settings()
	flags := make(map[string]source)
	if err := l.readFlags(args, more, flags); err != nil {
		return Config{}, nil, err
	}
	if err := l.readEnv(environ); err != nil {
		return Config{}, nil, err
	}
	env := l.found
	l.found = make(map[string]source)
	if err := l.readFile(first(flags["data"], env["data"])); err != nil {
		return Config{}, nil, err
	}
	for _, stronger := range []map[string]source{env, flags} {
		for name, src := range stronger {
			l.found[name] = src
		}
	}
	if err := l.apply(); err != nil {
		return Config{}, nil, err
	}
	return l.config, l.rest, l.config.check()
}

// first returns the text of the first source that was found.
func first(sources ...source) string {
	for _, s := range sources {
		if s.origin != "" {
			return s.text
		}
	}
	return ""
}

// Flag is a flag of one command, beside the settings.
type Flag struct {
	Name string
	Arg  string // what it takes; empty: nothing
	Help string

	Value string // what was given; "on" for a flag without argument
}

// Given reports whether the flag was on the command line.
func (f *Flag) Given() bool { return f.Value != "" }

// readFlags reads --name=value, --name value and, for bare ones, --name. One dash
// does as well.
func (l *loader) readFlags(args []string, more []*Flag, flags map[string]source) error {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			l.rest = append(l.rest, args...)
			return nil
		}
		if len(arg) < 2 || arg[0] != '-' {
			l.rest = append(l.rest, arg)
			continue
		}
		name, text, hasText := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		bare, err := l.takesNothing(name, more)
		if err != nil {
			return err
		}
		switch {
		case !hasText && bare:
			text = string(On)
		case !hasText && len(args) == 0:
			return usage("--%s needs a value", name)
		case !hasText:
			text, args = args[0], args[1:]
		}
		l.setFlag(name, text, more, flags)
	}
	return nil
}

// takesNothing reports whether a flag may stand alone.
func (l *loader) takesNothing(name string, more []*Flag) (bool, error) {
	var names []string
	for _, f := range more {
		if f.Name == name {
			return f.Arg == "", nil
		}
		names = append(names, f.Name)
	}
	if name == "config" {
		return false, nil
	}
	for _, s := range l.settings {
		if s.name == name {
			return s.bare, nil
		}
		names = append(names, s.name)
	}
	return false, unknown("--", name, append(names, "config"))
}

func (l *loader) setFlag(name, text string, more []*Flag, flags map[string]source) {
	for _, f := range more {
		if f.Name == name {
			f.Value = text
			return
		}
	}
	if name == "config" {
		l.file = text
		return
	}
	flags[name] = source{"--" + name, text}
}

// readEnv reads the variables that begin with HEARTH_. An empty one counts as
// not set.
func (l *loader) readEnv(environ []string) error {
	var names []string
	byEnv := make(map[string]string)
	for _, s := range l.settings {
		byEnv[s.env()] = s.name
		names = append(names, s.env())
	}
	for _, kv := range environ {
		key, text, _ := strings.Cut(kv, "=")
		switch name, known := byEnv[key]; {
		case !strings.HasPrefix(key, envPrefix) || text == "":
		case key == envPrefix+"CONFIG":
			if l.file == "" {
				l.file = text
			}
		case !known:
			return unknown("", key, append(names, envPrefix+"CONFIG"))
		default:
			l.found[name] = source{key, text}
		}
	}
	return nil
}

// readFile reads the file of --config, or hearth.toml in the data directory if
// there is one.
func (l *loader) readFile(data string) error {
	name, must := l.file, true
	if name == "" {
		if data == "" {
			data = l.initial("data")
		}
		name, must = filepath.Join(data, configFile), false
	}
	content, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return nil
	}
	if err != nil {
		return usage("configuration: %v", err)
	}
	var lines map[string]any
	if err := toml.Unmarshal(content, &lines); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, _ := at.Position()
			return usage("%s: line %d: %v", name, row, err)
		}
		return usage("%s: %v", name, err)
	}
	for key, v := range lines {
		text, err := tomlText(v)
		if err != nil {
			return usage("%s: %s: %v", name, key, err)
		}
		if !slices.ContainsFunc(l.settings, func(s setting) bool { return s.name == key }) {
			return unknown(name+": ", key, l.names())
		}
		l.found[key] = source{name + ": " + key, text}
	}
	return nil
}

// tomlText returns a value of the file as one would write it on the command line.
func tomlText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case bool:
		if v {
			return string(On), nil
		}
		return string(Off), nil
	case []any:
		var parts []string
		for _, e := range v {
			part, isText := e.(string)
			if !isText {
				return "", errors.New("a list holds text only")
			}
			parts = append(parts, part)
		}
		return strings.Join(parts, ","), nil
	default:
		return "", errors.New("want text, a number, true or false, or a list of text")
	}
}

func (l *loader) names() []string {
	var names []string
	for _, s := range l.settings {
		names = append(names, s.name)
	}
	return names
}

// initial returns the default text of a setting.
func (l *loader) initial(name string) string {
	for _, s := range l.settings {
		if s.name == name {
			return s.initial
		}
	}
	return ""
}

// apply sets the fields to what was found, else to the defaults.
func (l *loader) apply() error {
	for _, s := range l.settings {
		src, given := l.found[s.name]
		if !given {
			continue
		}
		if err := s.value.set(src.text); err != nil {
			return usage("%s: %v", src.origin, err)
		}
	}
	l.config = l.config.withDefaults()
	return nil
}

// withDefaults returns c with its zero fields set to the defaults.
func (c Config) withDefaults() Config {
	for _, s := range c.settings() {
		if s.initial == "" || !s.value.zero() {
			continue
		}
		if err := s.value.set(s.initial); err != nil {
			panic(fmt.Sprintf("default of --%s: %v", s.name, err)) // a test sets them all
		}
	}
	if c.Memory == 0 {
		c.Memory = defaultMemory(os.DirFS("/"))
	}
	return c
}

// check holds settings to each other.
func (c *Config) check() error {
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return usage("--tls-cert and --tls-key belong together")
	case (len(c.TURNURIs) == 0) != (c.TURNSecret == ""):
		return usage("--turn-uris and --turn-secret belong together")
	case len(c.ListenTLS) > 0 && c.TLSCert == "":
		return usage("--listen-tls needs a certificate: give --tls-cert and --tls-key")
	case len(c.Listen)+len(c.ListenTLS) == 0:
		return usage("--listen and --listen-tls are both off: nobody could reach the server")
	}
	for _, s := range c.settings() {
		if s.later != "" && s.departs() {
			return usage("--%s: %s", s.name, s.later)
		}
	}
	return nil
}

// Warnings returns a sentence for each setting that asks for what this release
// does not have.
func (c *Config) Warnings() []string {
	var all []string
	for _, s := range c.settings() {
		if s.warn != "" && s.departs() {
			all = append(all, "--"+s.name+": "+s.warn)
		}
	}
	return all
}
