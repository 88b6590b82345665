package console

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"weft/coord/ops"
)

// clean makes a foreign string safe to look at: at most 120 characters, no
// control characters, and nothing invisible that reorders or hides text. What
// is taken out is shown as its code, so that it cannot pass for something else.
// Templates still escape the result.
func clean(s string) string {
	const most, marks = 120, 3
	var b strings.Builder
	n, combining := 0, 0
	for i, r := range s {
		if n++; n > most {
			b.WriteString("…")
			break
		}
		if unicode.Is(unicode.M, r) {
			if combining++; combining > marks {
				continue
			}
		} else {
			combining = 0
		}
		switch {
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(s[i:]); size <= 1 {
				b.WriteString("�")
				continue
			}
			b.WriteRune(r)
		case r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

func cleanAll(in []string) []string {
	var out []string
	for i, s := range in {
		if i == 12 {
			return append(out, "…")
		}
		out = append(out, clean(s))
	}
	return out
}

// asTyped is lines in a form that sends them back: whole, but those that hide
// something.
func asTyped(lines []string) string {
	out := slices.Clone(lines)
	for i, l := range out {
		if strings.ContainsFunc(l, func(r rune) bool {
			return r == utf8.RuneError || r != ' ' && (!unicode.IsGraphic(r) || unicode.IsSpace(r))
		}) {
			out[i] = clean(l)
		}
	}
	return strings.Join(out, "\n")
}

// shortTime is a time next to now, in words.
func shortTime(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < 0:
		return until(-d)
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	case d < 48*time.Hour:
		return "yesterday"
	case d < 30*24*time.Hour:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
	return t.Format("2 Jan 2006")
}

func until(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "in under a minute"
	case d < time.Hour:
		return fmt.Sprintf("in %d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("in %d h", int(d.Hours()+0.5))
	}
	return "in " + plural(int(d.Hours()/24+0.5), "day")
}

// orZero is a time that may be unknown: zero, then.
func orZero(t *time.Time) (z time.Time) {
	if t != nil {
		return *t
	}
	return z
}

// stamp is a time with its exact value for hovering and machines.
type stamp struct {
	Text, Full, Machine string
}

func (c *Console) stamp(t time.Time) stamp {
	if t.IsZero() {
		return stamp{Text: "never"}
	}
	t = t.UTC()
	return stamp{shortTime(t, c.now()), t.Format("2 January 2006, 15:04:05 UTC"), t.Format(time.RFC3339)}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(n) + " " + noun + "s"
}

// thousands groups digits: 50,000.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.WithZone("").String()
}

// latencyText rounds to what a person compares.
func latencyText(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 1:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// bytesText is a number of bytes as people say it: 1.2 MB.
func bytesText(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return plural(int(n), "byte")
	}
	f, unit := float64(n)/1000, 0
	for f >= 999.5 && unit < len(units)-1 {
		f, unit = f/1000, unit+1
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %cB", f, units[unit])
	}
	return fmt.Sprintf("%.0f %cB", f, units[unit])
}

// osText turns "linux/arm64" into "Linux, arm64".
func osText(s string) string { return clean(ops.SystemName(s)) }

// agentText turns a User-Agent into "Firefox on Linux".
func agentText(ua string) string {
	find := func(pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			if strings.Contains(ua, pairs[i]) {
				return pairs[i+1]
			}
		}
		return ""
	}
	browser := find("Firefox/", "Firefox", "Edg/", "Edge", "OPR/", "Opera", "Chromium/", "Chromium", "Chrome/", "Chrome", "Safari/", "Safari", "curl/", "curl")
	system := find("Android", "Android", "iPhone", "iPhone", "iPad", "iPad", "Windows", "Windows", "Mac OS X", "macOS", "CrOS", "ChromeOS", "Linux", "Linux")
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "":
		return browser
	case ua == "":
		return "Unknown browser"
	}
	r := []rune(clean(ua))
	if len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return string(r)
}

// csvCell has spreadsheets take a text for a text: some run what begins with one of these as
// a formula, and devices choose some of the texts.
func csvCell(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if trimmed := strings.TrimLeft(s, " \t"); trimmed != "" && strings.ContainsRune("=+-@\t", rune(trimmed[0])) || strings.HasPrefix(s, "\t") {
		return "'" + s
	}
	return s
}
