// Package page reads what a web page tells about itself for previews of links: its
// OpenGraph properties, and its title and description where it has none. It is
// pure: bytes in, texts out. It takes a page as a stream of tokens and builds no
// tree of it.
//
// Spec: The Open Graph protocol, https://ogp.me/.
package page

import (
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// Bounds of what is taken of a page.
const (
	maxProperties = 32
	maxName       = 64   // bytes of a property's name
	maxText       = 2048 // bytes of a property's text
)

// Read returns the OpenGraph properties of a page, by their names ("og:title"), the
// first of each. "og:title" and "og:description" are there also if the page has
// them only in the old forms. Of a page that is cut short, it returns what is in
// the part that is there; the error is that of r alone.
func Read(r io.Reader) (map[string]string, error) {
	p := &parser{properties: make(map[string]string)}
	z := html.NewTokenizer(r)
	for {
		switch z.Next() {
		case html.ErrorToken:
			err := z.Err()
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil
			}
			return p.end(), err
		case html.StartTagToken, html.SelfClosingTagToken:
			p.start(z)
		case html.TextToken:
			if p.inTitle && len(p.title) < maxText {
				p.title += string(z.Text())
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			switch atom.Lookup(name) {
			case atom.Title:
				p.inTitle = false
			case atom.Head:
				if p.properties["og:title"] != "" {
					return p.end(), nil
				}
			}
		}
	}
}

// parser is a page that is being read.
type parser struct {
	properties  map[string]string
	title       string
	description string
	inTitle     bool
}

// start takes a tag.
func (p *parser) start(z *html.Tokenizer) {
	name, more := z.TagName()
	switch atom.Lookup(name) {
	case atom.Title:
		p.inTitle = p.title == "" // an image in the page may have a title, too
	case atom.Meta:
		if more {
			p.meta(z)
		}
	}
}

// meta takes the attributes of a tag meta.
func (p *parser) meta(z *html.Tokenizer) {
	var name, content string
	for more := true; more; {
		var key, value []byte
		key, value, more = z.TagAttr()
		switch string(key) {
		case "property":
			name = strings.ToLower(string(value))
		case "name": // which some pages write instead
			if name == "" {
				name = strings.ToLower(string(value))
			}
		case "content":
			content = clean(string(value))
		}
	}
	if name == "description" && p.description == "" {
		p.description = content
	}
	_, known := p.properties[name]
	if strings.HasPrefix(name, "og:") && !known && content != "" && len(name) <= maxName && utf8.ValidString(name) && len(p.properties) < maxProperties {
		p.properties[name] = content
	}
}

// end fills in what the page has in another form.
func (p *parser) end() map[string]string {
	for name, text := range map[string]string{"og:title": clean(p.title), "og:description": p.description} {
		if p.properties[name] == "" && text != "" {
			p.properties[name] = text
		}
	}
	return p.properties
}

// clean returns a text without the white space of its source, and not too long.
// What is no UTF-8 is taken for the most common of the old encodings.
func clean(s string) string {
	if !utf8.ValidString(s) {
		s = fromWindows1252(s)
	}
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}

// windows1252 are the characters of the bytes 0x80 to 0x9F. Five stand for none.
var windows1252 = [32]rune{
	'€', '\uFFFD', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\uFFFD', 'Ž', '\uFFFD',
	'\uFFFD', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\uFFFD', 'ž', 'Ÿ',
}

func fromWindows1252(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := rune(s[i])
		if c >= 0x80 && c < 0xA0 {
			c = windows1252[c-0x80]
		}
		b.WriteRune(c)
	}
	return b.String()
}
