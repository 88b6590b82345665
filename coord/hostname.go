package coord

import (
	"strconv"
	"strings"
	"unicode"
)

// CleanName makes a DNS label (RFC 1123) of what a device says its hostname
// is. The result is safe in a file name, an ssh_config, a URL and a page, and
// means nothing but a name: never an address, a number or "localhost". What
// leaves nothing becomes "device".
func CleanName(hostname string) string {
	if len(hostname) > 1024 {
		hostname = hostname[:1024]
	}
	// Of kitchen-pi.fritz.box the first label is the device.
	if host, _, ok := strings.Cut(hostname, "."); ok && host != "" {
		hostname = host
	}
	var b strings.Builder
	for _, c := range strings.ToLower(hostname) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-") && c != '\'' && c != '’':
			b.WriteByte('-') // one for any run of others, so never "xn--"
		}
		if b.Len() >= 56 {
			break
		}
	}
	name := strings.Trim(b.String(), "-")
	switch {
	case name == "" || name == "localhost":
		return "device"
	case isNumber(name):
		return "device-" + name
	}
	return name
}

// isNumber reports whether a program might take the label for (a part of) an
// IP address: 127, 0x7f, 0177.
func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 0, 64)
	digits := strings.Trim(s, "0123456789") == ""
	return err == nil || digits || strings.HasPrefix(s, "0x")
}

// validName reports whether a user may give this name to a device.
func validName(s string) bool { return s != "" && len(s) <= 56 && CleanName(s) == s }

// printable keeps what a device says about itself to one short line: bounded,
// no control characters, none that reorder text.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) || unicode.Is(unicode.Bidi_Control, r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s)
	for i := range s {
		if i > limit {
			s = s[:i]
			for len(s) > limit {
				s = s[:len(s)-1]
			}
			break
		}
	}
	return strings.ToValidUTF8(strings.TrimSpace(s), "")
}
