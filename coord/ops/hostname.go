package ops

import (
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// CleanName makes a DNS label (RFC 1123) of the hostname that a device claims. The result is
// safe in a file name, an ssh_config, a URL and a page, and is never an address, a number or
// "localhost". Callers have to check for other reserved names (dns.Reserved). Letters lose
// their diacritical marks ("Küche" becomes "kuche"): only people can give names beyond ASCII
// (nameLabel), because a device could otherwise pass for another by letters that look alike. If
// nothing is left the result is "device".
func CleanName(hostname string) string {
	if len(hostname) > 1024 {
		hostname = hostname[:1024]
	}
	// The first label names the device, as in kitchen-pi.fritz.box.
	if host, _, ok := strings.Cut(hostname, "."); ok && host != "" {
		hostname = host
	}
	var b strings.Builder
	for _, c := range norm.NFKD.String(plainLetters.Replace(strings.ToLower(strings.ToValidUTF8(hostname, " ")))) {
		switch {
		case unicode.Is(unicode.Mn, c): // the mark of the letter before it
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-") && !strings.ContainsRune("'’‘\"“”„`´", c):
			b.WriteByte('-') // one for any number of other characters, so the result never begins with "xn--"
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

// plainLetters replaces letters that NFKD does not decompose into a plain letter and a mark.
var plainLetters = strings.NewReplacer("ß", "ss", "æ", "ae", "œ", "oe", "ø", "o", "đ", "d", "ł", "l", "þ", "th", "ı", "i")

// nameLabel returns the stored form of a name that a person gives to a device: in lower case,
// and as an A-label (RFC 5891) if it has letters beyond ASCII. ok is false if the name is not
// valid.
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
		return label, err == nil && validName(label) // it was mapped to ASCII, as "ＡＢＣ" is
	}
	return label, true
}

// UnicodeName returns a label in Unicode: "küche" for the A-label "xn--kche-0ra". It returns
// other labels, and invalid A-labels, unchanged.
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

// UnicodeDomain applies UnicodeName to each label of a name.
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

// printable makes untrusted text, such as what a device says about itself, fit for one line of
// at most limit bytes, without control characters and characters that reorder text.
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
	return strings.TrimSpace(strings.ToValidUTF8(s, "")) // limit may have cut a rune
}
