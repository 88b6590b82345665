//go:build unix

package loopback

import "syscall"

// Inline keeps TCP's urgent byte (telnet's interrupt, FTP's ABOR) at its place in the
// stream; otherwise the system takes it out and it is lost. The urgent mark itself is
// not forwarded: programs that keep the byte inline, such as telnet's, look for it in
// the bytes. Inline is for net.Dialer and net.ListenConfig, whose connections inherit
// the option.
func Inline(c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// The option has no effect on sockets other than TCP's.
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_OOBINLINE, 1)
	})
}
