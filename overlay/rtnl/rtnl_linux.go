// Package rtnl is the small part of Linux's netlink that weft needs: it finds and sets up
// network interfaces, their addresses and routes (rtnetlink(7)), and reports changes.
// Errors of the kernel are its errno: unix.ENODEV when there is no such interface,
// unix.EEXIST, unix.ESRCH, unix.EPERM.
//
// Not for embedders: the node, overlay/tun, dns/osdns and the command line share it.
package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conn is a socket to the kernel, in the network namespace of the thread that
// opened it. Its methods may be called from several goroutines.
type Conn struct {
	fd int

	mu  sync.Mutex // one request at a time
	seq uint32     // of the last request, guarded by mu
}

func Open() (*Conn, error) {
	fd, err := open(0, unix.NETLINK_ROUTE, 0)
	if err != nil {
		return nil, err
	}
	return &Conn{fd: fd}, nil
}

func (c *Conn) Close() { unix.Close(c.fd) }

// Interface is a network interface.
type Interface struct {
	Index int
	Name  string
	Kind  string // "tun", "veth", …
	Alias string // as set by ip link set alias
	Up    bool
}

func (c *Conn) InterfaceByName(name string) (Interface, error) {
	return c.link(0, appendAttr(nil, unix.IFLA_IFNAME, append([]byte(name), 0)))
}

func (c *Conn) InterfaceByIndex(index int) (Interface, error) { return c.link(index, nil) }

func (c *Conn) link(index int, attrs []byte) (l Interface, err error) {
	err = c.do(unix.RTM_GETLINK, 0, append(ifInfo(index, 0, 0), attrs...), func(m syscall.NetlinkMessage) {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			return
		}
		l.Index = int(binary.NativeEndian.Uint32(m.Data[4:]))
		l.Up = binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP != 0
		for typ, v := range attrsOf(m.Data[unix.SizeofIfInfomsg:]) {
			switch typ {
			case unix.IFLA_IFNAME:
				l.Name = text(v)
			case unix.IFLA_IFALIAS:
				l.Alias = text(v)
			case unix.IFLA_LINKINFO:
				for typ, v := range attrsOf(v) {
					if typ == unix.IFLA_INFO_KIND {
						l.Kind = text(v)
					}
				}
			}
		}
	})
	return l, err
}

// SetUp sets an interface up or down.
func (c *Conn) SetUp(index int, up bool) error {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	return c.do(unix.RTM_SETLINK, 0, ifInfo(index, flags, unix.IFF_UP), nil)
}

func (c *Conn) SetMTU(index, mtu int) error { return c.setLink(index, unix.IFLA_MTU, u32(mtu)) }

func (c *Conn) SetAlias(index int, alias string) error {
	return c.setLink(index, unix.IFLA_IFALIAS, []byte(alias))
}

// SetGSOMaxSize bounds the packets, in bytes, that the kernel leaves to the interface to
// segment.
func (c *Conn) SetGSOMaxSize(index, size int) error {
	return c.setLink(index, unix.IFLA_GSO_MAX_SIZE, u32(size))
}

// SetNoLinkLocal stops the kernel from making a link-local IPv6 address.
func (c *Conn) SetNoLinkLocal(index int) error {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	mode := appendAttr(nil, unix.IFLA_INET6_ADDR_GEN_MODE, []byte{none})
	return c.setLink(index, unix.IFLA_AF_SPEC, appendAttr(nil, unix.AF_INET6, mode))
}

func (c *Conn) setLink(index int, typ uint16, value []byte) error {
	return c.do(unix.RTM_SETLINK, 0, appendAttr(ifInfo(index, 0, 0), typ, value), nil)
}

// Addr is an address of an interface.
type Addr struct {
	IP   netip.Addr
	Peer netip.Addr // the other end's on a point-to-point interface; else IP
	Bits int        // prefix length of Peer
}

