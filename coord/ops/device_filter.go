package ops

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// DeviceFilter selects the devices that fit every term. The zero value selects all.
//
// As text, terms are separated by spaces:
//
//	is:online    also offline, attention, expired, pending, unaware, ephemeral
//	tag:camera   has this tag; tag:camera,sensor has one of them; tag: has none
//	owner:anna   belongs to this user
//	os:linux     has this in its system, as stored (darwin/arm64) or as shown (macOS)
//	version:1.2  runs 1.2 or 1.2.x; version:<1.2 runs something older; also <=, > and >=
//	seen:>7d     was last seen more than 7 days ago; seen:<1h within the last hour;
//	             units s, m, h, d and w; seen:never
//	relay:NAME   is connected to this relay
//	word         has this in its name, an address, a tag, its owner, system, version or relay
//
// A minus before a term negates it: -tag:camera. In quotes, spaces and signs have no special
// meaning: owner:"anna b", "-x"; a quote inside quotes is written twice. The keys tag, owner,
// os, relay and is take several values, separated by commas; a device fits if one of them
// does.
type DeviceFilter struct{ Terms []FilterTerm }

// FilterTerm is one condition of a DeviceFilter.
type FilterTerm struct {
	Key   string // "" for a word
	Value string // as typed, without the minus, the key and the quotes
	Not   bool

	word  string        // for a word: Value, folded
	any   []string      // for keys that take several values
	op    string        // for version and seen: "", "<", "<=", ">" or ">="
	bound string        // for version: the version to compare with
	age   time.Duration // for seen; never for "never"
}

const (
	maxFilter      = 1000 // bytes
	maxFilterTerms = 40
	never          = time.Duration(1<<63 - 1)
)

// FilterStates are the values of is:.
var FilterStates = []string{"online", "offline", "attention", "expired", "pending", "unaware", "ephemeral"}

// FilterKeys are the keys of a DeviceFilter.
var FilterKeys = []string{"is", "tag", "owner", "os", "version", "seen", "relay"}

// otherKeys are words that people may type instead of the keys.
var otherKeys = map[string]string{"user": "owner", "system": "os", "state": "is", "status": "is", "last": "seen", "lastseen": "seen", "tags": "tag"}

// ParseDeviceFilter parses the text of a filter. Its errors are ErrInvalid, and their text is
// meant for the person who typed the filter.
func ParseDeviceFilter(text string) (f DeviceFilter, err error) {
	if len(text) > maxFilter {
		return f, Invalid("a filter has at most %d bytes", maxFilter)
	}
	rest := strings.ToValidUTF8(text, "\uFFFD")
	for {
		var t filterToken
		if t, rest = nextToken(rest); t.raw == "" {
			return f, nil
		}
		if len(f.Terms) == maxFilterTerms {
			return f, Invalid("a filter has at most %d terms", maxFilterTerms)
		}
		term, err := t.term()
		if err != nil {
			return DeviceFilter{}, err
		}
		if term.Key != "" || term.Value != "" { // ignore terms without content, such as "" or -
			f.Terms = append(f.Terms, term)
		}
	}
}

// filterToken is a term as it is written.
type filterToken struct {
	raw   string // "" at the end of the text
	not   bool
	key   string // the part before a colon outside quotes
	keyed bool   // there is a key
	value string
}

// nextToken returns the first term of a text, and the rest of the text.
func nextToken(text string) (t filterToken, rest string) {
	text = strings.TrimLeftFunc(text, unicode.IsSpace)
	var b strings.Builder
	quoted, plain := false, true // plain: there was no quote yet
	i := 0
	for i < len(text) {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '"' && quoted && strings.HasPrefix(text[i+1:], `"`):
			b.WriteRune('"')
			size = 2
		case r == '"':
			quoted, plain = !quoted, false
		case quoted:
			b.WriteRune(r)
		case unicode.IsSpace(r):
			t.raw, t.value = text[:i], b.String()
			return t, text[i:]
		case r == '-' && i == 0:
			t.not = true
		case r == ':' && plain && !t.keyed && isKey(b.String()):
			t.key, t.keyed = strings.ToLower(b.String()), true
			b.Reset()
		default:
			b.WriteRune(r)
		}
		i += size
	}
	t.raw, t.value = text, b.String()
	return t, ""
}

// isKey reports whether the text before a colon is a key, perhaps a wrong one: letters only,
// but not hexadecimal digits, which begin an IPv6 address.
func isKey(s string) bool {
	return keyPattern.MatchString(s) && !hexPattern.MatchString(s)
}

var (
	keyPattern     = regexp.MustCompile(`^[A-Za-z]{1,20}$`)
	hexPattern     = regexp.MustCompile(`^[0-9A-Fa-f]*$`)
	versionPattern = regexp.MustCompile(`^(<=|>=|<|>|=)?v?([0-9A-Za-z][0-9A-Za-z.+~-]{0,40})$`)
	seenPattern    = regexp.MustCompile(`^([<>])=?([0-9]{1,5})([smhdw])$`)
	seenUnits      = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
)

