package netstack

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// pingData is the payload of an echo request. It is random, so a reply with the same
// bytes proves that the peer has seen the request.
type pingData [16]byte

type pingKey struct {
	remote  netip.Addr
	id, seq uint16
}

type pingResult struct {
	at   time.Time     // when the reply came
	err  syscall.Errno // or why none will
	data pingData
}

// pingKeyOf returns the key of an ICMP echo message, request or reply.
func pingKeyOf(remote netip.Addr, msg []byte) pingKey {
	return pingKey{remote: remote, id: binary.BigEndian.Uint16(msg[4:]), seq: binary.BigEndian.Uint16(msg[6:])}
}

// Ping sends one ICMP echo request to addr and returns the time until its reply. When
// an ICMP error comes instead, it fails with that error (EACCES, EHOSTUNREACH, …). It
// fails with ctx's error when ctx ends first: give ctx a deadline. The first ping to a
// peer includes the time to set up the tunnel. Pinging an address of this node returns
// at once.
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
	own := n.addrs.Load()
	if own.has(addr) {
		return 0, nil
	}
	src := own.v4
	if addr.Is6() {
		src = own.v6
	}
	if !src.IsValid() {
		return 0, os.NewSyscallError("sendto", syscall.ENETUNREACH)
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}

	reply := make(chan pingResult, 4)
	key, data, err := n.link.icmp.register(addr, reply)
	if err != nil {
		return 0, err
	}
	defer n.link.icmp.unregister(key)

	start := time.Now()
	if err := n.sendEcho(src, key, data); err != nil {
		return 0, err
	}
	for {
		select {
		case r := <-reply:
			if r.err != 0 {
				return 0, os.NewSyscallError("recvfrom", r.err)
			}
			if r.data != data {
				continue // not a reply to our request
			}
			return r.at.Sub(start), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-n.ctx.Done():
			return 0, net.ErrClosed
		}
	}
}

// register picks a free identifier for a ping and delivers its result to reply.
func (m *icmpMonitor) register(addr netip.Addr, reply chan<- pingResult) (pingKey, pingData, error) {
	var data pingData
	rand.Read(data[:])
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.pings) >= maxPings {
		return pingKey{}, data, errors.New("too many pings at the same time")
	}
	key := pingKey{remote: addr, id: binary.BigEndian.Uint16(data[0:]), seq: binary.BigEndian.Uint16(data[2:])}
	for m.pings[key] != nil {
		key.id++
	}
	m.pings[key] = reply
	return key, data, nil
}

func (m *icmpMonitor) unregister(key pingKey) {
	m.mu.Lock()
	delete(m.pings, key)
	m.mu.Unlock()
}

// finish delivers a result to its ping and reports whether that ping exists.
func (m *icmpMonitor) finish(key pingKey, r pingResult, payload []byte) bool {
	copy(r.data[:], payload)
	m.mu.Lock()
	reply := m.pings[key]
	m.mu.Unlock()
	if reply == nil {
		return false
	}
	select {
	case reply <- r:
	default:
	}
	return true
}

// sendEcho sends an echo request through the stack, which adds the IP header.
func (n *Net) sendEcho(src netip.Addr, key pingKey, data pingData) error {
	v4 := key.remote.Is4()
	msg := make([]byte, 8+len(data))
	msg[0] = icmp6Echo
	if v4 {
		msg[0] = icmp4Echo
	}
	binary.BigEndian.PutUint16(msg[4:], key.id)
	binary.BigEndian.PutUint16(msg[6:], key.seq)
	copy(msg[8:], data[:])
	proto := header.ICMPv4ProtocolNumber
	sum := uint16(0)
	if !v4 {
		proto = header.ICMPv6ProtocolNumber
		sum = header.PseudoHeaderChecksum(proto, toAddress(src), toAddress(key.remote), uint16(len(msg)))
	}
	binary.BigEndian.PutUint16(msg[2:], ^checksum.Checksum(msg, sum))
	return n.sendRaw(src, key.remote, proto, msg)
}

// sendRaw sends a transport message that has its checksum already.
func (n *Net) sendRaw(src, dst netip.Addr, proto tcpip.TransportProtocolNumber, msg []byte) error {
	route, terr := n.stack.FindRoute(nicID, toAddress(src), toAddress(dst), protocolOf(dst), false)
	if terr != nil {
		return os.NewSyscallError("sendto", errno(terr))
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()) + len(msg),
	})
	defer pkt.DecRef()
	copy(pkt.TransportHeader().Push(len(msg)), msg)
	pkt.TransportProtocolNumber = proto
	if terr := route.WritePacket(stack.NetworkHeaderParams{Protocol: proto, TTL: 64}, pkt); terr != nil {
		return os.NewSyscallError("sendto", errno(terr))
	}
	return nil
}
