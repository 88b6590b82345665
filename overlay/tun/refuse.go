package tun

import "encoding/binary"

// refuse answers a packet for a closed port as if nothing listened there: with a reset,
// or an ICMP port unreachable. The answers leave through Read; if there are too many,
// they are dropped.
func (n *Net) refuse(pkt []byte) {
	proto, l4, later, ok := transport(pkt)
	if !ok || later {
		return
	}
	switch {
	case proto == protoTCP && len(l4) >= 20:
		n.send(resetTo(pkt, l4))
	case proto == protoUDP && len(l4) >= 8:
		n.send(unreachableTo(pkt))
	}
}

// answerHead is an IP header back to the sender of pkt, with room for size bytes.
func answerHead(pkt []byte, proto uint8, size int) (answer, l4 []byte) {
	if pkt[0]>>4 == 4 {
		b := make([]byte, 20+size)
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		copy(b[12:16], pkt[16:20])
		copy(b[16:20], pkt[12:16])
		binary.NativeEndian.PutUint16(b[10:], ^fold(sum(b[:20], 0)))
		return b, b[20:]
	}
	b := make([]byte, 40+size)
	b[0], b[6], b[7] = 0x60, proto, 64
	binary.BigEndian.PutUint16(b[4:], uint16(size))
	copy(b[8:24], pkt[24:40])
	copy(b[24:40], pkt[8:24])
	return b, b[40:]
}

// pseudoOf is the sum of the pseudo header of such a packet.
func pseudoOf(pkt []byte, proto uint8, size int) uint64 {
	addresses := pkt[12:20]
	if pkt[0]>>4 == 6 {
		addresses = pkt[8:40]
	}
	return sum([]byte{0, proto, byte(size >> 8), byte(size)}, sum(addresses, 0))
}

// resetTo answers a SYN with a reset.
func resetTo(pkt, syn []byte) []byte {
	b, tcp := answerHead(pkt, protoTCP, 20)
	copy(tcp[0:2], syn[2:4])
	copy(tcp[2:4], syn[0:2])
	binary.BigEndian.PutUint32(tcp[8:], binary.BigEndian.Uint32(syn[4:])+1)
	tcp[12], tcp[13] = 5<<4, tcpRST|tcpACK
	binary.NativeEndian.PutUint16(tcp[16:], ^fold(sum(tcp, pseudoOf(b, protoTCP, 20))))
	return b
}

// unreachableTo answers a datagram with a port unreachable.
func unreachableTo(pkt []byte) []byte {
	quoted := pkt[:min(len(pkt), 512)]
	if pkt[0]>>4 == 4 {
		b, icmp := answerHead(pkt, protoICMP, 8+len(quoted))
		icmp[0], icmp[1] = 3, 3
		copy(icmp[8:], quoted)
		binary.NativeEndian.PutUint16(icmp[2:], ^fold(sum(icmp, 0)))
		return b
	}
	b, icmp := answerHead(pkt, protoICMPv6, 8+len(quoted))
	icmp[0], icmp[1] = 1, 4
	copy(icmp[8:], quoted)
	binary.NativeEndian.PutUint16(icmp[2:], ^fold(sum(icmp, pseudoOf(b, protoICMPv6, len(icmp)))))
	return b
}
