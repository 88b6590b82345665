package tun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"weft/netstack/icmp"
	"weft/netstack/loopback"
	"weft/overlay/proxy/pipe"
	"weft/overlay/status"
)

const (
	maxMapped    = 1024 // connections, and separately flows, of all maps; one address gets a third
	mapTimeout   = 10 * time.Second
	mapIdle      = 60 * time.Second // of a UDP flow
	maxDatagram  = 64 << 10
	answerWithin = 120 // seconds for which a UDP port that has sent may receive answers
)

// Inbound says what peers admitted by the filter may reach on this machine.
type Inbound struct {
	// Limited closes every TCP and UDP port except Ports and those of Maps, and all
	// other protocols except ICMP. Answers to connections from this machine still pass.
	Limited bool
	Ports   []uint16

	// Maps forward a port of the overlay address, TCP and UDP, to another "HOST:PORT"
	// in the form of loopback.Target, by a listener of this package.
	Maps map[uint16]string

	// Watch receives which targets refuse and which answer. May be nil.
	Watch *loopback.Watch
}

// gate drops packets for closed ports. It keeps no flow table: a TCP answer is not a
// bare SYN, and a UDP answer goes to a port that has sent lately. The filter has
// already decided whether the packet is an answer of that peer.
type gate struct {
	open [1 << 16 / 64]uint64 // constant
	zero time.Time            // constant
	sent [1 << 16]atomic.Uint32
}

// newGate returns nil if no port is closed.
func newGate(in Inbound) *gate {
	if !in.Limited {
		return nil
	}
	g := &gate{zero: time.Now().Add(-time.Hour)}
	for _, p := range in.Ports {
		g.open[p/64] |= 1 << (p % 64)
	}
	for p := range in.Maps {
		g.open[p/64] |= 1 << (p % 64)
	}
	return g
}

func (g *gate) isOpen(port uint16) bool { return g.open[port/64]&(1<<(port%64)) != 0 }

func (g *gate) now() uint32 { return uint32(time.Since(g.zero) / time.Second) }

// noteOut records a UDP port that sends.
func (g *gate) noteOut(pkt []byte) {
	proto, l4, later, ok := icmp.Transport(pkt)
	if ok && !later && proto == protoUDP && len(l4) >= 8 {
		g.sent[binary.BigEndian.Uint16(l4)].Store(g.now())
	}
}

// admits decides about a packet of a peer.
func (g *gate) admits(pkt []byte) bool {
	proto, l4, later, ok := icmp.Transport(pkt)
	switch {
	case !ok:
		return false
	case later, proto == protoICMP, proto == protoICMPv6:
		return true // the first fragment of a datagram decides
	case proto == protoTCP && len(l4) >= 20:
		return l4[13]&(tcpSYN|tcpACK) != tcpSYN || g.isOpen(binary.BigEndian.Uint16(l4[2:]))
	case proto == protoUDP && len(l4) >= 8:
		port := binary.BigEndian.Uint16(l4[2:])
		at := g.sent[port].Load()
		return g.isOpen(port) || at != 0 && g.now()-at <= answerWithin
	}
	return false
}

// listeners are the listeners for Inbound.Maps.
type listeners struct {
	for4, for6 netip.Addr // the addresses that they listen on
	open       []io.Closer
	cancel     context.CancelFunc
	wg         sync.WaitGroup // done after close

	mu sync.Mutex
	// mu guards the following.
	total  int
	byPeer map[netip.Addr]int
}

// mapLocked opens the listeners on the current addresses. n.mu is held.
func (n *Net) mapLocked() {
	m := &n.maps
	if len(n.cfg.Inbound.Maps) == 0 || m.cancel != nil && m.for4 == n.want.v4 && m.for6 == n.want.v6 {
		return
	}
	m.close()
	m.wait()
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(n.ctx)
	m.for4, m.for6, m.byPeer = n.want.v4, n.want.v6, map[netip.Addr]int{}
	for port, target := range n.cfg.Inbound.Maps {
		for _, ip := range []netip.Addr{m.for4, m.for6} {
			if !ip.IsValid() {
				continue
			}
			at := netip.AddrPortFrom(ip, port)
			err := n.mapTCP(ctx, at, target)
			if uerr := n.mapUDP(ctx, at, target); err == nil {
				err = uerr
			}
			if err == nil || ip.Is6() && errors.Is(err, syscall.EADDRNOTAVAIL) { // IPv6 may be off
				continue
			}
			msg := fmt.Sprintf("--inbound %d=%s: %v; peers reach the program that listens there instead", port, target, err)
			n.log.Warn(msg)
			if n.cfg.Warn != nil {
				n.cfg.Warn(status.CodeInboundPortTaken.Of(strconv.Itoa(int(port))), msg)
			}
		}
	}
}