// term returns the condition that a token stands for.
func (t filterToken) term() (FilterTerm, error) {
	f := FilterTerm{Key: t.key, Value: t.value, Not: t.not}
	if !t.keyed {
		f.word = folded(t.value)
		return f, nil
	}
	if other, ok := otherKeys[f.Key]; ok {
		f.Key = other
	}
	switch f.Key {
	case "is":
		f.Value = strings.ToLower(f.Value)
		f.any = valuesOf(f.Value)
		if len(f.any) == 0 || slices.ContainsFunc(f.any, func(v string) bool { return !slices.Contains(FilterStates, v) }) {
			return f, Invalid("is:%s: a device is %s", short(f.Value), orList(FilterStates))
		}
	case "tag":
		for _, v := range valuesOf(f.Value) {
			f.any = append(f.any, strings.TrimPrefix(strings.TrimPrefix(v, "#"), "tag:"))
		}
	case "owner", "os", "relay":
		for _, v := range valuesOf(f.Value) {
			f.any = append(f.any, folded(v))
		}
		if len(f.any) == 0 {
			return f, Invalid("%s: want a value, such as %[1]s:%s", f.Key, map[string]string{"owner": "anna", "os": "linux", "relay": relayName}[f.Key])
		}
	case "version":
		m := versionPattern.FindStringSubmatch(f.Value)
		if m == nil {
			return f, Invalid("version:%s: want a version, such as version:1.2 or version:<1.2", short(f.Value))
		}
		f.op, f.bound = strings.TrimPrefix(m[1], "="), m[2]
	case "seen":
		f.Value = strings.ToLower(f.Value)
		if f.Value == "never" {
			f.age = never
			break
		}
		m := seenPattern.FindStringSubmatch(f.Value)
		if m == nil {
			return f, Invalid("seen:%s: want seen:>7d, seen:<1h or seen:never; units are s, m, h, d and w", short(f.Value))
		}
		n, err := strconv.Atoi(m[2])
		if err != nil {
			return f, Invalid("seen:%s: %v", short(f.Value), err)
		}
		f.op, f.age = m[1], time.Duration(n)*seenUnits[m[3]]
	default:
		return f, Invalid("there is no filter %q; use %s, or put the word in quotes to search for it", short(t.key)+":", orList(FilterKeys))
	}
	return f, nil
}

func valuesOf(list string) (out []string) {
	for v := range strings.SplitSeq(list, ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

// short truncates typed text for an error message.
func short(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

func orList(words []string) string {
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// folded returns a text for comparisons: in lower case and in Unicode normal form C.
func folded(s string) string { return strings.ToLower(norm.NFC.String(s)) }

// String returns the filter as text. ParseDeviceFilter makes the same filter of it.
func (f DeviceFilter) String() string {
	var b strings.Builder
	for i, t := range f.Terms {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.String())
	}
	return b.String()
}

// String is the term as text.
func (t FilterTerm) String() string {
	s := ""
	if t.Not {
		s = "-"
	}
	if t.Key != "" {
		return s + t.Key + ":" + quotedIf(t.Value, strings.ContainsFunc(t.Value, unicode.IsSpace) || strings.Contains(t.Value, `"`))
	}
	head, _, colon := strings.Cut(t.Value, ":")
	return s + quotedIf(t.Value, strings.HasPrefix(t.Value, "-") || colon && isKey(head) || strings.ContainsFunc(t.Value, unicode.IsSpace) || strings.Contains(t.Value, `"`))
}

func quotedIf(s string, yes bool) string {
	if !yes {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// With returns the filter with one more term, unless it has that term already.
func (f DeviceFilter) With(t FilterTerm) DeviceFilter {
	if slices.ContainsFunc(f.Terms, func(o FilterTerm) bool { return o.String() == t.String() }) {
		return f
	}
	return DeviceFilter{append(slices.Clone(f.Terms), t)}
}

// Without returns the filter without its i-th term.
func (f DeviceFilter) Without(i int) DeviceFilter {
	return DeviceFilter{slices.Delete(slices.Clone(f.Terms), i, i+1)}
}

// fits reports whether a device fits every term.
func (f DeviceFilter) fits(d *listed) bool {
	for i := range f.Terms {
		if t := &f.Terms[i]; t.fits(d) == t.Not {
			return false
		}
	}
	return true
}

// fits reports whether a device fits the term, without regard to Not.
func (t *FilterTerm) fits(d *listed) bool {
	switch t.Key {
	case "is":
		return slices.ContainsFunc(t.any, d.is)
	case "tag":
		return len(t.any) == 0 && len(d.Tags) == 0 || slices.ContainsFunc(t.any, func(v string) bool { return slices.Contains(d.Tags, v) })
	case "owner":
		return slices.Contains(t.any, folded(d.User))
	case "os":
		return slices.ContainsFunc(t.any, func(v string) bool {
			return strings.Contains(folded(d.OS), v) || strings.Contains(folded(SystemName(d.OS)), v)
		})
	case "relay":
		relay := d.relay()
		return relay != "" && slices.Contains(t.any, folded(relay))
	case "version":
		c := CompareVersions(d.Software, t.bound)
		switch t.op {
		case "<":
			return c < 0
		case "<=":
			return c <= 0
		case ">":
			return c > 0
		case ">=":
			return c >= 0
		}
		version := strings.TrimPrefix(d.Software, "v")
		rest, ok := strings.CutPrefix(version, t.bound)
		return c == 0 && version != "" || ok && (rest == "" || strings.ContainsAny(rest[:1], ".-+"))
	case "seen":
		age := d.age()
		switch {
		case t.age == never:
			return age == never
		case t.op == "<":
			return age < t.age
		}
		return age > t.age
	}
	return d.has(t.word)
}

var systemNames = map[string]string{"linux": "Linux", "darwin": "macOS", "windows": "Windows", "freebsd": "FreeBSD", "openbsd": "OpenBSD", "android": "Android", "ios": "iOS"}

// SystemName returns the usual name of an operating system: "macOS, arm64" for "darwin/arm64".
// Unknown systems stay as they are.
func SystemName(os string) string {
	name, arch, ok := strings.Cut(os, "/")
	name = cmp.Or(systemNames[name], name)
	if ok && arch != "" {
		return fmt.Sprintf("%s, %s", name, arch)
	}
	return name
}
