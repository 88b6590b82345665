//go:build !linux

package relayserver

import (
	"context"
	"net"
)

// udpSocket is a socket that ServeUDP serves.
type udpSocket struct{ c UDPConn }

// sourceInfo is what a platform adds to an address.
type sourceInfo struct{}

func newUDPSocket(c UDPConn) (*udpSocket, error) {
	if k, ok := c.(*net.UDPConn); ok {
		k.SetReadBuffer(udpBuffer) // as much as the system allows
		k.SetWriteBuffer(udpBuffer)
	}
	return &udpSocket{c}, nil
}

func (s *Server) runUDP(ctx context.Context, sock *udpSocket) error {
	return (&plainLoop{newUDPCore(s, sock)}).run(ctx)
}
