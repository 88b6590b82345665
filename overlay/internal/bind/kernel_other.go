//go:build !linux

package bind

import "net"

// Listen opens a UDP socket of the system, for Config.Listen.
func Listen(network, address string) (net.PacketConn, error) {
	return net.ListenPacket(network, address)
}

func kernelTransport(*net.UDPConn, bool) transport { return nil }
