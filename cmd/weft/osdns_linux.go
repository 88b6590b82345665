package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"weft/dns"
	"weft/overlay/rtnl"
)

// serviceProtocol marks our route in the kernel's table; overlay/tun only manages
// routes with its own mark.
const serviceProtocol = 120

// serviceAddr makes the resolver answer at the service address. The address must not
// belong to an interface, or the kernel would use it as a source address: a local route
// at our interface makes it this machine's, and ends with the interface.
type serviceAddr struct {
	// Constant.
	iface string
	serve func(net.PacketConn, net.Listener)
	log   *slog.Logger

	mu     sync.Mutex
	opened bool // guarded by mu
}

func newServiceAddr(iface string, serve func(net.PacketConn, net.Listener), log *slog.Logger) *serviceAddr {
	return &serviceAddr{iface: iface, serve: serve, log: log}
}

// ready makes the address answer; it may be repeated, since setting the interface down
// removes the route.
func (s *serviceAddr) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.route((*rtnl.Conn).ReplaceRoute); err != nil {
		return fmt.Errorf("add the address %s to %s: %w", dns.ServiceAddr, s.iface, err)
	}
	if s.opened {
		return nil
	}
	pc, l, err := listenService(netip.AddrPortFrom(dns.ServiceAddr, 53))
	if err != nil {
		return err
	}
	if l == nil {
		s.log.Warn("another program listens on TCP port 53 of all addresses, so the resolver answers only UDP", "addr", dns.ServiceAddr)
		s.serve(pc, nil)
	} else {
		s.serve(pc, l)
	}
	s.opened = true
	return nil
}

// route calls do with the route.
func (s *serviceAddr) route(do func(*rtnl.Conn, rtnl.Route) error) error {
	c, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	ln, err := c.InterfaceByName(s.iface)
	if err != nil {
		return err
	}
	return do(c, rtnl.Route{
		Interface: ln.Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL,
		Dst: netip.PrefixFrom(dns.ServiceAddr, dns.ServiceAddr.BitLen()), Src: dns.ServiceAddr,
		Protocol: serviceProtocol, Scope: unix.RT_SCOPE_HOST,
	})
}

// listenService listens on addr even if another program listens on all addresses: for
// UDP the more specific socket wins, and TCP is omitted.
func listenService(addr netip.AddrPort) (net.PacketConn, net.Listener, error) {
	ctx := context.Background()
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, "udp4", addr.String())
	if errors.Is(err, syscall.EADDRINUSE) {
		lc.Control = func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			return errors.Join(cerr, err)
		}
		pc, err = lc.ListenPacket(ctx, "udp4", addr.String())
	}
	switch {
	case errors.Is(err, syscall.EACCES):
		return nil, nil, fmt.Errorf("listen on %s: %w; run as root or with CAP_NET_BIND_SERVICE", addr, err)
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, nil, fmt.Errorf("another program listens on port 53 of all addresses, so %s cannot answer; configure it to listen on its own address only", addr)
	case err != nil:
		return nil, nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	l, err := net.Listen("tcp4", addr.String())
	if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
		pc.Close()
		return nil, nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if err != nil {
		return pc, nil, nil
	}
	return pc, l, nil
}

// close removes the route, for an interface that stays.
func (s *serviceAddr) close() {
	s.route((*rtnl.Conn).DelRoute)
}
