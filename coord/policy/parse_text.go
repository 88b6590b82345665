package policy

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// scan finds text that would mislead people or the parser: hidden characters; quotes,
// comments and brackets that are not closed; and brackets that are nested too deep.
func (r *reader) scan() {
	for i, c := range r.text {
		switch {
		case c == utf8.RuneError:
			r.wrong(i, "this is not Unicode")
			return
		case Hidden(c):
			r.wrong(i, "the character U+%04X is not allowed: it is invisible, or changes how other characters look", c)
			return
		}
	}
	var open []int // brackets
	for i := 0; i < len(r.text); i++ {
		rest := r.text[i:]
		switch {
		case rest[0] == '"':
			n := 1
			for n < len(rest) && rest[n] != '"' && rest[n] != '\n' {
				if n++; rest[n-1] == '\\' {
					n++
				}
			}
			if n >= len(rest) || rest[n] != '"' {
				r.wrong(i, "this text has no closing quote on its line")
				return
			}
			i += n
		case strings.HasPrefix(rest, "//"):
			n := strings.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest)
			}
			i += n
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				r.wrong(i, "this comment is not closed")
				return
			}
			i += n + 3
		case rest[0] == '{' || rest[0] == '[':
			if open = append(open, i); len(open) > maxDepth {
				r.wrong(i, "brackets are nested deeper than %d", maxDepth)
				return
			}
		case (rest[0] == '}' || rest[0] == ']') && len(open) > 0:
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		r.wrong(open[len(open)-1], "it ends too early: this bracket is not closed")
	}
}

// Hidden reports whether a policy must not contain a character, because it is invisible, ends
// a line for some programs only, or changes how other characters are shown. Characters that
// join letters are allowed: some languages need them.
func Hidden(c rune) bool {
	switch {
	case c < 0xa0:
		return c < ' ' && c != '\t' && c != '\n' && c != '\r' || c >= 0x7f
	case c < 0x200b:
		return c == 0xad || c == 0x61c || c == 0x180e
	case c == 0x200c || c == 0x200d:
		return false
	}
	return c <= 0x200f || c >= 0x2028 && c <= 0x202e || c >= 0x2060 && c <= 0x206f || c == 0xfeff || c >= 0xfff9 && c <= 0xfffb || c >= 0xe0000 && c <= 0xe007f
}

// syntax records the mistake that the JSON parser found.
func (r *reader) syntax(err error) {
	p := Remark{Text: "this is not JSON"}
	if _, e := fmt.Sscanf(err.Error(), "hujson: line %d, column %d:", &p.Line, &p.Column); e == nil && p.Line > 0 {
		start := 0 // the parser counts columns in bytes, and lines from 2
		if p.Line > 1 {
			start = append(r.ends, len(r.text))[min(p.Line-2, len(r.ends))] + 1
		}
		p.Line, p.Column = r.at(start + p.Column - 1)
	}
	switch cause := errors.Unwrap(err); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		p.Text = "it ends too early"
	case cause != nil && strings.HasPrefix(cause.Error(), "invalid character"): // other errors repeat the whole text
		p.Text += ": " + cause.Error()
	}
	r.problems = append(r.problems, p)
}
