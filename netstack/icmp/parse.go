package icmp

import (
	"net/netip"
	"syscall"
)

// Message is what an incoming ICMP message says about a packet that this node has sent.
type Message struct {
	// Err says why the packet did not arrive. 0: it was an echo request, and this is
	// its reply.
	Err syscall.Errno

	// Local and Remote are the packet's source and destination.
	Local, Remote netip.Addr

	// Proto and L4 are its protocol and transport header, at least 8 bytes. Of ICMP
	// there are only echo requests; of one that is answered this is the reply, whose
	// identifier, sequence number and payload are the same.
	Proto uint8
	L4    []byte

	// ICMP is the message itself.
	ICMP []byte
}

// Parse reads an incoming packet. ok is false for any that is not such a message. It
// makes no copy: L4 and ICMP are parts of pkt.
func Parse(pkt []byte) (m Message, ok bool) {
	proto, msg, later, ok := Transport(pkt)
	v4 := ok && pkt[0]>>4 == 4
	if !ok || later || len(msg) < headerSize || v4 && proto != protoICMPv4 || !v4 && proto != protoICMPv6 {
		return m, false
	}
	m.ICMP = msg
	switch typ := msg[0]; {
	case v4 && typ == echoReply4, !v4 && typ == echoReply6:
		m.Proto, m.L4 = proto, msg
		m.Remote, m.Local = ends(pkt)
		return m, true
	case v4 && typ == unreachable4:
		m.Err = errno4(msg[1])
	case !v4 && typ == unreachable6:
		m.Err = errno6(msg[1])
	}
	if m.Err == 0 {
		return m, false
	}
	quoted := msg[headerSize:]
	m.Proto, m.L4, later, ok = Transport(quoted)
	if !ok || later || len(m.L4) < 8 || quoted[0]>>4 != pkt[0]>>4 {
		return m, false
	}
	m.Local, m.Remote = ends(quoted)
	isICMP := m.Proto == protoICMPv4 || m.Proto == protoICMPv6
	return m, !isICMP || isEcho(m.Proto, m.L4)
}

// ends is addresses as netip.Addr.
func ends(pkt []byte) (src, dst netip.Addr) {
	s, d := addresses(pkt)
	src, _ = netip.AddrFromSlice(s)
	dst, _ = netip.AddrFromSlice(d)
	return src, dst
}

// errno4 maps a code of "destination unreachable" to an errno, as Linux does; 0 for
// "fragmentation needed", which does not fail a connection, and for unknown codes.
func errno4(code uint8) syscall.Errno {
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

// errno6 is errno4 for ICMPv6.
func errno6(code uint8) syscall.Errno {
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
