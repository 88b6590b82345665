//go:build !linux

package main

import (
	"log/slog"
	"net"

	"weft/overlay/tun"
)

// serviceAddr is only needed on systems with kernel interfaces.
type serviceAddr struct{}

func newServiceAddr(string, func(net.PacketConn, net.Listener), *slog.Logger) *serviceAddr {
	return &serviceAddr{}
}

func (*serviceAddr) ready() error { return tun.ErrUnsupported }

func (*serviceAddr) close() {}
