//go:build !linux

package relayserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"

	"weft/overlay/relay/lane"
	"weft/overlay/stun"
)

// udpSocket is a socket that is served.
type udpSocket struct{ c *net.UDPConn }

// udpWay is what a platform adds to an address.
type udpWay struct{}

func newUDPSocket(c *net.UDPConn) (*udpSocket, error) {
	c.SetReadBuffer(udpBuffer) // as much as the system allows
	c.SetWriteBuffer(udpBuffer)
	return &udpSocket{c}, nil
}

type udpLoop struct{ udpCore }

func newUDPLoop(s *Server, sock *udpSocket) *udpLoop {
	return &udpLoop{udpCore{s: s, sock: sock, stun: stun.NewServer(s.cfg.Log)}}
}

// run serves one datagram after the other.
func (u *udpLoop) run(ctx context.Context) error {
	buf := make([]byte, maxUDP)
	for {
		n, from, err := u.sock.c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			continue // an ICMP error about an earlier datagram, for example
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		now := u.s.now()
		if id, _, ok := lane.ParseData(buf[:n]); ok {
			if to := u.s.route(id, from, n, now); to != nil {
				if _, err := to.via.c.WriteToUDPAddrPort(buf[:n], to.remote); err != nil {
					u.s.lanes.dropped.Add(uint64(n))
				} else {
					u.s.lanes.bytes.Add(uint64(n))
				}
			}
			continue
		}
		if out := u.answer(buf[:n], from, udpWay{}, now); out != nil {
			u.sock.c.WriteToUDPAddrPort(out, from)
		}
	}
}
