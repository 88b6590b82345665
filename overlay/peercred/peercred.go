// Package peercred identifies the process at the other end of a unix socket, and sets
// the mode of a socket's file before anything can connect to it.
//
// Not for embedders: the sockets of nodes and servers share it.
package peercred

import (
	"fmt"
	"net"
	"syscall"
)

// UID returns the user id of the process that opened the other end of a unix
// socket connection, as the kernel recorded it at connect.
func UID(c net.Conn) (uint32, error) {
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
	if err := raw.Control(func(fd uintptr) { uid, cerr = socketUID(fd) }); err != nil {
		return 0, err
	}
	return uid, cerr
}

// Private is for net.ListenConfig.Control: the socket's file gets mode 0600 if the
// system supports that. Otherwise set the mode after Listen and check the UID of
// clients that connected in between.
func Private(_, _ string, c syscall.RawConn) error {
	var cerr error
	if err := c.Control(func(fd uintptr) { cerr = chmodSocket(fd) }); err != nil {
		return err
	}
	return cerr
}
