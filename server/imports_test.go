package server

import (
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// levels is the table of doc.go: a package imports only packages of a lower level.
// A folder that is not listed is a part of the nearest one above it that is: that
// one may import it, and both are on one level.
var levels = map[string]int{
	"":                  9, // main
	"server":            8,
	"acme":              8,
	"server/client":     7,
	"server/federation": 7,
	"server/oauth":      7,
	"server/owner":      7,
	"server/push":       6,
	"server/media":      6,
	"server/appservice": 6,
	"server/remote":     5,
	"server/api":        4,
	"server/e2ee":       4,
	"state":             3,
	"store":             2,
	"state/resolve":     2,
	"state/auth":        1,
	"store/segment":     1,
	"store/blob":        1,
	"state/matrix":      0,
}

// tools are packages main that stand beside what they serve: nothing imports them,
// and what they are about they may import.
var tools = map[string]string{
	"store/traindict": "store",
}

// module is the name of this module in go.mod.
const module = "hearth"

// listed returns the listed folder that a package belongs to, "" for main.
func listed(pkg string) string {
	for dir := pkg; dir != "."; dir = path.Dir(dir) {
		if _, found := levels[dir]; found {
			return dir
		}
	}
	return ""
}

// Every import of one of our packages goes down in the table.
func TestImportsGoDown(t *testing.T) {
	root := os.DirFS("..")
	seen := 0
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "testdata" || entry.Name() == "node_modules" || name != "." && strings.HasPrefix(entry.Name(), ".")) {
			return fs.SkipDir
		}
		if strings.HasSuffix(name, ".go") {
			seen++
			checkImports(t, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Errorf("only %d Go files were seen", seen)
	}
}

// checkImports holds one file to the table. Tests may import their own package.
func checkImports(t *testing.T, name string) {
	file, err := parser.ParseFile(gotoken.NewFileSet(), filepath.Join("..", name), nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	pkg := strings.TrimSuffix(path.Dir(name), ".")
	from := listed(pkg)
	for _, spec := range file.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		imported, ours := strings.CutPrefix(target, module+"/")
		if !ours || imported == pkg && strings.HasSuffix(name, "_test.go") {
			continue
		}
		if to := listed(imported); !mayImport(from, pkg, to, imported) {
			t.Errorf("%s (level %d) imports %s (level %d)", name, levels[from], target, levels[to])
		}
	}
}

// mayImport reports whether package pkg in the listed folder from may import the
// package imported in the folder to.
func mayImport(from, pkg, to, imported string) bool {
	switch {
	case to == "", tools[imported] != "":
		return false
	case to == from: // a tool may use what it is for, a folder its parts
		return tools[pkg] == imported || pkg == from && imported != to
	case from == "acme":
		return to == "store"
	}
	return levels[to] < levels[from]
}

// The rules are rules: they refuse what they are there to refuse.
func TestMayImport(t *testing.T) {
	for _, tt := range []struct {
		pkg, imported string
		want          bool
	}{
		{"", "server", true},
		{"server", "acme", false},
		{"server/client", "server/api", true},
		{"server/api", "server/client", false},
		{"server/client", "server/federation", false},
		{"server/media", "server/media/picture", true},
		{"server/media/picture", "server/media", false},
		{"server/media/picture", "server/api", true},
		{"server/client", "server/media/picture", true},
		{"store", "store/blob", true},
		{"store/blob", "store", false},
		{"store", "state/matrix", true},
		{"store", "state/auth", true},
		{"store", "state/resolve", false},
		{"state/auth", "state/resolve", false},
		{"acme", "store", true},
		{"acme", "state", false},
		{"store/traindict", "store", true},
		{"store", "store/traindict", false},
		{"server", "util", false},
	} {
		if got := mayImport(listed(tt.pkg), tt.pkg, listed(tt.imported), tt.imported); got != tt.want {
			t.Errorf("%s imports %s: %v", tt.pkg, tt.imported, got)
		}
	}
}
