package cli

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf16"
)

func TestCleanToken(t *testing.T) {
	const token = "weft1cx3141r5ODgy5rYo77rAKnpcyQiLcdl77XgUVD8Mccpbrm"
	wide := func(s string, order binary.AppendByteOrder) string {
		var b []byte
		for _, u := range utf16.Encode([]rune(s)) {
			b = order.AppendUint16(b, u)
		}
		return string(b)
	}
	for name, in := range map[string]string{
		"plain": token, "line": token + "\n", "CRLF": token + "\r\n", "blank lines": "\n\n" + token + "\n\n", "blanks": "  " + token + " \t",
		"BOM": "\ufeff" + token + "\r\n", "quotes": `"` + token + `"` + "\n", "single quotes": "'" + token + "'", "typographic": "“" + token + "”",
		"wrapped": token[:20] + "\n" + token[20:40] + "\r\n  " + token[40:] + "\n", "no-break space": "\u00a0" + token + "\u00a0",
		"UTF-16LE": wide("\ufeff"+token+"\r\n", binary.LittleEndian), "UTF-16BE": wide("\ufeff"+token+"\r\n", binary.BigEndian),
		"UTF-16LE without a mark": wide(token+"\r\n", binary.LittleEndian), "UTF-16BE without": wide(token, binary.BigEndian),
		"quotes in UTF-16": wide("\ufeff\""+token+"\"\r\n", binary.LittleEndian), "quoted and wrapped": `"` + token[:30] + "\n" + token[30:] + `"`,
	} {
		if got, err := CleanToken([]byte(in)); got != token || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, in := range []string{"hello", "weft1a weft1b", token + "\n" + token, `"` + token, token + ";", "weft-server: weft1abc", "token " + token, "weft1ä", "\x00"} {
		if got, err := CleanToken([]byte(in)); err == nil || errors.Is(err, ErrNoToken) || strings.Contains(err.Error(), "weft1") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "\n", "\ufeff", `""`, "\xff\xfe", "  \r\n"} {
		if got, err := CleanToken([]byte(in)); !errors.Is(err, ErrNoToken) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}
