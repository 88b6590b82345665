package netstack

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

const (
	protoICMPv4 = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	icmp4EchoReply   = 0
	icmp4Unreachable = 3
	icmp4Echo        = 8
	icmp6Unreachable = 1
	icmp6Echo        = 128
	icmp6EchoReply   = 129

	// icmpErrors is how many recent ICMP errors are remembered for the
	// connections that they ended.
	icmpErrors   = 64
	icmpErrorAge = 10 * time.Second

	// maxPings bounds the pings in progress.
	maxPings = 256
)

// icmpMonitor inspects incoming ICMP packets on their way to the stack.
//
// gVisor gives a connection less detail than ICMP does: it reports "administratively
// prohibited" as "host unreachable", ignores most codes of IPv6, and for UDP ignores
// all but "port unreachable". So the monitor remembers the error for its connection
// (see reason) and changes the code to one that makes gVisor fail the connection at
// once. It also takes the replies to Ping.
type icmpMonitor struct {
	// mu guards the following. It is taken only for ICMP packets and failed
	// connections, never for a packet of TCP or UDP.
	mu     sync.Mutex
	errors [icmpErrors]icmpError // a ring: the next is written at errors[at]
	at     int
	pings  map[pingKey]chan<- pingResult
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

func (m *icmpMonitor) init() { m.pings = make(map[pingKey]chan<- pingResult) }

// inspect looks at an ICMP packet (an IP packet that isICMP accepts) and may change it.
// It reports true when the packet is handled and the stack need not see it.
func (m *icmpMonitor) inspect(pkt []byte) (done bool) {
	v4 := pkt[0]>>4 == 4
	ihl := 40
	if v4 {
		ihl = int(pkt[0]&15) * 4
		if binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 {
			return false // a fragment
		}
	}
	if len(pkt) < ihl+8 {
		return false
	}
	msg := pkt[ihl:]
	switch typ := msg[0]; {
	case v4 && typ == icmp4EchoReply, !v4 && typ == icmp6EchoReply:
		var from netip.Addr
		if v4 {
			from = netip.AddrFrom4([4]byte(pkt[12:16]))
		} else {
			from = netip.AddrFrom16([16]byte(pkt[8:24]))
		}
		return m.finish(pingKeyOf(from, msg), pingResult{at: time.Now()}, msg[8:])
	case v4 && typ == icmp4Unreachable:
		m.unreachable(msg, unreachableErrno4(msg[1]), true)
	case !v4 && typ == icmp6Unreachable:
		m.unreachable(msg, unreachableErrno6(msg[1]), false)
	}
	return false
}

// unreachable handles a "destination unreachable" message that means err.
func (m *icmpMonitor) unreachable(msg []byte, err syscall.Errno, v4 bool) {
	if err == 0 {
		return
	}
	f, l4, ok := parseQuoted(msg[8:], v4)
	if !ok {
		return
	}
	if f.proto == protoICMPv4 || f.proto == protoICMPv6 {
		if l4[0] == icmp4Echo && v4 || l4[0] == icmp6Echo && !v4 {
			m.finish(pingKeyOf(f.remote.Addr(), l4), pingResult{err: err}, nil)
		}
		return
	}
	m.mu.Lock()
	m.errors[m.at] = icmpError{flow: f, err: err, when: time.Now()}
	m.at = (m.at + 1) % len(m.errors)
	m.mu.Unlock()

	// The code that makes gVisor fail the connection.
	code := msg[1]
	switch {
	case f.proto == protoUDP && v4:
		code = 3 // port unreachable
	case f.proto == protoUDP:
		code = 4 // port unreachable
	case !v4 && code != 4:
		code = 0 // no route
	}
	if code != msg[1] {
		sum := ^binary.BigEndian.Uint16(msg[2:])
		sum = checksum.Combine(sum, ^uint16(msg[1]))
		sum = checksum.Combine(sum, uint16(code))
		msg[1] = code
		binary.BigEndian.PutUint16(msg[2:], ^sum)
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

// parseQuoted parses the packet of ours that an ICMP error quotes. l4 is its transport
// header, at least 8 bytes.
func parseQuoted(q []byte, v4 bool) (f flow, l4 []byte, ok bool) {
	var src, dst netip.Addr
	if v4 {
		if len(q) < 20 || q[0]>>4 != 4 {
			return f, nil, false
		}
		ihl := int(q[0]&15) * 4
		if ihl < 20 || len(q) < ihl+8 {
			return f, nil, false
		}
		f.proto = q[9]
		src, dst = netip.AddrFrom4([4]byte(q[12:16])), netip.AddrFrom4([4]byte(q[16:20]))
		l4 = q[ihl:]
	} else {
		if len(q) < 48 || q[0]>>4 != 6 {
			return f, nil, false
		}
		f.proto = q[6]
		src, dst = netip.AddrFrom16([16]byte(q[8:24])), netip.AddrFrom16([16]byte(q[24:40]))
		l4 = q[40:]
	}
	f.local, f.remote = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	if f.proto == protoTCP || f.proto == protoUDP {
		f.local = netip.AddrPortFrom(src, binary.BigEndian.Uint16(l4[0:]))
		f.remote = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(l4[2:]))
	}
	return f, l4, true
}

// unreachableErrno4 maps a code of ICMPv4 type 3 to an errno, as Linux does; 0 for
// "fragmentation needed", which does not fail a connection.
func unreachableErrno4(code uint8) syscall.Errno {
	switch code {
	case 0, 6, 11:
		return syscall.ENETUNREACH
	case 1, 5, 7, 8, 12, 14, 15:
		return syscall.EHOSTUNREACH
	case 9, 10, 13:
		return syscall.EACCES
	case 2, 3:
		return syscall.ECONNREFUSED
	}
	return 0
}

// unreachableErrno6 is unreachableErrno4 for ICMPv6 type 1.
func unreachableErrno6(code uint8) syscall.Errno {
	switch code {
	case 0:
		return syscall.ENETUNREACH
	case 1, 5, 6:
		return syscall.EACCES
	case 2, 3:
		return syscall.EHOSTUNREACH
	case 4:
		return syscall.ECONNREFUSED
	}
	return 0
}
