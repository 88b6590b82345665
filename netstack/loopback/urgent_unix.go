//go:build unix

package loopback

import "syscall"

// Inline leaves TCP's urgent byte (telnet's interrupt, FTP's ABOR) in its place
// among the others; a system takes it out of the stream otherwise, and it is lost.
// That it was urgent is not carried on: programs that keep it inline, as telnet's
// do, look for the mark in the bytes. It is for net.Dialer and net.ListenConfig,
// whose connections inherit it.
func Inline(c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// Of other sockets than TCP's it is without a meaning.
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_OOBINLINE, 1)
	})
}
