//go:build unix && !linux

package loopback

import "syscall"

// Receive reads a datagram from the socket with the descriptor fd, without
// waiting. port is 0: it came from the target.
func (u *UDP) Receive(fd uintptr, b []byte) (n int, port uint16, err error) {
	n, err = syscall.Read(int(fd), b)
	return n, 0, err
}
