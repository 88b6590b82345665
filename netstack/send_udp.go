package netstack

import (
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"weft/netstack/icmp"
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
	if b := icmp.Error(f.quote, icmp.PortUnreachable, 0); b != nil {
		n.sendPacket(b)
	}
}
