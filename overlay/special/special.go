// Package special says which IP addresses belong to the machine that dials them, to its
// link or to its cloud: a program that dials for others must not be talked into
// reaching these.
//
// Not for embedders: a node asks it by itself, and dials nothing else for others.
package special

import "net/netip"

var kinds = []struct {
	prefix netip.Prefix
	what   string
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
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // SIIT
	{netip.MustParsePrefix("::/96"), 12},           // v4-compatible
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // NAT64, local use
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4
}

// Kind says what an address is, such as "a loopback address", or "" for one that is not
// special. An IPv4-mapped address is the IPv4 address; others that contain one are not
// looked into: see Embedded.
func Kind(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	for _, k := range kinds {
		if k.prefix.Contains(ip) {
			return k.what
		}
	}
	return ""
}

// Embedded returns the IPv4 address that an IPv6 address leads to where a translator or
// a tunnel takes it apart.
func Embedded(ip netip.Addr) (netip.Addr, bool) {
	ip = ip.WithZone("")
	if ip.Is4In6() {
		return ip.Unmap(), true
	}
	for _, e := range embeds {
		if e.prefix.Contains(ip) {
			b := ip.As16()
			return netip.AddrFrom4([4]byte(b[e.at : e.at+4])), true
		}
	}
	return netip.Addr{}, false
}