// Addrs lists the addresses of an interface, of unix.AF_INET or AF_INET6.
func (c *Conn) Addrs(index, family int) (addrs []Addr, err error) {
	err = c.do(unix.RTM_GETADDR, unix.NLM_F_DUMP, ifAddr(family, 0, 0), func(m syscall.NetlinkMessage) {
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg ||
			int(m.Data[0]) != family || binary.NativeEndian.Uint32(m.Data[4:]) != uint32(index) {
			return
		}
		a := Addr{Bits: int(m.Data[1])}
		for typ, v := range attrsOf(m.Data[unix.SizeofIfAddrmsg:]) {
			switch typ {
			case unix.IFA_ADDRESS:
				a.Peer, _ = netip.AddrFromSlice(v)
			case unix.IFA_LOCAL:
				a.IP, _ = netip.AddrFromSlice(v)
			}
		}
		if !a.IP.IsValid() { // IPv6 has IFA_LOCAL on point-to-point interfaces only
			a.IP = a.Peer
		}
		addrs = append(addrs, a)
	})
	return addrs, err
}

// AddAddr gives an interface the single address ip. There is no duplicate address
// detection for IPv6.
func (c *Conn) AddAddr(index int, ip netip.Addr) error {
	body := addrBody(index, Addr{ip, ip, ip.BitLen()})
	if ip.Is6() {
		body[2] = unix.IFA_F_NODAD
	}
	return c.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body, nil)
}

func (c *Conn) DelAddr(index int, a Addr) error {
	return c.do(unix.RTM_DELADDR, 0, addrBody(index, a), nil)
}

func addrBody(index int, a Addr) []byte {
	b := ifAddr(family(a.IP), a.Bits, index)
	b = appendAttr(b, unix.IFA_LOCAL, a.IP.AsSlice())
	return appendAttr(b, unix.IFA_ADDRESS, a.Peer.AsSlice())
}

// Route is an entry of a routing table.
type Route struct {
	Dst       netip.Prefix // never the zero Prefix; the default route is 0.0.0.0/0 or ::/0
	Src       netip.Addr   // source address of what this machine sends, or invalid
	Interface int          // index of the interface, of the first if there are several; 0 if none
	Table     int          // unix.RT_TABLE_MAIN, …
	Metric    int
	Type      uint8 // unix.RTN_UNICAST, …
	Scope     uint8 // unix.RT_SCOPE_LINK, …
	Protocol  uint8 // unix.RTPROT_…: which program set it
}

// Routes lists the routes of all tables, of unix.AF_INET or AF_INET6. A route that
// changes meanwhile may be listed twice or not at all.
func (c *Conn) Routes(family int) (routes []Route, err error) {
	body := make([]byte, unix.SizeofRtMsg)
	body[0] = byte(family)
	err = c.do(unix.RTM_GETROUTE, unix.NLM_F_DUMP, body, func(m syscall.NetlinkMessage) {
		if r, ok := parseRoute(m, family); ok {
			routes = append(routes, r)
		}
	})
	return routes, err
}

func parseRoute(m syscall.NetlinkMessage, family int) (r Route, ok bool) {
	if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg || int(m.Data[0]) != family ||
		binary.NativeEndian.Uint32(m.Data[8:])&unix.RTM_F_CLONED != 0 { // an entry of the route cache
		return r, false
	}
	dst := netip.IPv6Unspecified()
	if family == unix.AF_INET {
		dst = netip.IPv4Unspecified()
	}
	r = Route{Table: int(m.Data[4]), Protocol: m.Data[5], Scope: m.Data[6], Type: m.Data[7]}
	for typ, v := range attrsOf(m.Data[unix.SizeofRtMsg:]) {
		switch {
		case typ == unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case typ == unix.RTA_PREFSRC:
			r.Src, _ = netip.AddrFromSlice(v)
		case typ == unix.RTA_OIF && len(v) == 4:
			r.Interface = int(binary.NativeEndian.Uint32(v))
		case typ == unix.RTA_PRIORITY && len(v) == 4:
			r.Metric = int(binary.NativeEndian.Uint32(v))
		case typ == unix.RTA_TABLE && len(v) == 4: // table numbers above 255
			r.Table = int(binary.NativeEndian.Uint32(v))
		case typ == unix.RTA_MULTIPATH && len(v) >= unix.SizeofRtNexthop:
			r.Interface = int(binary.NativeEndian.Uint32(v[4:]))
		}
	}
	r.Dst = netip.PrefixFrom(dst, int(m.Data[1]))
	return r, r.Dst.IsValid() && dst.Is4() == (family == unix.AF_INET) && (!r.Src.IsValid() || r.Src.Is4() == dst.Is4())
}

