package icmp

import "encoding/binary"

// Reason is what an ICMP error says: its type and code in IPv4 and in IPv6.
type Reason struct{ v4, v6 [2]byte }

// The reasons, and the errors that programs get.
var (
	HostUnreachable = Reason{[2]byte{unreachable4, 1}, [2]byte{unreachable6, 3}}  // EHOSTUNREACH
	Prohibited      = Reason{[2]byte{unreachable4, 13}, [2]byte{unreachable6, 1}} // EACCES
	PortUnreachable = Reason{[2]byte{unreachable4, 3}, [2]byte{unreachable6, 4}}  // ECONNREFUSED
	TooBig          = Reason{[2]byte{unreachable4, 4}, [2]byte{tooBig6, 0}}       // none: shorter packets follow
)

// The longest errors: RFC 1812, 4.3.2.3, and RFC 4443, 2.4 (c).
const (
	maxError4 = 576
	maxError6 = 1280
)

// Error makes the ICMP error about pkt that its destination would send, and quotes as
// much of it as allowed. mtu is for TooBig. It returns nil for a packet that must not
// cause one: a fragment other than the first, and ICMP except an echo request.
func Error(pkt []byte, why Reason, mtu int) []byte {
	proto, l4, later, ok := Transport(pkt)
	if !ok || later || (proto == protoICMPv4 || proto == protoICMPv6) && !isEcho(proto, l4) {
		return nil
	}
	src, dst := addresses(pkt)
	proto, kind, most := protoICMPv4, why.v4, maxError4-20-headerSize
	if len(src) == 16 {
		proto, kind, most = protoICMPv6, why.v6, maxError6-40-headerSize
	}
	quoted := pkt[:min(len(pkt), most)]
	answer, msg := packet(dst, src, proto, headerSize+len(quoted))
	msg[0], msg[1] = kind[0], kind[1]
	binary.BigEndian.PutUint32(msg[4:], uint32(mtu))
	copy(msg[headerSize:], quoted)
	sign(answer, msg, 2)
	return answer
}

const tcpFIN, tcpSYN, tcpRST, tcpACK = 1, 2, 4, 16

// Reset makes the TCP reset that refuses a segment (RFC 9293, 3.10.7.1). TCP survives
// most ICMP errors, but no reset. It returns nil for a packet that is no segment, or is
// a reset.
func Reset(pkt []byte) []byte {
	proto, seg, later, ok := Transport(pkt)
	if !ok || later || proto != protoTCP || len(seg) < 20 {
		return nil
	}
	flags, off := seg[13], int(seg[12]>>4)*4
	if flags&tcpRST != 0 || off < 20 || off > len(seg) {
		return nil
	}
	src, dst := addresses(pkt)
	answer, r := packet(dst, src, protoTCP, 20)
	copy(r[0:2], seg[2:4])
	copy(r[2:4], seg[0:2])
	r[12], r[13] = 5<<4, tcpRST
	if flags&tcpACK != 0 {
		copy(r[4:8], seg[8:12])
	} else {
		length := uint32(len(seg) - off)
		if flags&tcpSYN != 0 {
			length++
		}
		if flags&tcpFIN != 0 {
			length++
		}
		r[13] |= tcpACK
		binary.BigEndian.PutUint32(r[8:], binary.BigEndian.Uint32(seg[4:])+length)
	}
	sign(answer, r, 16)
	return answer
}
