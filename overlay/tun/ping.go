package tun

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxPings  = 256 // pings in progress
	pingBytes = 16  // random: a reply proves that the peer has seen them
)

// pings are the echo requests of Ping. They do not use the kernel's ping sockets: those
// need permissions that a process with CAP_NET_ADMIN may lack.
type pings struct {
	waiting atomic.Int32 // len(by)

	mu sync.Mutex
	by map[pingKey]*ping // guarded by mu
}

type pingKey struct {
	remote  netip.Addr
	id, seq uint16
}

type ping struct {
	data [pingBytes]byte
	done chan pong // capacity 1
}

type pong struct {
	at  time.Time
	err error
}

func (p *pings) init() { p.by = map[pingKey]*ping{} }

// Ping sends one ICMP echo request to addr through the tunnel and returns the time
// until its reply. If an ICMP unreachable comes instead, it fails with syscall.EACCES
// or EHOSTUNREACH; if ctx ends first, with ctx's error. Pinging an address of this node
// returns at once.
func (n *Net) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	addr = addr.Unmap().WithZone("")
	rtt, err := n.ping(ctx, addr)
	if err != nil {
		return 0, fmt.Errorf("ping %s: %w", addr, err)
	}
	return rtt, nil
}

func (n *Net) ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() {
		return 0, os.NewSyscallError("sendto", syscall.EINVAL)
	}
	if n.ctx.Err() != nil {
		return 0, net.ErrClosed
	}
	a := n.addrs.Load()
	if a.has(addr) {
		return 0, nil
	}
	src := a.ip4
	if addr.Is6() {
		src = a.ip6
	}
	if !src.IsValid() {
		return 0, os.NewSyscallError("sendto", syscall.ENETUNREACH)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	p := &ping{done: make(chan pong, 1)}
	rand.Read(p.data[:])
	key, err := n.pings.add(addr, p)
	if err != nil {
		return 0, err
	}
	defer n.pings.remove(key)
	start := time.Now()
	if !n.send(echo(src, key, p)) {
		return 0, os.NewSyscallError("sendto", syscall.ENOBUFS)
	}
	select {
	case r := <-p.done:
		return r.at.Sub(start), r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-n.ctx.Done():
		return 0, net.ErrClosed
	}
}

func (p *pings) add(addr netip.Addr, q *ping) (pingKey, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.by) >= maxPings {
		return pingKey{}, errors.New("too many pings at the same time")
	}
	key := pingKey{addr, binary.BigEndian.Uint16(q.data[0:]), binary.BigEndian.Uint16(q.data[2:])}
	for p.by[key] != nil {
		key.id++
	}
	p.by[key] = q
	p.waiting.Store(int32(len(p.by)))
	return key, nil
}

func (p *pings) remove(key pingKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.by, key)
	p.waiting.Store(int32(len(p.by)))
}

// echo builds the request.
func echo(src netip.Addr, key pingKey, p *ping) []byte {
	from := make([]byte, 40) // an IP header as of a packet from the remote
	proto, typ := uint8(protoICMP), byte(8)
	if src.Is4() {
		from[0] = 0x45
		copy(from[12:], key.remote.AsSlice())
		copy(from[16:], src.AsSlice())
	} else {
		proto, typ = protoICMPv6, 128
		from[0] = 0x60
		copy(from[8:], key.remote.AsSlice())
		copy(from[24:], src.AsSlice())
	}
	b, icmp := answerHead(from, proto, 8+pingBytes)
	icmp[0] = typ
	binary.BigEndian.PutUint16(icmp[4:], key.id)
	binary.BigEndian.PutUint16(icmp[6:], key.seq)
	copy(icmp[8:], p.data[:])
	acc := uint64(0)
	if src.Is6() {
		acc = pseudoOf(b, proto, len(icmp))
	}
	binary.NativeEndian.PutUint16(icmp[2:], ^fold(sum(icmp, acc)))
	return b
}

// take inspects an incoming packet while there are pings. It returns true for a reply
// to one, which the kernel need not see.
func (p *pings) take(pkt []byte) bool {
	proto, icmp, later, ok := transport(pkt)
	if !ok || later || len(icmp) < 8 || proto != protoICMP && proto != protoICMPv6 {
		return false
	}
	v4 := pkt[0]>>4 == 4
	switch {
	case v4 && icmp[0] == 0, !v4 && icmp[0] == 129:
		var from netip.Addr
		if v4 {
			from = netip.AddrFrom4([4]byte(pkt[12:16]))
		} else {
			from = netip.AddrFrom16([16]byte(pkt[8:24]))
		}
		return p.finish(pingKey{from, binary.BigEndian.Uint16(icmp[4:]), binary.BigEndian.Uint16(icmp[6:])}, icmp[8:], nil)
	case v4 && icmp[0] == 3, !v4 && icmp[0] == 1:
		q := icmp[8:] // our quoted request
		proto, echo, later, ok := transport(q)
		if !ok || later || len(echo) < 8 || proto != protoICMP && proto != protoICMPv6 {
			return false
		}
		var to netip.Addr
		err := syscall.EHOSTUNREACH
		if q[0]>>4 == 4 {
			to = netip.AddrFrom4([4]byte(q[16:20]))
			if c := icmp[1]; c == 9 || c == 10 || c == 13 {
				err = syscall.EACCES
			}
		} else {
			to = netip.AddrFrom16([16]byte(q[24:40]))
			if c := icmp[1]; c == 1 || c == 5 || c == 6 {
				err = syscall.EACCES
			}
		}
		return p.finish(pingKey{to, binary.BigEndian.Uint16(echo[4:]), binary.BigEndian.Uint16(echo[6:])}, nil, os.NewSyscallError("recvfrom", err))
	}
	return false
}

// finish ends a ping with the received data or an error.
func (p *pings) finish(key pingKey, data []byte, err error) bool {
	p.mu.Lock()
	q := p.by[key]
	p.mu.Unlock()
	if q == nil || err == nil && string(data) != string(q.data[:]) {
		return false
	}
	select {
	case q.done <- pong{time.Now(), err}:
	default:
	}
	return true
}
