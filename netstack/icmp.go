package netstack

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"weft/netstack/icmp"
)

const (
	protoICMPv4 = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	// icmpErrors is how many recent ICMP errors are remembered for the
	// connections that they ended.
	icmpErrors   = 64
	icmpErrorAge = 10 * time.Second
)

// icmpMonitor inspects incoming ICMP packets on their way to the stack.
//
// gVisor gives a connection less detail than ICMP does: it reports "administratively
// prohibited" as "host unreachable", ignores most codes of IPv6, and for UDP ignores
// all but "port unreachable". So the monitor remembers the error for its connection
// (see reason) and changes the code to one that makes gVisor fail the connection at
// once. It also takes the replies to Ping.
type icmpMonitor struct {
	pings icmp.Pings

	// mu guards the following. It is taken only for ICMP packets and failed
	// connections, never for a packet of TCP or UDP.
	mu     sync.Mutex
	errors [icmpErrors]icmpError // a ring: the next is written at errors[at]
	at     int
}

// flow names a connection as this node sees it.
type flow struct {
	proto         uint8
	local, remote netip.AddrPort
}

type icmpError struct {
	flow flow
	err  syscall.Errno
	when time.Time
}

// inspect looks at an ICMP packet (an IP packet that isICMP accepts) and may change it.
// It reports true when the packet is handled and the stack need not see it.
func (m *icmpMonitor) inspect(pkt []byte) (done bool) {
	if m.pings.Take(pkt) {
		return true
	}
	if msg, ok := icmp.Parse(pkt); ok && (msg.Proto == protoTCP || msg.Proto == protoUDP) {
		m.unreachable(msg)
	}
	return false
}

// unreachable handles an error about a packet of a connection.
func (m *icmpMonitor) unreachable(msg icmp.Message) {
	f := flow{
		msg.Proto,
		netip.AddrPortFrom(msg.Local, binary.BigEndian.Uint16(msg.L4)),
		netip.AddrPortFrom(msg.Remote, binary.BigEndian.Uint16(msg.L4[2:])),
	}
	m.mu.Lock()
	m.errors[m.at] = icmpError{flow: f, err: msg.Err, when: time.Now()}
	m.at = (m.at + 1) % len(m.errors)
	m.mu.Unlock()

	// The code that makes gVisor fail the connection.
	v4, b := msg.Local.Is4(), msg.ICMP
	code := b[1]
	switch {
	case f.proto == protoUDP && v4:
		code = 3 // port unreachable
	case f.proto == protoUDP:
		code = 4 // port unreachable
	case !v4 && code != 4:
		code = 0 // no route
	}
	if code != b[1] {
		sum := ^binary.BigEndian.Uint16(b[2:])
		sum = checksum.Combine(sum, ^uint16(b[1]))
		sum = checksum.Combine(sum, uint16(code))
		b[1] = code
		binary.BigEndian.PutUint16(b[2:], ^sum)
	}
}

// reason returns the error of the most recent ICMP message about f and forgets it; 0
// for none.
func (m *icmpMonitor) reason(f flow) syscall.Errno {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.errors {
		e := &m.errors[(m.at+len(m.errors)-1-i)%len(m.errors)]
		if e.err != 0 && e.flow == f && time.Since(e.when) < icmpErrorAge {
			err := e.err
			e.err = 0
			return err
		}
	}
	return 0
}
