package bind

import (
	"net/netip"

	"weft/overlay/cert"
)

// endpoint returns the admitted endpoint of a node, made if need be.
func endpoint(b *Bind, id cert.NodeID, ip netip.Addr) *Endpoint {
	if ep := b.Find(id); ep != nil {
		return ep
	}
	ep := NewEndpoint(id, ip)
	b.Admit(ep)
	return ep
}
