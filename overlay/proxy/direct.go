package proxy

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"weft/netstack/loopback"
	"weft/overlay/special"
	"weft/overlay/status"
)

// dialDirect dials like any program, but refuses forbidden addresses. It checks the
// address that is really connected to, after every name and spelling (0x7f.1,
// 2130706433) has been resolved.
func (p *Proxy) dialDirect(ctx context.Context, network, address string) (net.Conn, error) {
	if p.cfg.offline {
		return nil, refused("offline")
	}
	names := p.cfg.Node.Names()
	d := net.Dialer{
		KeepAlive: 30 * time.Second,
		ControlContext: func(_ context.Context, _, address string, c syscall.RawConn) error {
			if err := loopback.Inline(c); err != nil {
				return err
			}
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return refused("no IP address in " + address)
			}
			if names != nil && inNetwork(names, ap.Addr().Unmap()) {
				return refused("a public name resolves to the overlay address " + ap.Addr().Unmap().String())
			}
			return p.checkDirect(names, ap)
		},
	}
	return d.DialContext(ctx, network, address)
}

func (p *Proxy) checkDirect(names *status.Names, to netip.AddrPort) error {
	if p.cfg.exempt != nil && p.cfg.exempt(to) {
		return nil
	}
	return checkAddr(names, to.Addr())
}

// checkAddr returns an error if ip must not be dialled directly, because it belongs to
// this machine, its link or its cloud. names, if not nil, is the overlay, whose addresses
// are never dialled directly.
func checkAddr(names *status.Names, ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	if what := special.Kind(ip); what != "" {
		return refused(ip.String() + " is " + what)
	}
	v4, ok := special.Embedded(ip)
	switch {
	case !ok:
		return nil
	case special.Kind(v4) != "":
		return refused(ip.String() + " contains " + v4.String())
	case names != nil && inNetwork(names, v4):
		return refused(ip.String() + " contains " + v4.String() + ", an address of the overlay")
	}
	return nil
}
