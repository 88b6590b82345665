package bind

import (
	"net/netip"

	"weft/overlay/cert"
)

// endpoint returns the admitted endpoint of a node, and makes it if necessary.
func endpoint(b *Bind, id cert.NodeID, ip netip.Addr) *Endpoint {
	if ep := b.Find(id); ep != nil {
		return ep
	}
	ep := NewEndpoint(id, ip)
	b.Admit(ep)
	return ep
}

// Dropped returns how many messages were dropped because WireGuard lagged
// behind.
func (b *Bind) Dropped() uint64 { return b.dropped.Load() }

// Lost returns how many messages were dropped because there was no Sender or it
// failed.
func (e *Endpoint) Lost() uint64 { return e.lost.Load() }

// Port returns the local port.
func (s *Socket) Port() uint16 { return s.port }
