//go:build !linux

package link

import "net"

func setUnsentLimit(*net.TCPConn, int) {}
