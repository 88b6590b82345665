package dns

import (
	"net"
	"net/netip"
)

// inbound is where connections from the overlay to this machine's loopback
// come from (package netstack): peers, who have a resolver of their own.
var inbound = netip.MustParsePrefix("127.64.0.0/10")

// mayAsk reports whether a query from a is answered: from this machine, or
// from an address of the overlay, which reaches us through the tunnel only.
// Everybody else gets silence, so that nobody learns that we are here and no
// answer can be sent to a forged address.
func (s *Server) mayAsk(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return false
	}
	ip := ap.Addr().Unmap()
	if ip.IsLoopback() {
		return !inbound.Contains(ip)
	}
	z := s.cfg.Zone()
	return z != nil && z.contains(ip)
}

// contains reports whether ip is an overlay address.
func (z *Zone) contains(ip netip.Addr) bool {
	return z.IPv4.IsValid() && z.IPv4.Contains(ip) || z.IPv6.IsValid() && z.IPv6.Contains(ip)
}
