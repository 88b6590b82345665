package dns

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many datagrams are read and answered by one system call.
const batch = 16

// receiveBuffer is what the kernel may hold of a burst of questions, in bytes;
// as much of it as the system allows.
const receiveBuffer = 1 << 20

func listenUDP(addr string) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			}
		})
	}}
	return lc.ListenPacket(context.Background(), "udp", addr)
}

// mmsghdr is the kernel's struct of the same name.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// batches are the buffers of one socket. Those that do not change point to
// each other once and for all.
type batches struct {
	in       [batch][maxQuery]byte
	out      [batch][maxUDP]byte
	from     [batch]unix.RawSockaddrInet6 // large enough for IPv4 too
	inIov    [batch]unix.Iovec
	outIov   [batch]unix.Iovec
	inHdr    [batch]mmsghdr
	outHdr   [batch]mmsghdr
	n        int // of the last system call
	errno    syscall.Errno
	at, todo int // of outHdr, while it is sent
}

// serveBatches is serveUDP with as few system calls as there can be; false
// when that is not possible here.
func (s *Server) serveBatches(c *net.UDPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	b := new(batches)
	for i := range batch {
		b.inIov[i].Base = &b.in[i][0]
		b.inIov[i].SetLen(maxQuery)
		b.inHdr[i].hdr.Iov, b.outHdr[i].hdr.Iov = &b.inIov[i], &b.outIov[i]
		b.inHdr[i].hdr.SetIovlen(1)
		b.outHdr[i].hdr.SetIovlen(1)
		b.inHdr[i].hdr.Name = (*byte)(unsafe.Pointer(&b.from[i]))
	}
	read := func(fd uintptr) bool {
		for i := range batch {
			b.inHdr[i].hdr.Namelen = unix.SizeofSockaddrInet6
			b.inHdr[i].hdr.Flags = 0
		}
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.inHdr[0])), batch, unix.MSG_DONTWAIT, 0, 0)
		b.n, b.errno = int(n), errno
		return errno != unix.EAGAIN && errno != unix.EINTR
	}
	write := func(fd uintptr) bool {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.outHdr[b.at])), uintptr(b.todo-b.at), unix.MSG_DONTWAIT, 0, 0)
		b.n, b.errno = int(n), errno
		return errno != unix.EAGAIN && errno != unix.EINTR
	}
	for {
		if err := raw.Read(read); err != nil {
			s.ended(c, err)
			return true
		}
		if b.errno == unix.ENOSYS {
			return false
		}
		if b.errno != 0 {
			continue // what became of an answer sent earlier
		}
		got, st, now := b.n, s.current(), time.Now()
		b.at, b.todo = 0, 0
		for i := range got {
			h := &b.inHdr[i]
			if h.hdr.Flags&unix.MSG_TRUNC != 0 {
				continue
			}
			from := b.source(i)
			in := incoming{st: st, from: from.Addr(), now: now}
			out, rest := s.answer(&in, b.in[i][:h.len], b.out[b.todo][:0])
			switch {
			case out != nil:
				b.add(out, i)
			case rest != nil:
				s.startRest(rest, func(out []byte) { s.sent(c.WriteToUDPAddrPort(out, from)) })
			}
		}
		for b.at < b.todo {
			if err := raw.Write(write); err != nil {
				s.ended(c, err)
				return true
			}
			if b.errno != 0 {
				s.sent(0, b.errno)
				b.n = 1 // this one cannot be sent; the others can
			}
			b.at += b.n
		}
	}
}

// add has out sent to where datagram i came from.
func (b *batches) add(out []byte, i int) {
	b.outIov[b.todo].Base = &out[0]
	b.outIov[b.todo].SetLen(len(out))
	h := &b.outHdr[b.todo].hdr
	h.Name, h.Namelen = b.inHdr[i].hdr.Name, b.inHdr[i].hdr.Namelen
	b.todo++
}

// source is where datagram i came from.
func (b *batches) source(i int) netip.AddrPort {
	sa := &b.from[i]
	if sa.Family == unix.AF_INET {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(&sa.Port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port(&sa.Port))
}

// port reads a port in network order.
func port(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }
