package relayserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"weft/overlay/mmsg"
	"weft/overlay/relay/lane"
)

// The UDP port on Linux: many datagrams per system call, in (recvmmsg, UDP GRO) and out
// (sendmmsg, UDP GSO). Datagrams are not copied: one outgoing message gathers up to
// maxSegments datagrams of one lane from the buffers in which they were received.

const (
	rxMessages  = 32
	txMessages  = 64
	maxSegments = 64                  // datagrams in one message: a limit of the kernel
	maxGather   = 65535 - 8 - 40 - 64 // bytes of one message, less all headers
)

// udpSocket is a socket that ServeUDP serves.
type udpSocket struct {
	c   UDPConn
	raw syscall.RawConn // nil: not a socket of the kernel
	six bool            // an IPv6 socket, which may carry IPv4 too
	gso atomic.Bool
}

// sourceInfo is what the kernel needs to answer a datagram from the address to which it
// was sent.
type sourceInfo struct {
	name    mmsg.Name
	nameLen uint32
	info    [unix.SizeofInet6Pktinfo]byte // or an Inet4Pktinfo in its first bytes
	infoLen int                           // 0: not known
}

func newUDPSocket(c UDPConn) (*udpSocket, error) {
	k, ok := c.(*net.UDPConn)
	if !ok {
		return &udpSocket{c: c}, nil
	}
	raw, err := k.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &udpSocket{c: c, raw: raw}
	err = raw.Control(func(f uintptr) {
		fd := int(f)
		if sa, err := unix.Getsockname(fd); err == nil {
			_, s.six = sa.(*unix.SockaddrInet6)
		}
		for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
			if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], udpBuffer) != nil { // needs CAP_NET_ADMIN
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], udpBuffer)
			}
		}
		unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
		_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
		s.gso.Store(err == nil)
		// Do not fragment, and ignore ICMP about sizes: the nodes find out themselves
		// which sizes pass.
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		if s.six {
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
		}
	})
	return s, err
}

func (s *Server) runUDP(ctx context.Context, sock *udpSocket) error {
	if sock.raw == nil {
		return (&plainLoop{newUDPCore(s, sock)}).run(ctx)
	}
	return newUDPLoop(s, sock).run(ctx)
}

// udpLoop serves one kernel socket. One goroutine uses it.
type udpLoop struct {
	udpCore

	rx struct {
		msg  [rxMessages]mmsg.Message
		iov  [rxMessages]mmsg.Buffer
		name [rxMessages]mmsg.Name
		ctl  [rxMessages][128]byte
		buf  []byte // maxUDP per message
		n    int
		err  error
	}
	tx struct {
		msg  [txMessages]txMessage
		wire [txMessages]mmsg.Message // headers of msg for the kernel
		n    int
		sock *udpSocket // sends all of them
		sent int        // how many were sent
		err  error
	}
	recvf, sendf func(fd uintptr) bool
}

func newUDPLoop(s *Server, sock *udpSocket) *udpLoop {
	u := &udpLoop{udpCore: newUDPCore(s, sock)}
	u.rx.buf = make([]byte, rxMessages*maxUDP)
	for i := range u.rx.msg {
		u.rx.iov[i].Set(u.rx.buf[i*maxUDP:][:maxUDP])
		u.rx.msg[i].SetBuffers(u.rx.iov[i:][:1])
	}
	u.tx.sock = sock
	u.recvf, u.sendf = u.recv, u.send
	return u
}

// run handles batches until the socket's deadline is set.
func (u *udpLoop) run(ctx context.Context) error {
	for failed := 0; ; {
		err := u.step()
		if err == nil {
			failed = 0
			continue
		}
		if failed++; ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || failed > maxErrors {
			return err
		}
		// An ICMP error about an earlier datagram, or a temporary lack of memory.
	}
}

// step waits for a batch and forwards it.
func (u *udpLoop) step() error {
	if err := u.receive(); err != nil {
		return err
	}
	now := u.s.now()
	for i := range u.rx.n {
		u.take(i, now)
	}
	u.flush()
	return nil
}

// receive waits for a batch.
func (u *udpLoop) receive() error {
	for i := range u.rx.msg {
		u.rx.msg[i].SetName(&u.rx.name[i], mmsg.MaxName)
		u.rx.msg[i].SetControl(u.rx.ctl[i][:])
	}
	if err := u.sock.raw.Read(u.recvf); err != nil {
		return err
	}
	return u.rx.err
}

// recv is a callback of RawConn.Read: false means wait.
func (u *udpLoop) recv(fd uintptr) bool {
	n, errno := mmsg.Receive(fd, u.rx.msg[:])
	if errno == unix.EAGAIN {
		return false
	}
	u.rx.n, u.rx.err = n, nil
	if errno != 0 {
		u.rx.err = errno
	}
	return true
}

// take forwards or answers what is in one received message.
func (u *udpLoop) take(i int, now int64) {
	m := &u.rx.msg[i]
	b := u.rx.buf[i*maxUDP:][:m.Len()]
	from := u.rx.name[i].AddrPort()
	if from.Port() == 0 || len(b) == 0 || m.Truncated() {
		return
	}
	seg := len(b)
	if n := m.Segment(); n > 0 {
		seg = n
	}
	for len(b) > 0 {
		n := min(seg, len(b))
		id, _, ok := lane.ParseData(b[:n])
		if !ok {
			src := u.source(i)
			if out := u.answer(b[:n], from, src, now); out != nil {
				u.reply(out, &src)
			}
			b = b[n:]
			continue
		}
		head := [lane.HeaderLen]byte(b)
		for len(b)-n > lane.HeaderLen && [lane.HeaderLen]byte(b[n:]) == head {
			n += min(seg, len(b)-n)
		}
		if to := u.s.laneDestination(id, from, n, now); to != nil {
			u.forward(to, b[:n], seg)
		}
		b = b[n:]
	}
}

// source returns the source information for an answer to message i.
func (u *udpLoop) source(i int) (w sourceInfo) {
	m := &u.rx.msg[i]
	w.name, w.nameLen = u.rx.name[i], m.NameLen()
	if u.sock.six {
		if b := m.Control(unix.SOL_IPV6, unix.IPV6_PKTINFO); len(b) >= unix.SizeofInet6Pktinfo {
			w.infoLen = copy(w.info[:], b) // struct in6_pktinfo: address, interface
			if !netip.AddrFrom16([16]byte(b)).IsLinkLocalUnicast() {
				clear(w.info[16:]) // the routing table decides
			}
		}
		return w
	}
	if b := m.Control(unix.SOL_IP, unix.IP_PKTINFO); len(b) >= unix.SizeofInet4Pktinfo {
		w.infoLen = unix.SizeofInet4Pktinfo // struct in_pktinfo: interface, source, the header's address
		copy(w.info[4:8], b[4:8])
	}
	return w
}