func (m *listeners) close() {
	if m.cancel != nil {
		m.cancel()
	}
	for _, c := range m.open {
		c.Close()
	}
	m.open = nil
}

func (m *listeners) wait() { m.wg.Wait() }

// acquire counts a connection or flow of a peer.
func (m *listeners) acquire(peer netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.total >= maxMapped || m.byPeer[peer] >= maxMapped/3 {
		return false
	}
	m.total++
	m.byPeer[peer]++
	return true
}

func (m *listeners) release(peer netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total--
	if m.byPeer[peer]--; m.byPeer[peer] == 0 {
		delete(m.byPeer, peer)
	}
}

func (n *Net) mapTCP(ctx context.Context, at netip.AddrPort, target string) error {
	l, err := n.ListenTCP(at)
	if err != nil {
		return err
	}
	ln := l.(*net.TCPListener)
	m := &n.maps
	m.open = append(m.open, ln)
	m.wg.Go(func() {
		for {
			c, err := ln.AcceptTCP()
			if errors.Is(err, net.ErrClosed) {
				return
			} else if err != nil {
				if !pause(ctx, 50*time.Millisecond) { // out of file descriptors
					return
				}
				continue
			}
			peer := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			if !m.acquire(peer) {
				c.SetLinger(0)
				c.Close()
				continue
			}
			m.wg.Go(func() {
				defer m.release(peer)
				n.carry(ctx, c, peer, at.Port(), target)
			})
		}
	})
	return nil
}

// carry forwards a peer's connection to the target.
func (n *Net) carry(ctx context.Context, c *net.TCPConn, peer netip.Addr, port uint16, target string) {
	local, err := loopback.Dial(ctx, "tcp", target, port, peer, mapTimeout)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			n.cfg.Inbound.Watch.Refused("tcp", target, port)
		}
		n.log.Debug("connection refused", "peer", peer, "target", target, "err", err)
		c.SetLinger(0) // a reset, as from a port without a listener
		c.Close()
		return
	}
	n.cfg.Inbound.Watch.Reached(port)
	stop := context.AfterFunc(ctx, func() { c.Close(); local.Close() })
	defer stop()
	pipe.Join(c, local)
}

func (n *Net) mapUDP(ctx context.Context, at netip.AddrPort, target string) error {
	l, err := n.ListenUDP(at)
	if err != nil {
		return err
	}
	pc := l.(*net.UDPConn)
	m := &n.maps
	m.open = append(m.open, pc)
	m.wg.Go(func() {
		flows := udpFlows{by: map[netip.AddrPort]net.Conn{}}
		defer flows.close()
		buf := make([]byte, maxDatagram)
		for {
			k, from, err := pc.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			} else if err != nil {
				continue // an ICMP error of an answer
			}
			c := flows.get(from)
			if c == nil {
				peer := from.Addr().Unmap()
				if !m.acquire(peer) {
					continue
				}
				if c, err = loopback.Dial(ctx, "udp", target, at.Port(), peer, mapTimeout); err != nil {
					m.release(peer)
					continue
				}
				flows.put(from, c)
				m.wg.Go(func() {
					defer m.release(peer)
					defer flows.drop(from, c)
					if answers(pc, c, from) {
						n.cfg.Inbound.Watch.Refused("udp", target, at.Port())
					}
				})
			}
			c.SetReadDeadline(time.Now().Add(mapIdle))
			c.Write(buf[:k])
		}
	})
	return nil
}

// answers carries a target's datagrams back until the flow is idle. It reports whether
// the target refused.
func answers(pc *net.UDPConn, c net.Conn, to netip.AddrPort) (refused bool) {
	c.SetReadDeadline(time.Now().Add(mapIdle))
	buf := make([]byte, maxDatagram)
	for {
		k, err := c.Read(buf)
		if err != nil {
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		c.SetReadDeadline(time.Now().Add(mapIdle))
		pc.WriteToUDPAddrPort(buf[:k], to)
	}
}

// udpFlows are the flows of one mapped port.
type udpFlows struct {
	mu sync.Mutex
	by map[netip.AddrPort]net.Conn // guarded by mu
}

func (f *udpFlows) get(from netip.AddrPort) net.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.by[from]
}

func (f *udpFlows) put(from netip.AddrPort, c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by[from] = c
}

func (f *udpFlows) drop(from netip.AddrPort, c net.Conn) {
	c.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.by, from)
}

func (f *udpFlows) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.by {
		c.Close()
	}
}

// pause waits and reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
