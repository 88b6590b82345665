package overlay

import (
	"net/netip"

	"weft/overlay/status"
)

// Router is what a Net implements that has to know which addresses belong to
// the network as a whole: the kernel's interface, which has routes.
type Router interface {
	// SetRanges is the full desired state, repeatably. It comes before
	// SetAddrs and whenever the server changes it; the zero Prefix is none. A
	// range that is not to be routed here is an error, and changes nothing.
	SetRanges(v4, v6 netip.Prefix) error
}

// setRanges tells Net the network's ranges. What a server may say wrong here
// costs routes, never the node.
func (n *Node) setRanges(s *snapshot) {
	r, ok := n.cfg.Net.(Router)
	if !ok {
		return
	}
	v4, _ := netip.ParsePrefix(s.config.Self.IPv4Prefix)
	v6, _ := netip.ParsePrefix(s.config.Self.IPv6Prefix)
	if err := r.SetRanges(v4, v6); err != nil {
		n.health.Set(status.CodeRoutes, "routes to the network cannot be set: "+err.Error())
		n.log.Warn("cannot set routes", "err", err)
		return
	}
	n.health.Clear(status.CodeRoutes)
}
