//go:build !linux

package relayserver

import (
	"context"
	"net"

	"weft/overlay/stun"
)

// udpSocket is a socket that is served.
type udpSocket struct{ c UDPConn }

// udpWay is what a platform adds to an address.
type udpWay struct{}

func newUDPSocket(c UDPConn) (*udpSocket, error) {
	if k, ok := c.(*net.UDPConn); ok {
		k.SetReadBuffer(udpBuffer) // as much as the system allows
		k.SetWriteBuffer(udpBuffer)
	}
	return &udpSocket{c}, nil
}

func (s *Server) runUDP(ctx context.Context, sock *udpSocket) error {
	return (&plainLoop{udpCore{s: s, sock: sock, stun: stun.NewServer(s.cfg.Log)}}).run(ctx)
}
