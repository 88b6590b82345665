package limited

import "syscall"

// SmallSocket is the system's buffer for one direction of a socket after ShrinkSocket,
// in bytes: twice the requested size, since Linux includes its own overhead.
const SmallSocket = 32 << 10

// ShrinkSocket bounds the buffers of a TCP socket to a local program, if memory is
// short: the system would let each grow to megabytes, which a control group counts as
// this process's. It is for net.Dialer and net.ListenConfig, whose connections inherit
// it. Errors are ignored.
func ShrinkSocket(c syscall.RawConn) {
	if Short(Memory()) {
		shrinkSocket(c)
	}
}
