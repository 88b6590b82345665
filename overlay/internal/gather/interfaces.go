package gather

import (
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"
)

// perNet bounds the candidates of one IPv6 /64 on one interface: one temporary address,
// from which the kernel sends by default, and one stable address.
const perNet = 2

// virtual are prefixes of names of interfaces that seldom lead to a peer: bridges of
// containers and virtual machines, and other VPNs. Their addresses come last.
var virtual = []string{
	"docker", "br-", "veth", "virbr", "vnet", "lxc", "lxdbr", "cni", "podman", "cali", "flannel", "vmnet", "vboxnet",
	"tun", "tap", "wg", "tailscale", "zt", "utun", "nebula",
}

func isVirtual(name string) bool {
	if name == "br-lan" { // the LAN bridge of a router
		return false
	}
	return slices.ContainsFunc(virtual, func(v string) bool { return strings.HasPrefix(name, v) })
}

// usable returns the addresses that can be candidates, the best first: real interfaces
// before virtual ones, IPv4 before IPv6, temporary IPv6 addresses before stable ones,
// else in the order of the kernel's list. Loopback, link-local, multicast, deprecated and
// refused addresses are left out.
func usable(all []Local, refuse func(netip.Addr) bool) []netip.Addr {
	var list []Local
	for _, l := range all {
		l.Addr = l.Addr.Unmap().WithZone("")
		if l.Addr.IsGlobalUnicast() && !l.Deprecated && (refuse == nil || !refuse(l.Addr)) {
			list = append(list, l)
		}
	}
	rank := func(l Local) int {
		r := 0
		if isVirtual(l.Name) {
			r = 4
		}
		if l.Addr.Is6() {
			r += 2
			if !l.Temporary {
				r++
			}
		}
		return r
	}
	sort.SliceStable(list, func(i, j int) bool { return rank(list[i]) < rank(list[j]) })

	type subnet struct {
		name string
		net  netip.Prefix
		temp bool
	}
	count := map[subnet]int{}
	var out []netip.Addr
	for _, l := range list {
		if l.Addr.Is6() {
			p, _ := l.Addr.Prefix(64)
			k := subnet{l.Name, p, l.Temporary}
			if count[k]++; count[k] > perNet/2 {
				continue
			}
		}
		if len(out) < MaxCandidates && !slices.Contains(out, l.Addr) {
			out = append(out, l.Addr)
		}
	}
	return out
}

// interfaces asks the kernel for the addresses of interfaces that are up.
func interfaces() ([]Local, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	flags := addrFlags()
	var out []Local
	for _, i := range ifs {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it was removed meanwhile
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				l := flags[ip.Unmap()]
				l.Name, l.Addr = i.Name, ip.Unmap()
				out = append(out, l)
			}
		}
	}
	return out, nil
}
