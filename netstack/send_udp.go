package netstack

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// sendUDP sends one datagram to a peer. It reports false when the route is no longer
// usable.
func sendUDP(route *stack.Route, src, dst netip.AddrPort, payload []byte) bool {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()) + header.UDPMinimumSize,
		Payload:            buffer.MakeWithData(payload),
	})
	defer pkt.DecRef()
	hdr := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	pkt.TransportProtocolNumber = udp.ProtocolNumber
	size := uint16(len(hdr) + len(payload))
	hdr.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: size})
	sum := route.PseudoHeaderChecksum(udp.ProtocolNumber, size)
	sum = ^hdr.CalculateChecksum(checksum.Checksum(payload, sum))
	if sum == 0 {
		sum = 0xffff // zero would mean none
	}
	hdr.SetChecksum(sum)
	terr := route.WritePacket(stack.NetworkHeaderParams{Protocol: udp.ProtocolNumber, TTL: 64}, pkt)
	return terr == nil || errno(terr) == syscall.ENOBUFS
}

// sendPortUnreachable tells the peer of a flow that nothing listens.
func (n *Net) sendPortUnreachable(f *udpFlow) {
	src, dst := f.key.local.Addr(), f.key.peer.Addr()
	msg := make([]byte, 8, 8+len(f.quote))
	msg = append(msg, f.quote...)
	proto, sum := header.ICMPv4ProtocolNumber, uint16(0)
	if dst.Is4() {
		msg[0], msg[1] = icmp4Unreachable, 3
	} else {
		msg[0], msg[1] = icmp6Unreachable, 4
		proto = header.ICMPv6ProtocolNumber
		sum = header.PseudoHeaderChecksum(proto, toAddress(src), toAddress(dst), uint16(len(msg)))
	}
	binary.BigEndian.PutUint16(msg[2:], ^checksum.Checksum(msg, sum))
	n.sendRaw(src, dst, proto, msg)
}
