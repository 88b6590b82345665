package osdns

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxFile bounds how much of a resolv.conf is read, in bytes, and maxServers the
// resolvers taken from it.
const (
	maxFile    = 64 << 10
	maxServers = 8
)

// resolvFile is a parsed resolv.conf.
type resolvFile struct {
	Servers []netip.AddrPort
	Search  []string
	Options []string // of all options lines
}

// parseResolvFile parses a resolv.conf. Comments may be anywhere, even after a
// nameserver; invalid lines are ignored. If there are several search or domain lines,
// the last one counts, as in glibc.
func parseResolvFile(b []byte) resolvFile {
	var f resolvFile
	for line := range bytes.Lines(b[:min(len(b), maxFile)]) {
		s := string(line)
		if i := strings.IndexAny(s, "#;"); i >= 0 {
			s = s[:i]
		}
		w := strings.Fields(s)
		if len(w) < 2 {
			continue
		}
		switch w[0] {
		case "nameserver":
			if a, ok := parseServer(w[1]); ok && len(f.Servers) < maxServers && !slices.Contains(f.Servers, a) {
				f.Servers = append(f.Servers, a)
			}
		case "search":
			f.Search = domainsIn(w[1:])
		case "domain":
			f.Search = domainsIn(w[1:2])
		case "options":
			for _, o := range w[1:] {
				if len(f.Options) < 32 && !slices.Contains(f.Options, o) {
					f.Options = append(f.Options, o)
				}
			}
		}
	}
	return f
}

// parseServer accepts ADDR, [ADDR] and either with a port, as some write them.
func parseServer(s string) (netip.AddrPort, bool) {
	bare := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		bare = s[1 : len(s)-1]
	}
	var ap netip.AddrPort
	if a, err := netip.ParseAddr(bare); err == nil && zoneOK(a) {
		ap = netip.AddrPortFrom(a.Unmap(), 53)
	} else if p, err := netip.ParseAddrPort(s); err == nil && zoneOK(p.Addr()) && p.Port() != 0 {
		ap = netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	} else {
		return netip.AddrPort{}, false
	}
	if ap.Addr() == netip.IPv4Unspecified() { // means this machine
		ap = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port())
	}
	if ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
		return netip.AddrPort{}, false
	}
	return ap, true
}

// zoneOK reports whether a's zone is a valid interface name: netip accepts "eth0]:53"
// as a zone.
func zoneOK(a netip.Addr) bool { return a.Zone() == "" || validInterface(a.Zone()) }

// domainsIn returns the words that are domains.
func domainsIn(words []string) []string {
	return tidy(slices.DeleteFunc(slices.Clone(words), func(d string) bool { return CheckDomain(d) != nil }))
}

// The first line of our resolv.conf, and the prefix of lines with the original
// settings, for the case that the backup is lost.
const (
	ownHeader = "# Made by weft for the interface "
	wasPrefix = "# was: "
)

// ownFile is a resolv.conf that sends all names to us. before is the original one.
func ownFile(iface string, c Config, before resolvFile) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%s. Put back when the daemon ends, or by: weft dns restore\n", ownHeader, iface)
	for _, s := range before.Servers {
		fmt.Fprintf(&b, "%snameserver %s\n", wasPrefix, serverText(s))
	}
	if len(before.Search) > 0 {
		fmt.Fprintf(&b, "%ssearch %s\n", wasPrefix, strings.Join(before.Search, " "))
	}
	if len(before.Options) > 0 {
		fmt.Fprintf(&b, "%soptions %s\n", wasPrefix, strings.Join(before.Options, " "))
	}
	fmt.Fprintf(&b, "nameserver %s\n", c.Nameserver)
	if search := searchList(c, before.Search); len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(before.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(before.Options, " "))
	}
	return b.Bytes()
}

// serverText is a resolver as written in resolv.conf, without its port.
func serverText(s netip.AddrPort) string { return s.Addr().String() }

// ownedBy returns the interface of a resolv.conf that we wrote.
func ownedBy(b []byte) (iface string, ours bool) {
	rest, ok := bytes.CutPrefix(b, []byte(ownHeader))
	if !ok {
		return "", false
	}
	name, _, ok := bytes.Cut(rest, []byte(". "))
	if !ok || !validInterface(string(name)) {
		return "", false
	}
	return string(name), true
}

// before returns the original settings in a resolv.conf that we wrote.
func before(b []byte) []byte {
	var out []byte
	for line := range bytes.Lines(b) {
		if l, ok := bytes.CutPrefix(line, []byte(wasPrefix)); ok {
			out = append(out, l...)
		}
	}
	return out
}

// header returns the author that the leading comment of a resolv.conf names:
// "systemd-resolved", "resolvconf", "NetworkManager", "weft" or "".
func header(b []byte) string {
	if _, ours := ownedBy(b); ours {
		return "weft"
	}
	for line := range bytes.Lines(b[:min(len(b), maxFile)]) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if line[0] != '#' && line[0] != ';' {
			break
		}
		for _, who := range []string{"systemd-resolved", "NetworkManager", "resolvconf"} {
			if bytes.Contains(line, []byte(who)) {
				return who
			}
		}
	}
	return ""
}
