package relayserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"

	"weft/overlay/relay/lane"
)

// plainLoop serves a socket one datagram at a time: on systems without batches, and for
// sockets that are not the kernel's. One goroutine uses it.
type plainLoop struct{ udpCore }

func (u *plainLoop) run(ctx context.Context) error {
	buf := make([]byte, maxUDP)
	for failed := 0; ; {
		n, from, err := u.sock.c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if failed++; ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || failed > maxErrors {
				return err
			}
			continue // an ICMP error about an earlier datagram, for example
		}
		failed = 0
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		now := u.s.now()
		if id, _, ok := lane.ParseData(buf[:n]); ok {
			if to := u.s.laneDestination(id, from, n, now); to != nil {
				u.s.lanes.one(to, buf[:n])
			}
			continue
		}
		if out := u.answer(buf[:n], from, sourceInfo{}, now); out != nil {
			u.sock.c.WriteToUDPAddrPort(out, from)
		}
	}
}

// one forwards a single datagram.
func (l *lanes) one(to *binding, b []byte) {
	if _, err := to.sock.c.WriteToUDPAddrPort(b, to.remote); err != nil {
		l.dropped.Add(uint64(len(b)))
	} else {
		l.bytes.Add(uint64(len(b)))
	}
}
