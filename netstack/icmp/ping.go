package icmp

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

const maxPings = 256 // in progress

// Pings are the echo requests in progress of one node.
type Pings struct {
	// Constant after the first use.
	Context context.Context              // of the node: when it ends, so do all pings
	Own     func() (v4, v6 netip.Addr)   // the node's addresses; a zero Addr is none
	Send    func(pkt []byte) (sent bool) // sends an IP packet, which it may keep

	waiting atomic.Int32 // len(by)

	mu sync.Mutex
	by map[key]*ping // guarded by mu
}

// key identifies an echo request, and its reply.
type key struct {
	remote  netip.Addr
	id, seq uint16
}

// keyOf reads b, which starts with identifier and sequence number.
func keyOf(remote netip.Addr, b []byte) key {
	return key{remote, binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
}

type ping struct {
	data [16]byte    // the payload: random, so a reply proves that the peer has seen it
	done chan result // capacity 1
}

type result struct {
	at  time.Time     // when the reply came
	err syscall.Errno // or why none will
}

// Ping sends one ICMP echo request to addr and returns the time until its reply. When
// an ICMP error comes instead, it fails with that error (EACCES, EHOSTUNREACH, …). It
// fails with ctx's error when ctx ends first: give ctx a deadline. The first ping to a
// peer includes the time to set up the tunnel. Pinging an address of this node returns
// at once.
func (p *Pings) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	addr = addr.Unmap().WithZone("")
	rtt, err := p.ping(ctx, addr)
	if err != nil {
		return 0, fmt.Errorf("ping %s: %w", addr, err)
	}
	return rtt, nil
}

func (p *Pings) ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() {
		return 0, os.NewSyscallError("sendto", syscall.EINVAL)
	}
	if p.Context.Err() != nil {
		return 0, net.ErrClosed
	}
	v4, v6 := p.Own()
	if addr == v4 || addr == v6 {
		return 0, nil
	}
	src := v4
	if addr.Is6() {
		src = v6
	}
	if !src.IsValid() {
		return 0, os.NewSyscallError("sendto", syscall.ENETUNREACH)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}

	q := &ping{done: make(chan result, 1)}
	rand.Read(q.data[:])
	k, err := p.add(addr, q)
	if err != nil {
		return 0, err
	}
	defer p.remove(k)

	start := time.Now()
	if !p.Send(request(src, k, q.data[:])) {
		return 0, os.NewSyscallError("sendto", syscall.ENOBUFS)
	}
	select {
	case r := <-q.done:
		if r.err != 0 {
			return 0, os.NewSyscallError("recvfrom", r.err)
		}
		return r.at.Sub(start), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-p.Context.Done():
		return 0, net.ErrClosed
	}
}

// add picks a free identifier for q.
func (p *Pings) add(addr netip.Addr, q *ping) (key, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.by) >= maxPings {
		return key{}, errors.New("too many pings at the same time")
	}
	if p.by == nil {
		p.by = map[key]*ping{}
	}
	k := keyOf(addr, q.data[:])
	for p.by[k] != nil {
		k.id++
	}
	p.by[k] = q
	p.waiting.Store(int32(len(p.by)))
	return k, nil
}

func (p *Pings) remove(k key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.by, k)
	p.waiting.Store(int32(len(p.by)))
}

// request makes an echo request.
func request(src netip.Addr, k key, data []byte) []byte {
	proto, typ := uint8(protoICMPv4), byte(echo4)
	if src.Is6() {
		proto, typ = protoICMPv6, echo6
	}
	pkt, msg := packet(src.AsSlice(), k.remote.AsSlice(), proto, headerSize+len(data))
	msg[0] = typ
	binary.BigEndian.PutUint16(msg[4:], k.id)
	binary.BigEndian.PutUint16(msg[6:], k.seq)
	copy(msg[headerSize:], data)
	sign(pkt, msg, 2)
	return pkt
}

// Take inspects an incoming packet. It returns true if the packet ends a ping: then
// nobody else waits for it. Without pings in progress it takes no lock, and it never
// allocates.
func (p *Pings) Take(pkt []byte) bool { return p.waiting.Load() > 0 && p.take(pkt) }

func (p *Pings) take(pkt []byte) bool {
	m, ok := Parse(pkt)
	if !ok || m.Proto != protoICMPv4 && m.Proto != protoICMPv6 {
		return false
	}
	p.mu.Lock()
	q := p.by[keyOf(m.Remote, m.L4[4:])]
	p.mu.Unlock()
	if q == nil || m.Err == 0 && string(m.L4[headerSize:]) != string(q.data[:]) {
		return false
	}
	select {
	case q.done <- result{time.Now(), m.Err}:
	default: // a second reply
	}
	return true
}
