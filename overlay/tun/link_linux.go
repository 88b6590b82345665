package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weft/overlay/rtnl"
)

const (
	// protocol marks our routes in the kernel's table.
	protocol = 119
	// metric is high, so that any other route for the same range wins.
	metric = 5000
)

func goodName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || c == '.' || c == '_' || c == '-')) {
			return false
		}
	}
	return s != "" && len(s) < unix.IFNAMSIZ
}

// kernelLink configures one interface by netlink.
type kernelLink struct {
	// Constant after openLink.
	nl      *rtnl.Conn
	name    string
	more    []netip.Addr // Config.Guard
	index   int
	existed bool // it existed before us and stays

	rulesTouched atomic.Bool // nftables rules have changed, perhaps by us

	mu sync.Mutex
	// mu guards the following.
	up      bool      // we have set it up; later changes are others'
	guarded *guarded  // what guard has set last
	removed time.Time // when the guard last had to be set again
	block   *blockedBy
}

// open makes the interface, or takes over one that is marked as ours.
func open(cfg Config) (device, link, error) {
	if !goodName(cfg.Name) {
		return nil, nil, fmt.Errorf("interface name %q: %w", cfg.Name, ErrName)
	}
	nl, err := rtnl.Open()
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
	if old, err := l.nl.InterfaceByName(cfg.Name); err == nil {
		if old.Kind != "tun" || old.Alias != Alias {
			return nil, fmt.Errorf("an interface %s already exists and is not weft's: choose another name, or remove it with: ip link delete %s", cfg.Name, cfg.Name)
		}
		l.existed = true
	} else if !errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("look up %s: %w", cfg.Name, err)
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
		return nil, fmt.Errorf("create %s: %w", cfg.Name, err)
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

// setUp sets what does not change later.
func (l *kernelLink) setUp(mtu int) error {
	ln, err := l.nl.InterfaceByName(l.name)
	if err != nil {
		return err
	}
	l.index = ln.Index
	if err := l.nl.SetMTU(l.index, mtu); err != nil {
		return err
	}
	if err := l.nl.SetAlias(l.index, Alias); err != nil {
		return err
	}
	// Old kernels make packets up to 64 KB; those are split when read.
	l.nl.SetGSOMaxSize(l.index, MaxPacket)
	// No router solicitation. This fails where there is no IPv6.
	l.nl.SetNoLinkLocal(l.index)
	return nil
}

func (l *kernelLink) apply(want hostState) (r report, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln, err := l.nl.InterfaceByIndex(l.index)
	if errors.Is(err, unix.ENODEV) {
		return r, errGone
	} else if err != nil {
		return r, err
	}
	if !ln.Up {
		if l.up {
			r.down = true
			return r, nil
		}
		if err := l.nl.SetUp(l.index, true); err != nil {
			return r, fmt.Errorf("set up: %w", err)
		}
	}
	l.up = true
	touched := l.rulesTouched.Swap(false)
	r.unguarded = l.guard(want.v4, want.v6, touched) // before the kernel gets the addresses
	r.removed = l.guardRemoved()
	if want.v4.IsValid() {
		r.blocker, r.blocked = l.blocked(want.net4, touched)
	}
	if err := l.setAddr(unix.AF_INET, want.v4); err != nil {
		return r, err
	}
	if r.noIPv6 = l.setAddr(unix.AF_INET6, want.v6); r.noIPv6 != nil {
		want.v6 = netip.Addr{}
	}
	if r.range4, err = l.setRoute(unix.AF_INET, want.v4, want.net4); err != nil {
		return r, err
	}
	r.range6, err = l.setRoute(unix.AF_INET6, want.v6, want.net6)
	return r, err
}

// setAddr makes want the only address of the family, except link-local ones.
func (l *kernelLink) setAddr(family int, want netip.Addr) error {
	have, err := l.nl.Addrs(l.index, family)
	if err != nil {
		if !want.IsValid() {
			return nil
		}
		return fmt.Errorf("list addresses: %w", err)
	}
	found := !want.IsValid()
	for _, a := range have {
		switch {
		case a.IP == want:
			found = true
		case !a.IP.IsLinkLocalUnicast():
			if err := l.nl.DelAddr(l.index, a); err != nil {
				return fmt.Errorf("remove address %s: %w", a.IP, err)
			}
		}
	}
	if found {
		return nil
	}
	if err := l.nl.AddAddr(l.index, want); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", want, err)
	}
	return nil
}

// setRoute routes the range to the interface unless other routes cover it, and removes
// other routes that we have set.
func (l *kernelLink) setRoute(family int, src netip.Addr, want netip.Prefix) (d decision, err error) {
	if !src.IsValid() {
		want = netip.Prefix{}
	}
	all, err := l.nl.Routes(family)
	if err != nil {
		if !want.IsValid() {
			return d, nil
		}
		return d, fmt.Errorf("list routes: %w", err)
	}
	var ours []rtnl.Route
	var others []route
	names := map[int]string{}
	for _, r := range all {
		switch {
		case r.Interface == l.index && r.Protocol == protocol:
			ours = append(ours, r)
		case r.Interface == l.index, r.Table == unix.RT_TABLE_LOCAL, !want.IsValid() || !r.Dst.Overlaps(want):
		default:
			others = append(others, route{dst: r.Dst, dev: l.nameOf(r, names), main: r.Table == unix.RT_TABLE_MAIN})
		}
	}
	d = decide(want, others)
	found := false
	for _, r := range ours {
		if d.set && r.Dst == want && r.Src == src {
			found = true
			continue
		}
		if err := l.nl.DelRoute(r); err != nil && !errors.Is(err, unix.ESRCH) {
			return d, fmt.Errorf("remove route %s: %w", r.Dst, err)
		}
	}
	if !d.set || found {
		return d, nil
	}
	r := rtnl.Route{
		Interface: l.index, Dst: want, Src: src, Scope: unix.RT_SCOPE_LINK,
		Protocol: protocol, Metric: metric, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST,
	}
	if src.Is6() {
		r.Scope = unix.RT_SCOPE_UNIVERSE
	}
	if err := l.nl.AddRoute(r); err != nil && !errors.Is(err, unix.EEXIST) {
		return d, fmt.Errorf("add route %s: %w", want, err)
	}
	return d, nil
}

// nameOf names the interface of a route, "" for an unreachable or blackhole route.
func (l *kernelLink) nameOf(r rtnl.Route, names map[int]string) string {
	if r.Interface == 0 || r.Type != unix.RTN_UNICAST {
		return ""
	}
	name, ok := names[r.Interface]
	if !ok {
		name = fmt.Sprint("interface ", r.Interface)
		if ln, err := l.nl.InterfaceByIndex(r.Interface); err == nil {
			name = ln.Name
		}
		names[r.Interface] = name
	}
	return name
}

// clean removes our settings from an interface that outlives us. An interface of our
// own goes with its file.
func (l *kernelLink) clean() {
	if l.existed {
		l.apply(hostState{})
		l.nl.SetUp(l.index, false)
	}
	l.mu.Lock()
	l.guard(netip.Addr{}, netip.Addr{}, false)
	l.mu.Unlock()
	l.nl.Close()
}

// bind is for net.Dialer.Control: weft's own connections into the overlay use the
// interface, whatever the routes are.
func (l *kernelLink) bind(fd uintptr) error {
	return os.NewSyscallError("SO_BINDTODEVICE", unix.BindToDevice(int(fd), l.name))
}
