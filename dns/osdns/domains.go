package osdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxDomains bounds the domains of one list.
const maxDomains = 512

// check rejects a Config that would write something other than a domain into a
// configuration file, or a file outside its directory.
func (c Config) check() error {
	if c.IsZero() {
		return nil
	}
	if a := c.Nameserver; a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
		return fmt.Errorf("%v is not a usable resolver address", a)
	}
	for _, l := range [][]string{c.Search, c.Match} {
		if len(l) > maxDomains {
			return fmt.Errorf("%d domains: want at most %d", len(l), maxDomains)
		}
		for _, d := range l {
			if err := CheckDomain(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// clone returns a copy with lower-case domains, without leading or trailing dots and
// without duplicates.
func (c Config) clone() Config {
	c.Search, c.Match = tidy(c.Search), tidy(c.Match)
	return c
}

func tidy(l []string) []string {
	out := make([]string, 0, len(l))
	for _, d := range l {
		d = strings.ToLower(strings.TrimSuffix(d, "."))
		if !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

// CheckDomain returns an error if d must not be written into a system's files: a domain
// has labels of letters, digits, hyphens and underscores.
func CheckDomain(d string) error {
	name := strings.TrimSuffix(d, ".")
	if len(name) == 0 || len(name) > 253 {
		return fmt.Errorf("%q is not a domain: want 1 to 253 bytes", d)
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > 63 {
			return fmt.Errorf("%q is not a domain: want labels of 1 to 63 bytes", d)
		}
		if label[0] == '-' {
			return fmt.Errorf("%q is not a domain: a label starts with a hyphen", d)
		}
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return fmt.Errorf("%q is not a domain: want letters, digits, hyphens and dots", d)
			}
		}
	}
	return nil
}

// ReverseZones are the zones below in-addr.arpa or ip6.arpa that cover p exactly: for
// 100.64.0.0/10 these are 64.100.in-addr.arpa to 127.100.in-addr.arpa. The result is
// nil for a prefix that is invalid or has no bits.
func ReverseZones(p netip.Prefix) []string {
	if !p.IsValid() || p.Bits() == 0 {
		return nil
	}
	p = p.Masked()
	step, suffix := 8, ".in-addr.arpa"
	if p.Addr().Is6() {
		step, suffix = 4, ".ip6.arpa"
	}
	digits := (p.Bits() + step - 1) / step // in the zones' names
	count := 1 << (digits*step - p.Bits()) // at most 128
	raw := p.Addr().AsSlice()
	digit := func(i int) int {
		if step == 8 {
			return int(raw[i])
		}
		return int(raw[i/2]>>(4*(1-i%2))) & 15
	}
	base := 10
	if step == 4 {
		base = 16
	}
	rest := ""
	for i := range digits - 1 {
		rest = "." + strconv.FormatInt(int64(digit(i)), base) + rest
	}
	out := make([]string, 0, count)
	for i := range count {
		out = append(out, strconv.FormatInt(int64(digit(digits-1)+i), base)+rest+suffix)
	}
	return out
}

// isReverse reports whether d is a reverse zone.
func isReverse(d string) bool { return strings.HasSuffix(d, ".arpa") }

// searchList is the content of a search line: our domains and the system's own, without
// duplicates.
func searchList(c Config, own []string) []string {
	own = domainsIn(own)
	if c.SearchLast {
		return tidy(append(own, c.Search...))
	}
	return tidy(append(slices.Clone(c.Search), own...))
}

// joined lists some of the domains for people.
func joined(l []string) string {
	const most = 4
	if len(l) <= most {
		return strings.Join(l, " ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(l[:most], " "), len(l)-most)
}

// searchText describes the search list.
func searchText(c Config) string { return fmt.Sprintf("search %s", joined(c.Search)) }
