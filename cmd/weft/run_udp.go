package main

import (
	"net/netip"
	"strings"

	"weft/overlay"
)

// maxEndpoints is how many endpoints --endpoint accepts.
const maxEndpoints = 4

// udp converts --endpoint and --portmap. The node listens on the first endpoint's port,
// since a router forwards to a port that must not change.
func (o *runOptions) udp() (overlay.UDP, error) {
	var u overlay.UDP
	switch o.portmap {
	case "auto":
	case "off":
		u.NoPortMap = true
	default:
		return u, usagef("--portmap is auto or off")
	}
	if o.endpoint == "" {
		return u, nil
	}
	for text := range strings.SplitSeq(o.endpoint, ",") {
		a, err := netip.ParseAddrPort(strings.TrimSpace(text))
		if err != nil || a.Port() == 0 || !a.Addr().Unmap().IsGlobalUnicast() || a.Addr().Zone() != "" {
			return u, usagef("%q is not an endpoint: want the ADDRESS:PORT at which this device is reachable from outside, such as 203.0.113.7:41641", text)
		}
		u.Endpoints = append(u.Endpoints, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	}
	if len(u.Endpoints) > maxEndpoints {
		return u, usagef("give at most %d endpoints", maxEndpoints)
	}
	u.Port = u.Endpoints[0].Port()
	return u, nil
}
