package proxy

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"weft/netstack/loopback"
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

// forbidden are the addresses that are never dialled directly: they belong to this
// machine, this link, or the cloud's metadata service.
var forbidden = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this machine"}, // Linux connects 0.0.0.0 to loopback
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local or metadata address"},
	{netip.MustParsePrefix("168.63.129.16/32"), "a metadata address"},
	{netip.MustParsePrefix("192.0.0.192/32"), "a metadata address"},
	{netip.MustParsePrefix("100.100.100.200/32"), "a metadata address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
	{netip.MustParsePrefix("::/128"), "this machine"},
	{netip.MustParsePrefix("::1/128"), "a loopback address"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "a metadata address"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "a metadata address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
}

// embeds are the IPv6 prefixes that contain an IPv4 address, with the byte where it
// starts: translators and tunnels turn them back into IPv4.
var embeds = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("::ffff:0:0/96"), 12},   // v4-mapped
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // SIIT
	{netip.MustParsePrefix("::/96"), 12},           // v4-compatible
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // NAT64, local use
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4
}

func (p *Proxy) checkDirect(names *status.Names, to netip.AddrPort) error {
	if p.cfg.exempt != nil && p.cfg.exempt(to) {
		return nil
	}
	return checkAddr(names, to.Addr())
}

// checkAddr returns an error if ip must not be dialled directly. names, if not nil, is
// the overlay, whose addresses are never dialled directly.
func checkAddr(names *status.Names, ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	for _, f := range forbidden {
		if f.prefix.Contains(ip) {
			return refused(ip.String() + " is " + f.why)
		}
	}
	if !ip.Is6() {
		return nil
	}
	b := ip.As16()
	for _, e := range embeds {
		if e.prefix.Contains(ip) {
			v4 := netip.AddrFrom4([4]byte(b[e.at : e.at+4]))
			if err := checkAddr(nil, v4); err != nil {
				return refused(ip.String() + " contains " + v4.String())
			}
			if names != nil && inNetwork(names, v4) {
				return refused(ip.String() + " contains " + v4.String() + ", an address of the overlay")
			}
		}
	}
	return nil
}
