//go:build !linux

package dns

import "net"

func listenUDP(addr string) (net.PacketConn, error) { return net.ListenPacket("udp", addr) }

func (s *Server) serveBatches(*net.UDPConn) bool { return false }
