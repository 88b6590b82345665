package link

import (
	"net"

	"golang.org/x/sys/unix"
)

// setUnsentLimit bounds the bytes that wait in the kernel before they are
// first sent. Those in flight do not count.
func setUnsentLimit(c *net.TCPConn, n int) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n) })
	}
}
