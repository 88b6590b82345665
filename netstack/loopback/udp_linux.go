package loopback

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const takesOthers = true

// open makes a socket that is not connected, so that it receives from all ports.
// IP_RECVERR makes the kernel still report when nobody listens at the target.
func open(ctx context.Context, to netip.AddrPort, source netip.Addr) (*UDP, error) {
	var err error
	l := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1) })
		if cerr != nil {
			return cerr
		}
		return err
	}}
	c, err := l.ListenPacket(ctx, "udp4", netip.AddrPortFrom(source, 0).String())
	if err != nil {
		return nil, fmt.Errorf("open a socket for %s: %w", to, err)
	}
	return &UDP{UDPConn: c.(*net.UDPConn), to: to}, nil
}

// Receive reads a datagram from the socket with the descriptor fd, without waiting:
// syscall.EAGAIN means that there is none, ECONNREFUSED that nobody listens at the
// target. port is the source port, 0 for the target's own.
func (u *UDP) Receive(fd uintptr, b []byte) (n int, port uint16, err error) {
	if !u.to.IsValid() {
		n, err = syscall.Read(int(fd), b)
		return n, 0, err
	}
	for {
		var from unix.RawSockaddrInet4
		size := uint32(unix.SizeofSockaddrInet4)
		k, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		if errno == 0 {
			p := (*[2]byte)(unsafe.Pointer(&from.Port))
			port = uint16(p[0])<<8 | uint16(p[1])
			switch {
			case netip.AddrFrom4(from.Addr) != u.to.Addr():
				continue // not the target's address
			case port == u.to.Port():
				port = 0
			}
			return int(k), port, nil
		}
		// The kernel reports an error once here, and once in the error queue, which
		// names the datagram.
		if u.refused(int(fd)) {
			return 0, 0, syscall.ECONNREFUSED
		}
		if errno == unix.EAGAIN || errno == unix.EINTR {
			return 0, 0, errno
		}
		if errno != unix.ECONNREFUSED { // ECONNREFUSED from another port is ignored
			return 0, 0, errno
		}
	}
}

// refused drains the error queue and reports whether it has an error of the target.
func (u *UDP) refused(fd int) (yes bool) {
	var oob [128]byte
	for {
		_, k, _, to, err := unix.Recvmsg(fd, nil, oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		} else if err != nil {
			return yes
		}
		at, ok := to.(*unix.SockaddrInet4)
		if !ok || netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)) != u.to {
			continue
		}
		list, err := unix.ParseSocketControlMessage(oob[:k])
		for _, m := range list {
			if err == nil && m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR && len(m.Data) >= 4 {
				yes = yes || *(*uint32)(unsafe.Pointer(&m.Data[0])) == uint32(unix.ECONNREFUSED)
			}
		}
	}
}
