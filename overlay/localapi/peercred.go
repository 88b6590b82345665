package localapi

import (
	"fmt"
	"net"
	"syscall"
)

// peerUID returns the user id of the process that opened the other end of a
// unix socket connection, as the kernel recorded it at connect.
func peerUID(c net.Conn) (uint32, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("no credentials on a %T", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var uid uint32
	var cerr error
	if err := raw.Control(func(fd uintptr) { uid, cerr = socketUID(int(fd)) }); err != nil {
		return 0, err
	}
	return uid, cerr
}
