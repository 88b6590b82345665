package tun

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"weft/overlay/status"
)

// private are the address ranges that an overlay may use.
var private = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("fc00::/7"),
}

// checkRange rejects ranges that a server must not route through this machine: public
// addresses, or the whole Internet.
func checkRange(p netip.Prefix, v4 bool) error {
	if p == (netip.Prefix{}) {
		return nil
	}
	if p.Addr().Is4() == v4 {
		for _, in := range private {
			if in.Contains(p.Addr()) && p.Bits() >= in.Bits() && (v4 || p.Bits() >= 32) {
				return nil
			}
		}
	}
	return fmt.Errorf("the network's range %s is not one of private addresses", p)
}

// route is a route of another interface.
type route struct {
	dst  netip.Prefix
	dev  string // "" for an unreachable or blackhole route
	main bool   // in the main table
}

func (r route) String() string {
	if r.dev == "" {
		return r.dst.String()
	}
	return r.dst.String() + " (" + r.dev + ")"
}

// decision is the result of decide.
type decision struct {
	set     bool    // route the range to our interface
	covered []route // routes that cover the whole range: ours is not set
	within  []route // routes that cover a part of the range
}

// A route this wide is a disguised default route, as VPNs use them.
const defaultBits = 7

// decide reports whether a range may be routed to us beside the existing routes.
// Existing routes keep precedence: if one covers the whole range, none of ours is set,
// and a narrower one wins by itself.
func decide(want netip.Prefix, routes []route) decision {
	d := decision{set: want.IsValid()}
	if !d.set {
		return d
	}
	for _, r := range routes {
		switch {
		case !r.dst.IsValid() || !r.dst.Overlaps(want) || r.dst.Bits() <= defaultBits:
		case r.dst.Bits() > want.Bits():
			d.within = append(d.within, r)
		case r.main:
			d.covered = append(d.covered, r)
			d.set = false
		}
	}
	return d
}

// report lists what apply could not do.
type report struct {
	down           bool      // the interface was set down
	noIPv6         error     // why the address was refused
	unguarded      error     // why the overlay addresses can be reached from the LAN
	removed        time.Time // when another program last removed the guard; it was set again
	blocker        blocker   // the rule that drops what devices send, if blocked
	blocked        bool
	range4, range6 decision
}

// warnings are the health messages of the report, by code.
func (r report) warnings(name string, want hostState) map[status.Code]string {
	w := map[status.Code]string{}
	if r.down {
		w[status.CodeTunDown] = fmt.Sprintf("%s was set down, so other programs cannot reach devices through it; run: ip link set %s up", name, name)
		return w
	}
	if r.unguarded != nil {
		w[status.CodeTunUnguarded] = fmt.Sprintf("neighbours on the LAN can reach the overlay address past %s, since nftables rules cannot be set (%v): services must not trust clients because they use that address", name, r.unguarded)
	}
	if r.unguarded == nil && !r.removed.IsZero() {
		w[status.CodeTunGuardRemoved] = fmt.Sprintf("another program removed, at %s, the nftables rules that keep neighbours on the LAN away from the overlay addresses (`nft flush ruleset` does, and each reload of nftables.service); weft has set them again", r.removed.Format(time.TimeOnly))
	}
	if r.blocked {
		w[status.CodeIPv4Blocked] = fmt.Sprintf("a firewall rule of another program drops what devices send to this machine over IPv4 (%s in chain %s of table %s); meanwhile weft's names resolve to IPv6 addresses; to let it in, run: %s",
			r.blocker.rule, r.blocker.chain, r.blocker.table, r.blocker.cure(name))
	}
	if r.noIPv6 != nil {
		w[status.CodeTunNoIPv6] = fmt.Sprintf("%s has no IPv6 address (%v), IPv4 works; if IPv6 was switched off by mistake: sysctl net.ipv6.conf.%s.disable_ipv6=0", name, r.noIPv6, name)
	}
	for _, f := range []struct {
		code   status.Code
		d      decision
		prefix netip.Prefix
	}{{status.CodeRouteOverlap.Of("4"), r.range4, want.net4}, {status.CodeRouteOverlap.Of("6"), r.range6, want.net6}} {
		switch {
		case len(f.d.covered) > 0:
			w[f.code] = fmt.Sprintf("%s already has another route: %s; weft leaves it alone, so other programs cannot reach devices at %s through %s (weft's proxy can)",
				f.prefix, list(f.d.covered), f.prefix, name)
		case len(f.d.within) > 0:
			w[f.code] = fmt.Sprintf("a part of %s is routed past %s: %s; weft leaves that alone, so other programs' traffic to it bypasses weft and its encryption",
				f.prefix, name, list(f.d.within))
		}
	}
	return w
}

// list formats the first routes.
func list(routes []route) string {
	var s []string
	for i, r := range routes {
		if i == 3 {
			s = append(s, fmt.Sprintf("and %d more", len(routes)-i))
			break
		}
		s = append(s, r.String())
	}
	return strings.Join(s, ", ")
}