// AddRoute adds a route. It fails with unix.EEXIST if the kernel has one that is equal.
func (c *Conn) AddRoute(r Route) error {
	return c.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, routeBody(r), nil)
}

// ReplaceRoute adds a route, or replaces the one to the same destination.
func (c *Conn) ReplaceRoute(r Route) error {
	return c.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, routeBody(r), nil)
}

func (c *Conn) DelRoute(r Route) error { return c.do(unix.RTM_DELROUTE, 0, routeBody(r), nil) }

func routeBody(r Route) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[5], b[6], b[7] = byte(family(r.Dst.Addr())), byte(r.Dst.Bits()), r.Protocol, r.Scope, r.Type
	b = appendAttr(b, unix.RTA_TABLE, u32(r.Table))
	b = appendAttr(b, unix.RTA_DST, r.Dst.Addr().AsSlice())
	if r.Src.IsValid() {
		b = appendAttr(b, unix.RTA_PREFSRC, r.Src.AsSlice())
	}
	b = appendAttr(b, unix.RTA_PRIORITY, u32(r.Metric))
	return appendAttr(b, unix.RTA_OIF, u32(r.Interface))
}

// do makes one request to the kernel, passes each answer to each, and returns the
// kernel's error.
func (c *Conn) do(typ, flags uint16, body []byte, each func(syscall.NetlinkMessage)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	b := make([]byte, 0, unix.NLMSG_HDRLEN+len(body))
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	if flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
		flags |= unix.NLM_F_ACK
	}
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, c.seq)
	b = append(binary.NativeEndian.AppendUint32(b, 0), body...)
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("send", err)
	}
	buf := make([]byte, 32<<10) // the kernel sends no longer message
	for {
		n, from, err := unix.Recvfrom(c.fd, buf, unix.MSG_TRUNC)
		switch k, ok := from.(*unix.SockaddrNetlink); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("receive", err)
		case n > len(buf):
			return fmt.Errorf("an answer of %d bytes", n)
		case !ok || k.Pid != 0: // not from the kernel
			continue
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("read the kernel's answer: %w", err)
		}
		for _, m := range msgs {
			switch {
			case m.Header.Seq != c.seq: // the answer to an earlier request that was given up
			case (m.Header.Type == unix.NLMSG_ERROR || m.Header.Type == unix.NLMSG_DONE) && len(m.Data) >= 4:
				if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
					return unix.Errno(-code)
				}
				return nil
			case m.Header.Type == unix.NLMSG_DONE:
				return nil
			case each != nil:
				each(m)
			}
		}
	}
}

// attrsOf walks the attributes in b, by their type.
func attrsOf(b []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if n < unix.SizeofRtAttr || n > len(b) || !yield(typ, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

func align(n int) int { return (n + 3) &^ 3 }

// ifInfo is a struct ifinfomsg.
func ifInfo(index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// ifAddr is a struct ifaddrmsg.
func ifAddr(family, bits, index int) []byte {
	b := make([]byte, unix.SizeofIfAddrmsg)
	b[0], b[1] = byte(family), byte(bits)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return b
}

func family(ip netip.Addr) int {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func u32(n int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }
