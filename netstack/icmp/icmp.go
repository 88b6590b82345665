// Package icmp has what the two networks of a node, package netstack and the kernel
// interface of overlay/tun, need of ICMP for IPv4 and IPv6. Bytes go in, a verdict or
// bytes come out; all packets are whole IP packets.
//
//   - Parse reads what an incoming message says about a packet that this node has sent:
//     that it was answered (an echo reply) or that it did not arrive.
//   - Pings are the echo requests in progress. Their owner sends the requests and shows
//     it every incoming packet.
//   - Error and Reset answer a packet that is not delivered, as its destination would.
//
// Nothing here checks the checksum of what comes in: WireGuard has authenticated it. But
// the peer that sent it is not trusted. It cannot fake an echo reply, whose payload is
// random, and it cannot make any function here fail. It can claim that a packet to
// another peer did not arrive only if it guesses the ports, or the 32 bits of an echo
// request.
package icmp

import "encoding/binary"

const (
	protoICMPv4   = 1
	protoTCP      = 6
	protoFragment = 44
	protoICMPv6   = 58

	echoReply4   = 0
	unreachable4 = 3
	echo4        = 8
	unreachable6 = 1
	tooBig6      = 2
	echo6        = 128
	echoReply6   = 129

	headerSize = 8 // of the messages used here
)

// Transport finds the header after the IP header, and after the fragment header of IPv6,
// which is the only extension header that it knows. later is true for a fragment without
// that header. ok is false for what is too short to be an IP packet; l4 may have any
// length.
func Transport(pkt []byte) (proto uint8, l4 []byte, later, ok bool) {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		ihl := int(pkt[0]&15) * 4
		if ihl < 20 || ihl > len(pkt) {
			return 0, nil, false, false
		}
		return pkt[9], pkt[ihl:], binary.BigEndian.Uint16(pkt[6:])&0x1fff != 0, true
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		proto, l4 = pkt[6], pkt[40:]
		if proto != protoFragment {
			return proto, l4, false, true
		}
		if len(l4) >= 8 {
			return l4[0], l4[8:], binary.BigEndian.Uint16(l4[2:])&^7 != 0, true
		}
	}
	return 0, nil, false, false
}

// addresses returns the source and destination of a packet that Transport accepts.
func addresses(pkt []byte) (src, dst []byte) {
	if pkt[0]>>4 == 4 {
		return pkt[12:16], pkt[16:20]
	}
	return pkt[8:24], pkt[24:40]
}

// isEcho reports whether the message of such a packet is an echo request.
func isEcho(proto uint8, msg []byte) bool {
	return len(msg) >= headerSize && (proto == protoICMPv4 && msg[0] == echo4 || proto == protoICMPv6 && msg[0] == echo6)
}

// packet makes an IP packet with size bytes for the transport.
func packet(src, dst []byte, proto uint8, size int) (pkt, l4 []byte) {
	if len(src) == 4 {
		pkt = make([]byte, 20+size)
		pkt[0], pkt[8], pkt[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		copy(pkt[12:], src)
		copy(pkt[16:], dst)
		binary.BigEndian.PutUint16(pkt[10:], ^sum(pkt[:20], 0))
		return pkt, pkt[20:]
	}
	pkt = make([]byte, 40+size)
	pkt[0], pkt[6], pkt[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(pkt[4:], uint16(size))
	copy(pkt[8:], src)
	copy(pkt[24:], dst)
	return pkt, pkt[40:]
}

// sign puts the checksum of such a packet's transport at l4[at:]. All but ICMPv4 cover
// a pseudo header of the addresses, the protocol and the length too.
func sign(pkt, l4 []byte, at int) {
	pseudo := uint32(0)
	switch v4 := pkt[0]>>4 == 4; {
	case !v4:
		pseudo = uint32(sum(pkt[8:40], uint32(pkt[6])+uint32(len(l4))))
	case pkt[9] != protoICMPv4:
		pseudo = uint32(sum(pkt[12:20], uint32(pkt[9])+uint32(len(l4))))
	}
	binary.BigEndian.PutUint16(l4[at:], ^sum(l4, pseudo))
}

// sum returns the ones' complement sum of b, starting with start (RFC 1071).
func sum(b []byte, start uint32) uint16 {
	s := uint64(start)
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
