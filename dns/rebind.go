package dns

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// nat64 embeds IPv4 addresses (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// unbind removes addresses from an answer that a public name must not have: through
// them a web page could reach devices of the household. It reports whether it removed
// any.
func (s *Server) unbind(q *query, r *route, m *dns.Msg) bool {
	rules := q.st.rules
	if !rules.settings.StopRebinding || r != systemRoute && r != rules.global || within(q.name, "home.arpa.") || s.isBootstrap(q.name) {
		return false
	}
	for _, d := range rules.allowed {
		if within(q.name, d) {
			return false
		}
	}
	bad := func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && s.local(q.st, a.Unmap())
	}
	dropped := false
	keep := func(rr dns.RR) bool {
		no := false
		switch rr := rr.(type) {
		case *dns.A:
			no = bad(rr.A)
		case *dns.AAAA:
			no = bad(rr.AAAA)
		case *dns.SVCB:
			no = hints(rr.Value, bad)
		case *dns.HTTPS:
			no = hints(rr.Value, bad)
		}
		dropped = dropped || no
		return !no
	}
	m.Answer = only(m.Answer, keep)
	m.Extra = only(m.Extra, keep)
	return dropped
}

// hints reports whether a service record has a bad address hint.
func hints(params []dns.SVCBKeyValue, bad func(net.IP) bool) bool {
	for _, p := range params {
		var ips []net.IP
		switch p := p.(type) {
		case *dns.SVCBIPv4Hint:
			ips = p.Hint
		case *dns.SVCBIPv6Hint:
			ips = p.Hint
		}
		for _, ip := range ips {
			if bad(ip) {
				return true
			}
		}
	}
	return false
}

func only(rrs []dns.RR, keep func(dns.RR) bool) []dns.RR {
	out := rrs[:0]
	for _, rr := range rrs {
		if keep(rr) {
			out = append(out, rr)
		}
	}
	return out
}

// local reports whether ip is an address of this machine, its networks or the overlay.
func (s *Server) local(st *state, ip netip.Addr) bool {
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	return isPrivate(ip) || st.zone != nil && st.zone.contains(ip)
}
