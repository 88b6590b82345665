package netstack

import (
	"context"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Ping sends one ICMP echo request to addr and returns the time until its reply, or the
// error that came instead: see icmp.Pings.Ping. Give ctx a deadline.
func (n *Net) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	return n.link.icmp.pings.Ping(ctx, addr)
}

// sendPacket sends an IP packet past the stack. It reports false if the queue is full.
func (n *Net) sendPacket(b []byte) bool {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	if !n.link.tx.push(pkt, pkt.Hash, pkt.Size()) {
		pkt.DecRef()
		return false
	}
	return true
}
