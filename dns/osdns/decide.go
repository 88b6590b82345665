package osdns

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// evidence is everything known about who manages DNS, before anything is changed.
type evidence struct {
	// File is the original /etc/resolv.conf, nil if there is none, and Link the target
	// of the link, "" for a plain file.
	File []byte
	Link string
	// Dangling says that the target of Link does not exist.
	Dangling bool
	// NSSwitch is the hosts line of /etc/nsswitch.conf.
	NSSwitch string
	// Resolved says that systemd-resolved answers on D-Bus.
	Resolved bool
	// NM is NetworkManager's version, "" if it does not run, and NMMode its DNS mode
	// ("systemd-resolved", "default", "none"…).
	NM, NMMode string
	// Resolvconf is the first line of resolvconf --version, "" if there is none.
	Resolvconf string
}

// decide chooses the program that gets our settings, and says why.
//
// systemd-resolved is chosen if it runs and is really the resolver: it alone can send
// different names to different servers, and it outlives the files. Otherwise the header
// of resolv.conf decides. A header whose program does not run is out of date.
func decide(e evidence) (Mode, string) {
	resolves, why := e.usesResolved()
	if resolves && e.Resolved {
		if e.NM != "" && e.NMMode == "systemd-resolved" && nmNeedsSettings(e.NM) {
			return ModeNM, fmt.Sprintf("NetworkManager %s overwrites the settings of systemd-resolved, so it gets them itself", e.NM)
		}
		return ModeResolved, why
	}
	switch header(e.File) {
	case "resolvconf":
		switch {
		case strings.HasPrefix(e.Resolvconf, "openresolv"):
			return ModeOpenresolv, "/etc/resolv.conf is written by openresolv"
		case strings.Contains(e.Resolvconf, "Debian"):
			return ModeResolvconf, "/etc/resolv.conf is written by resolvconf"
		}
		return ModeDirect, "/etc/resolv.conf names resolvconf as its author, but there is no resolvconf"
	case "NetworkManager":
		if e.NM != "" && nmNeedsSettings(e.NM) {
			return ModeNM, fmt.Sprintf("/etc/resolv.conf is written by NetworkManager %s", e.NM)
		}
		return ModeDirect, "/etc/resolv.conf is written by NetworkManager, which accepts no settings for another interface"
	case "systemd-resolved":
		if !e.Resolved {
			return ModeDirect, "/etc/resolv.conf belongs to systemd-resolved, which does not run"
		}
		return ModeDirect, "systemd-resolved runs, but programs ask other resolvers: " + why
	}
	switch {
	case e.Dangling:
		return ModeDirect, fmt.Sprintf("/etc/resolv.conf is a link to %q, which does not exist", e.Link)
	case e.File == nil:
		return ModeDirect, "there is no /etc/resolv.conf"
	case e.Resolved:
		return ModeDirect, "systemd-resolved runs, but programs ask other resolvers: " + why
	}
	return ModeDirect, "no program manages /etc/resolv.conf"
}

// usesResolved reports whether programs of this machine ask systemd-resolved.
func (e evidence) usesResolved() (bool, string) {
	if nssResolve(e.NSSwitch) {
		return true, "programs ask systemd-resolved (resolve in /etc/nsswitch.conf)"
	}
	servers := parseResolvFile(e.File).Servers
	if len(servers) == 0 {
		return false, "/etc/resolv.conf has no nameserver"
	}
	for _, s := range servers {
		if s.Port() != 53 || s.Addr() != stub && s.Addr() != stubProxy {
			return false, "/etc/resolv.conf names " + serverText(s)
		}
	}
	return true, "every nameserver in /etc/resolv.conf is systemd-resolved"
}

// stub and stubProxy are the addresses on which systemd-resolved listens.
var (
	stub      = netip.AddrFrom4([4]byte{127, 0, 0, 53})
	stubProxy = netip.AddrFrom4([4]byte{127, 0, 0, 54})
)

// nssResolve reports whether resolve comes before dns in the hosts line of
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

// nmNeedsSettings reports whether this version of NetworkManager needs the settings
// itself: 1.26.0 to 1.26.5 remove settings that others give systemd-resolved for an
// interface. Older and newer versions leave them alone.
func nmNeedsSettings(version string) bool {
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
