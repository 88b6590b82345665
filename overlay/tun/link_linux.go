package tun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// protocol marks our routes in the kernel's table.
	protocol = 119
	// metric lets every other route for the same range win.
	metric = 5000
)

var goodName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,14}$`)

// kernelLink configures one interface by netlink.
type kernelLink struct {
	// Constant after openLink.
	nl    *netlink.Handle
	name  string
	more  []netip.Addr // Config.Guard
	index int
	kept  bool // it was there before us and stays

	mu sync.Mutex
	// mu guards the following.
	up      bool     // we have set it up, what follows is others' doing
	guarded *guarded // what guard has set last
}

// open makes the interface, or takes over one that is marked as ours.
func open(cfg Config) (device, link, error) {
	if !goodName.MatchString(cfg.Name) {
		return nil, nil, fmt.Errorf("interface name %q: want 1 to %d letters, digits, dots, dashes", cfg.Name, unix.IFNAMSIZ-1)
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, fmt.Errorf("open netlink: %w", err)
	}
	l := &kernelLink{nl: nl, name: cfg.Name, more: cfg.Guard}
	dev, err := l.open(cfg)
	if err != nil {
		nl.Close()
		return nil, nil, err
	}
	return dev, l, nil
}

func (l *kernelLink) open(cfg Config) (device, error) {
	if old, err := l.nl.LinkByName(cfg.Name); err == nil {
		if old.Type() != "tuntap" && old.Type() != "tun" || old.Attrs().Alias != Alias {
			return nil, fmt.Errorf("an interface %s exists already and is not weft's: choose another name, or remove it with: ip link delete %s", cfg.Name, cfg.Name)
		}
		l.kept = true
	} else if !errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, fmt.Errorf("look for %s: %w", cfg.Name, err)
	}
	dev, err := openDevice(cfg.Name)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s is used by another program: choose another name", cfg.Name)
	case errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("interface name %q is not usable: %w", cfg.Name, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, &PermissionError{err}
	case err != nil:
		return nil, fmt.Errorf("make %s: %w", cfg.Name, err)
	}
	if err := l.setUp(cfg.MTU); err != nil {
		dev.close()
		if errors.Is(err, unix.EPERM) {
			return nil, &PermissionError{err}
		}
		return nil, fmt.Errorf("configure %s: %w", cfg.Name, err)
	}
	return dev, nil
}

// setUp is what is configured once.
func (l *kernelLink) setUp(mtu int) error {
	ln, err := l.nl.LinkByName(l.name)
	if err != nil {
		return err
	}
	l.index = ln.Attrs().Index
	if err := l.nl.LinkSetMTU(ln, mtu); err != nil {
		return err
	}
	if err := l.nl.LinkSetAlias(ln, Alias); err != nil {
		return err
	}
	// Old kernels make packets up to 64 KB: those are cut when read.
	l.nl.LinkSetGSOMaxSize(ln, MaxPacket)
	// No link-local address, nobody to solicit. Where there is no IPv6 it fails.
	l.nl.LinkSetIP6AddrGenMode(ln, 1)
	return nil
}

func (l *kernelLink) apply(want hostState) (r report, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln, err := l.nl.LinkByIndex(l.index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return r, errGone
	} else if err != nil {
		return r, err
	}
	if ln.Attrs().Flags&net.FlagUp == 0 {
		if l.up {
			r.down = true
			return r, nil
		}
		if err := l.nl.LinkSetUp(ln); err != nil {
			return r, fmt.Errorf("set up: %w", err)
		}
	}
	l.up = true
	r.unguarded = l.guard(want.v4, want.v6) // before the kernel has them
	if err := l.setAddr(ln, netlink.FAMILY_V4, want.v4); err != nil {
		return r, err
	}
	if r.noIPv6 = l.setAddr(ln, netlink.FAMILY_V6, want.v6); r.noIPv6 != nil {
		want.v6 = netip.Addr{}
	}
	if r.range4, err = l.setRoute(netlink.FAMILY_V4, want.v4, want.net4); err != nil {
		return r, err
	}
	r.range6, err = l.setRoute(netlink.FAMILY_V6, want.v6, want.net6)
	return r, err
}

// setAddr makes want the only address of the family, but for link-local ones.
func (l *kernelLink) setAddr(ln netlink.Link, family int, want netip.Addr) error {
	have, err := l.nl.AddrList(ln, family)
	if err != nil {
		if !want.IsValid() {
			return nil
		}
		return fmt.Errorf("list addresses: %w", err)
	}
	found := !want.IsValid()
	for _, a := range have {
		ip, _ := netip.AddrFromSlice(a.IP)
		switch ip = ip.Unmap(); {
		case ip == want:
			found = true
		case !ip.IsLinkLocalUnicast():
			if err := l.nl.AddrDel(ln, &a); err != nil {
				return fmt.Errorf("remove address %s: %w", ip, err)
			}
		}
	}
	if found {
		return nil
	}
	a := &netlink.Addr{IPNet: netOf(netip.PrefixFrom(want, want.BitLen()))}
	if want.Is6() {
		a.Flags = unix.IFA_F_NODAD // there are no neighbours
	}
	if err := l.nl.AddrAdd(ln, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", want, err)
	}
	return nil
}

// setRoute routes the range to the interface, if that takes nothing away from
// others, and removes other routes that we have set.
func (l *kernelLink) setRoute(family int, src netip.Addr, want netip.Prefix) (d decision, err error) {
	if !src.IsValid() {
		want = netip.Prefix{}
	}
	var ours, theirs []netlink.Route
	err = l.nl.RouteListFilteredIter(family, &netlink.Route{}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		dst := prefixOf(r.Dst)
		switch {
		case r.LinkIndex == l.index && r.Protocol == protocol:
			ours = append(ours, r)
		case r.LinkIndex == l.index, r.Table == unix.RT_TABLE_LOCAL, !dst.IsValid() || !want.IsValid() || !dst.Overlaps(want):
		default:
			theirs = append(theirs, r)
		}
		return true
	})
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		if !want.IsValid() {
			return d, nil
		}
		return d, fmt.Errorf("list routes: %w", err)
	}
	var others []route
	names := map[int]string{}
	for _, r := range theirs {
		others = append(others, route{dst: prefixOf(r.Dst), dev: l.nameOf(&r, names), main: r.Table == unix.RT_TABLE_MAIN})
	}
	d = decide(want, others)
	found := false
	for _, r := range ours {
		if d.set && prefixOf(r.Dst) == want && r.Src.Equal(src.AsSlice()) {
			found = true
			continue
		}
		if err := l.nl.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return d, fmt.Errorf("remove route %s: %w", r.Dst, err)
		}
	}
	if !d.set || found {
		return d, nil
	}
	r := &netlink.Route{
		LinkIndex: l.index, Dst: netOf(want), Src: src.AsSlice(), Scope: netlink.SCOPE_LINK,
		Protocol: protocol, Priority: metric, Table: unix.RT_TABLE_MAIN,
	}
	if src.Is6() {
		r.Scope = netlink.SCOPE_UNIVERSE
	}
	if err := l.nl.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return d, fmt.Errorf("add route %s: %w", want, err)
	}
	return d, nil
}

// nameOf names the interface of a route, "" for one that leads nowhere.
func (l *kernelLink) nameOf(r *netlink.Route, names map[int]string) string {
	index := r.LinkIndex
	if index == 0 && len(r.MultiPath) > 0 {
		index = r.MultiPath[0].LinkIndex
	}
	if index == 0 || r.Type != unix.RTN_UNICAST {
		return ""
	}
	name, ok := names[index]
	if !ok {
		name = fmt.Sprint("interface ", index)
		if ln, err := l.nl.LinkByIndex(index); err == nil {
			name = ln.Attrs().Name
		}
		names[index] = name
	}
	return name
}

// clean leaves an interface that outlives us as bare as it was. One of our own
// goes with its file.
func (l *kernelLink) clean() {
	if l.kept {
		l.apply(hostState{})
		if ln, err := l.nl.LinkByIndex(l.index); err == nil {
			l.nl.LinkSetDown(ln)
		}
	}
	l.mu.Lock()
	l.guard(netip.Addr{}, netip.Addr{})
	l.mu.Unlock()
	l.nl.Close()
}

// bind is for net.Dialer.Control: whatever the routes say, weft's own
// connections into the overlay use the interface.
func (l *kernelLink) bind(fd uintptr) error {
	return os.NewSyscallError("SO_BINDTODEVICE", unix.BindToDevice(int(fd), l.name))
}

func netOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is the zero Prefix for nil, the default route.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}
	}
	if size == 32 {
		ip = ip.Unmap()
	}
	return netip.PrefixFrom(ip, bits)
}
