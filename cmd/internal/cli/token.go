package cli

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf16"
)

// MaxToken bounds what is read where a token is expected, in bytes.
const MaxToken = 16 << 10

// ErrNoToken is what CleanToken returns for nothing but blanks.
var ErrNoToken = errors.New("there is no token")

// CleanToken takes the token out of what an editor, a mail program or a shell
// made of it: a byte order mark, UTF-16, quotes, blanks, and line breaks around
// it and within (a token has no white space of its own). It never repeats what
// it was given.
func CleanToken(b []byte) (string, error) { return clean(b, tokenPrefix) }

// CleanAPIToken is CleanToken for a token of the server's API.
func CleanAPIToken(b []byte) (string, error) { return clean(b, apiTokenPrefix) }

func clean(b []byte, prefix string) (string, error) {
	s := strings.TrimSpace(decodeText(b))
	for _, q := range []string{`""`, `''`, "``", "“”", "„“", "‘’"} {
		open, end := q[:len(q)/2], q[len(q)/2:]
		if in, ok := strings.CutPrefix(s, open); ok && strings.HasSuffix(in, end) {
			s = strings.TrimSuffix(in, end)
			break
		}
	}
	words := strings.Fields(s)
	s = strings.Join(words, "")
	switch {
	case s == "":
		return "", ErrNoToken
	case !strings.HasPrefix(s, prefix):
		return "", errors.New("that is not a token")
	}
	for _, w := range words[1:] {
		if strings.HasPrefix(w, prefix) {
			return "", errors.New("there is more than one token")
		}
	}
	for _, c := range []byte(s) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return "", errors.New("that is not a token")
		}
	}
	return s, nil
}

const (
	tokenPrefix    = "weft1"
	apiTokenPrefix = "weftapi1"
)

// decodeText makes UTF-8 without a mark of what Windows' editors and PowerShell
// write.
func decodeText(b []byte) string {
	s := string(b)
	var order binary.ByteOrder
	switch {
	case strings.HasPrefix(s, "\xef\xbb\xbf"):
		return s[3:]
	case strings.HasPrefix(s, "\xff\xfe"):
		order, b = binary.LittleEndian, b[2:]
	case strings.HasPrefix(s, "\xfe\xff"):
		order, b = binary.BigEndian, b[2:]
	case len(b) > 1 && b[1] == 0:
		order = binary.LittleEndian
	case len(b) > 1 && b[0] == 0:
		order = binary.BigEndian
	default:
		return s
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}
