package tun

import (
	"context"
	"net/netip"
	"time"
)

// Ping sends one ICMP echo request to addr through the tunnel and returns the time until
// its reply, or the error that came instead: see icmp.Pings.Ping. It does not use the
// kernel's ping sockets: those need permissions that a process with CAP_NET_ADMIN may
// lack.
func (n *Net) Ping(ctx context.Context, addr netip.Addr) (time.Duration, error) {
	return n.pings.Ping(ctx, addr)
}
