package page

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name, page string
		want       map[string]string
	}{
		{"nothing", "", map[string]string{}},
		{"no page", "just text", map[string]string{}},
		{"OpenGraph", `<html><head><title>Other</title><meta property="og:title" content="The &quot;Rock&quot;"/>
			<META PROPERTY="OG:Type" CONTENT="video.movie"><meta content=test.png property='og:image'>
			<meta property="og:title" content="a second"></head>`,
			map[string]string{"og:title": `The "Rock"`, "og:type": "video.movie", "og:image": "test.png"}},
		{"old forms", "<title>\n A  page &amp; more </title><meta name=description content=' of \n old '><svg><title>x</title></svg>",
			map[string]string{"og:title": "A page & more", "og:description": "of old"}},
		{"by name", `<meta name="og:title" content="x">`, map[string]string{"og:title": "x"}},
		{"others", `<meta property="twitter:title" content="x"><meta property="og:empty" content=""><meta property="og:none">`, map[string]string{}},
		{"in the body", `<head></head><body><meta property="og:title" content="late">`, map[string]string{"og:title": "late"}},
		{"in a script", `<script>"<meta property='og:title' content='x'>"</script><!-- <title>y</title> -->`, map[string]string{}},
		{"cut short", `<title>x</title><meta property="og:ti`, map[string]string{"og:title": "x"}},
		{"old encoding", "<title>caf\xe9 \x80</title>", map[string]string{"og:title": "café €"}},
		{"emoji", "<title>🐔</title>", map[string]string{"og:title": "🐔"}},
	} {
		got, err := Read(strings.NewReader(tt.page))
		if err != nil || !maps.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
	fault := errors.New("the line broke")
	if _, err := Read(iotest.ErrReader(fault)); !errors.Is(err, fault) {
		t.Errorf("a broken connection: %v", err)
	}
}

// A page that wants to be large stays within the bounds.
func TestReadIsBounded(t *testing.T) {
	var b strings.Builder
	for i := range 1000 {
		b.WriteString(`<meta property="og:x` + strings.Repeat("y", i) + `" content="` + strings.Repeat("ä", 5000) + `">`)
	}
	got, err := Read(strings.NewReader(b.String()))
	if err != nil || len(got) > maxProperties+2 {
		t.Errorf("%d properties, %v", len(got), err)
	}
	for name, text := range got {
		if len(name) > maxName || len(text) > maxText || !utf8.ValidString(text) {
			t.Errorf("%d bytes of name, %d of text", len(name), len(text))
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`<title>x</title><meta property="og:title" content="y">`)
	f.Add("<meta name=description content=\xff><title>\x80")
	f.Fuzz(func(t *testing.T, page string) {
		got, err := Read(strings.NewReader(page))
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range got {
			if !utf8.ValidString(name) || !utf8.ValidString(text) || text == "" {
				t.Errorf("%q: %q", name, text)
			}
		}
	})
}
