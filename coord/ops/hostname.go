package ops

import (
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// CleanName makes a DNS label (RFC 1123) of what a device says its hostname
// is. The result is safe in a file name, an ssh_config, a URL and a page, and
// means nothing but a name: never an address, a number or "localhost"; other
// reserved names (dns.Reserved) are left to whoever gives names out. Letters
// with marks lose them ("Küche" is "kuche"): only an owner gives names beyond
// ASCII (see nameLabel), or a device could pass for another by letters that look alike.
// A hostname of which nothing is left becomes "device".
func CleanName(hostname string) string {
	if len(hostname) > 1024 {
		hostname = hostname[:1024]
	}
	// Of kitchen-pi.fritz.box the first label is the device.
	if host, _, ok := strings.Cut(hostname, "."); ok && host != "" {
		hostname = host
	}
	var b strings.Builder
	for _, c := range norm.NFKD.String(plainLetters.Replace(strings.ToLower(strings.ToValidUTF8(hostname, " ")))) {
		switch {
		case unicode.Is(unicode.Mn, c): // the mark of the letter before
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-") && !strings.ContainsRune("'’‘\"“”„`´", c):
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

// plainLetters are those that do not come apart into a letter and a mark.
var plainLetters = strings.NewReplacer("ß", "ss", "æ", "ae", "œ", "oe", "ø", "o", "đ", "d", "ł", "l", "þ", "th", "ı", "i")

// nameLabel makes the stored name of one that an owner gives to a device: in
// lower case, and of letters beyond ASCII their A-label (RFC 5891). ok is false
// for what is no name.
func nameLabel(name string) (label string, ok bool) {
	name = strings.TrimSpace(name)
	if len(name) > 255 {
		return "", false
	}
	label = strings.ToLower(name)
	ascii := strings.IndexFunc(label, func(c rune) bool { return c >= 0x80 }) < 0
	if ascii && !strings.HasPrefix(label, "xn--") {
		return label, validName(label)
	}
	label, err := idna.Lookup.ToASCII(name)
	if err != nil || len(label) > 56 || strings.Contains(label, ".") {
		return "", false
	}
	if u, err := idna.Lookup.ToUnicode(label); err != nil || u == label {
		return label, err == nil && validName(label) // folded to ASCII ("ＡＢＣ")
	}
	return label, true
}

// UnicodeName is a label as people write it: of the A-label "xn--kche-0ra" it is
// "küche". What is no A-label, or a damaged one, stays as it is.
func UnicodeName(label string) string {
	if !strings.HasPrefix(label, "xn--") {
		return label
	}
	u, err := idna.Lookup.ToUnicode(label)
	if err != nil || u == "" {
		return label
	}
	return u
}

// UnicodeDomain does the same with each label of a name.
func UnicodeDomain(name string) string {
	labels := strings.Split(name, ".")
	for i, l := range labels {
		labels[i] = UnicodeName(l)
	}
	return strings.Join(labels, ".")
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
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.TrimSpace(strings.ToValidUTF8(s, "")) // without half a rune at the end
}
