package limited

import "syscall"

// SmallSocket is what the system keeps for one direction of a socket after
// ShrinkSocket, in bytes: twice what is asked for, as Linux counts its own needs.
const SmallSocket = 32 << 10

// ShrinkSocket bounds the buffers of a TCP socket that leads to a program on this
// machine, if memory is short: the system would let each grow to megabytes, which
// count as this process's where a control group limits it. It is for net.Dialer
// and net.ListenConfig, whose connections inherit it. A system that refuses keeps
// what it has.
func ShrinkSocket(c syscall.RawConn) {
	if Short(Memory()) {
		shrinkSocket(c)
	}
}
