package osdns

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// evidence is what can be known about who looks after DNS, before anything is
// changed.
type evidence struct {
	// File is /etc/resolv.conf as it is without us, nil when there is none,
	// and Link what it links to, "" for a plain file.
	File []byte
	Link string
	// Dangling says that Link leads nowhere.
	Dangling bool
	// NSSwitch is the hosts line of /etc/nsswitch.conf.
	NSSwitch string
	// Resolved says that systemd-resolved answers on D-Bus.
	Resolved bool
	// NM is NetworkManager's version, "" when it does not run, and NMMode its
	// DNS mode ("systemd-resolved", "default", "none"…).
	NM, NMMode string
	// Resolvconf is the first line of resolvconf --version, "" without one.
	Resolvconf string
}

// decide names the program to tell, and why.
//
// systemd-resolved is told when it is there and really is the resolver: it
// alone can send names to different servers, and it outlives the files. Whose
// header resolv.conf has decides among the rest. A header without its program
// behind it is history.
func decide(e evidence) (Mode, string) {
	resolves, why := e.usesResolved()
	if resolves && e.Resolved {
		if e.NM != "" && e.NMMode == "systemd-resolved" && nmMustBeTold(e.NM) {
			return ModeNM, fmt.Sprintf("NetworkManager %s overwrites what systemd-resolved was told, so it is told itself", e.NM)
		}
		return ModeResolved, why
	}
	switch header(e.File) {
	case "resolvconf":
		switch {
		case strings.HasPrefix(e.Resolvconf, "openresolv"):
			return ModeOpenresolv, "/etc/resolv.conf is made by openresolv"
		case strings.Contains(e.Resolvconf, "Debian"):
			return ModeResolvconf, "/etc/resolv.conf is made by resolvconf"
		}
		return ModeDirect, "/etc/resolv.conf says that resolvconf made it, but there is no resolvconf"
	case "NetworkManager":
		if e.NM != "" && nmMustBeTold(e.NM) {
			return ModeNM, fmt.Sprintf("/etc/resolv.conf is made by NetworkManager %s", e.NM)
		}
		return ModeDirect, "/etc/resolv.conf is made by NetworkManager, which cannot be told about another interface"
	case "systemd-resolved":
		if !e.Resolved {
			return ModeDirect, "/etc/resolv.conf is systemd-resolved's, but it does not run"
		}
		return ModeDirect, "systemd-resolved runs, but programs ask other resolvers: " + why
	}
	switch {
	case e.Dangling:
		return ModeDirect, fmt.Sprintf("/etc/resolv.conf is a link to %q, where there is nothing", e.Link)
	case e.File == nil:
		return ModeDirect, "there is no /etc/resolv.conf"
	case e.Resolved:
		return ModeDirect, "systemd-resolved runs, but programs ask other resolvers: " + why
	}
	return ModeDirect, "/etc/resolv.conf is nobody's"
}

// usesResolved reports whether programs of this machine ask systemd-resolved.
func (e evidence) usesResolved() (bool, string) {
	if nssResolve(e.NSSwitch) {
		return true, "programs ask systemd-resolved (resolve in /etc/nsswitch.conf)"
	}
	servers := parseResolvFile(e.File).Servers
	if len(servers) == 0 {
		return false, "/etc/resolv.conf names none"
	}
	for _, s := range servers {
		if s.Port() != 53 || s.Addr() != stub && s.Addr() != stubProxy {
			return false, "/etc/resolv.conf names " + serverText(s)
		}
	}
	return true, "every nameserver in /etc/resolv.conf is systemd-resolved"
}

// stub and stubProxy are where systemd-resolved listens.
var (
	stub      = netip.AddrFrom4([4]byte{127, 0, 0, 53})
	stubProxy = netip.AddrFrom4([4]byte{127, 0, 0, 54})
)

// nssResolve reports whether resolve stands before dns in a hosts line of
// nsswitch.conf.
func nssResolve(line string) bool {
	_, rest, ok := strings.Cut(line, "hosts:")
	if !ok {
		return false
	}
	rest, _, _ = strings.Cut(rest, "#")
	for _, w := range strings.Fields(rest) {
		switch w {
		case "resolve":
			return true
		case "dns":
			return false
		}
	}
	return false
}

// nmMustBeTold reports whether a NetworkManager of this version has to be told
// itself: 1.26.0 to 1.26.5 take away from systemd-resolved what others told it
// about an interface. Older ones do not touch it, newer ones do not either.
func nmMustBeTold(version string) bool {
	p := strings.SplitN(version, ".", 3)
	if len(p) != 3 || p[0] != "1" || p[1] != "26" {
		return false
	}
	digits := p[2]
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i]
	}
	n, err := strconv.Atoi(digits)
	return err == nil && n <= 5
}
