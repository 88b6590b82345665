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

// The UDP port on Linux: many datagrams per system call, in (recvmmsg, UDP
// GRO) and out (sendmmsg, UDP GSO). What goes out lies where it came in: one
// message out gathers up to maxSegments datagrams of one lane from wherever
// they were received.

const (
	rxMessages  = 32
	txMessages  = 64
	maxSegments = 64                  // of one message, by the kernel
	maxGather   = 65535 - 8 - 40 - 64 // bytes of one message, with all heads
)

// udpSocket is a socket that is served.
type udpSocket struct {
	c   UDPConn
	raw syscall.RawConn // nil: not one of the kernel
	six bool            // an IPv6 socket, which may carry IPv4 too
	gso atomic.Bool
}

// udpWay is what the kernel needs to send from the address that was sent to,
// in the way of one datagram that came.
type udpWay struct {
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
		// Never fragmented, and no ICMP can make datagrams smaller: the nodes
		// look for themselves what their way carries.
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

// udpLoop serves one socket of the kernel. One goroutine uses it.
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
		wire [txMessages]mmsg.Message // of msg, for the kernel
		n    int
		sock *udpSocket // where they all go out
		sent int        // of them
		err  error
	}
	recvf, sendf func(fd uintptr) bool
}

// txMessage is datagrams of equal length to one address; only the last may be
// shorter.
type txMessage struct {
	to    *binding // nil for answers
	seg   int      // length of each but the last
	segs  int
	bytes int
	open  bool // the last is not shorter
	iovs  int
	iov   [maxSegments]mmsg.Buffer
	name  mmsg.Name
	ctl   [96]byte
	ctlen int       // of ctl, without the length of the segments
	own   [128]byte // an answer
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

// run takes batches until the socket's deadline is set.
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
		// An ICMP error about an earlier datagram, or no memory just now.
	}
}

// step waits for a batch and sends it on.
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

// recv is for RawConn.Read: false waits.
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
			way := u.way(i)
			if out := u.answer(b[:n], from, way, now); out != nil {
				u.reply(out, &way)
			}
			b = b[n:]
			continue
		}
		head := [lane.HeaderLen]byte(b)
		for len(b)-n > lane.HeaderLen && [lane.HeaderLen]byte(b[n:]) == head {
			n += min(seg, len(b)-n)
		}
		if to := u.s.route(id, from, n, now); to != nil {
			u.forward(to, b[:n], seg)
		}
		b = b[n:]
	}
}

// forward queues a run of datagrams of seg bytes each, the last one possibly
// shorter.
func (u *udpLoop) forward(to *binding, run []byte, seg int) {
	if to.via.raw == nil {
		for ; len(run) > 0; run = run[min(seg, len(run)):] {
			u.s.lanes.one(to, run[:min(seg, len(run))])
		}
		return
	}
	if to.via != u.tx.sock {
		u.flush()
		u.tx.sock = to.via
	}
	if !to.via.gso.Load() {
		for len(run) > 0 {
			n := min(seg, len(run))
			u.message(to, n).add(run[:n], 1)
			run = run[n:]
		}
		return
	}
	seg = min(seg, len(run))
	segs := (len(run) + seg - 1) / seg
	for i := u.tx.n - 1; i >= 0; i-- {
		m := &u.tx.msg[i]
		if m.to != to {
			continue
		}
		if m.open && (seg == m.seg || seg < m.seg && segs == 1) && m.segs+segs <= maxSegments && m.bytes+len(run) <= maxGather && m.iovs < len(m.iov) {
			m.add(run, segs)
			return
		}
		break // what goes to one address keeps its order
	}
	for len(run) > 0 { // in one, but for kernels that receive more than they send
		n := min(len(run), maxSegments*seg, max(maxGather/seg, 1)*seg)
		u.message(to, seg).add(run[:n], (n+seg-1)/seg)
		run = run[n:]
	}
}

// message begins another message.
func (u *udpLoop) message(to *binding, seg int) *txMessage {
	if u.tx.n == txMessages {
		u.flush()
	}
	m := &u.tx.msg[u.tx.n]
	u.tx.n++
	m.to, m.seg, m.segs, m.bytes, m.iovs, m.open = to, seg, 0, 0, 0, true
	return m
}

func (m *txMessage) add(run []byte, segs int) {
	m.iov[m.iovs].Set(run)
	m.iovs++
	m.segs += segs
	m.bytes += len(run)
	m.open = len(run) == segs*m.seg
}

// reply queues an answer, which is copied.
func (u *udpLoop) reply(out []byte, way *udpWay) {
	if len(out) > len(txMessage{}.own) {
		return
	}
	if u.tx.sock != u.sock {
		u.flush()
		u.tx.sock = u.sock
	}
	m := u.message(nil, len(out))
	copy(m.own[:], out)
	m.add(m.own[:len(out)], 1)
	u.address(u.tx.n-1, way)
}

// address writes where message i goes, and from which address.
func (u *udpLoop) address(i int, way *udpWay) {
	m := &u.tx.msg[i]
	m.name = way.name
	u.tx.wire[i].SetName(&m.name, way.nameLen)
	m.ctlen = 0
	if way.infoLen > 0 {
		level, typ := int32(unix.SOL_IP), int32(unix.IP_PKTINFO)
		if u.tx.sock.six {
			level, typ = unix.SOL_IPV6, unix.IPV6_PKTINFO
		}
		m.ctlen = mmsg.PutControl(m.ctl[:], level, typ, way.info[:way.infoLen])
	}
}

// flush sends what is queued. It waits for nothing.
func (u *udpLoop) flush() {
	if u.tx.n == 0 {
		return
	}
	u.prepare()
	var bytes, dropped uint64
	for u.tx.sent = 0; u.tx.sent < u.tx.n; {
		before := u.tx.sent
		err := u.tx.sock.raw.Write(u.sendf)
		for i := before; i < u.tx.sent; i++ {
			if m := &u.tx.msg[i]; m.to != nil {
				bytes += uint64(m.bytes)
			}
		}
		if err == nil {
			err = u.tx.err
		}
		if err == nil {
			continue
		}
		m := &u.tx.msg[u.tx.sent]
		switch {
		case errors.Is(err, unix.EIO) && m.segs > 1:
			// The interface cannot make checksums, so it cannot cut either.
			u.tx.sock.gso.Store(false)
			u.single(u.tx.sent)
			bytes += uint64(m.bytes)
			u.tx.sent++
		case errors.Is(err, unix.EAGAIN), errors.Is(err, net.ErrClosed):
			for ; u.tx.sent < u.tx.n; u.tx.sent++ {
				dropped += uint64(u.tx.msg[u.tx.sent].bytes)
			}
		default: // no way to this one: too long, unreachable, forbidden
			dropped += uint64(m.bytes)
			u.tx.sent++
		}
	}
	u.tx.n = 0
	u.s.lanes.bytes.Add(bytes)
	u.s.lanes.dropped.Add(dropped)
}

// prepare writes the heads of what is queued.
func (u *udpLoop) prepare() {
	for i := range u.tx.n {
		m, wire := &u.tx.msg[i], &u.tx.wire[i]
		if m.to != nil {
			u.address(i, &m.to.wire)
		}
		at := m.ctlen
		if m.segs > 1 {
			at += mmsg.PutSegment(m.ctl[at:], m.seg)
		}
		wire.SetControl(m.ctl[:at])
		wire.SetBuffers(m.iov[:m.iovs])
	}
}

// send is for RawConn.Write. It never waits.
func (u *udpLoop) send(fd uintptr) bool {
	n, errno := mmsg.Send(fd, u.tx.wire[u.tx.sent:u.tx.n])
	u.tx.sent += n
	u.tx.err = nil
	if errno != 0 {
		u.tx.err = errno
	}
	return true
}

// single sends the datagrams of message i one by one.
func (u *udpLoop) single(i int) {
	m, wire := &u.tx.msg[i], &u.tx.wire[i]
	n, sent := u.tx.n, u.tx.sent
	defer func() { u.tx.n, u.tx.sent = n, sent }()
	wire.SetControl(m.ctl[:m.ctlen])
	for _, v := range m.iov[:m.iovs] { // a copy, since one becomes the first
		for b := v.Bytes(); len(b) > 0; {
			k := min(m.seg, len(b))
			m.iov[0].Set(b[:k])
			wire.SetBuffers(m.iov[:1])
			u.tx.n, u.tx.sent = i+1, i
			u.tx.sock.raw.Write(u.sendf)
			b = b[k:]
		}
	}
}

// way returns the way back of message i.
func (u *udpLoop) way(i int) (w udpWay) {
	m := &u.rx.msg[i]
	w.name, w.nameLen = u.rx.name[i], m.NameLen()
	if u.sock.six {
		if b := m.Control(unix.SOL_IPV6, unix.IPV6_PKTINFO); len(b) >= unix.SizeofInet6Pktinfo {
			w.infoLen = copy(w.info[:], b) // struct in6_pktinfo: address, interface
			if !netip.AddrFrom16([16]byte(b)).IsLinkLocalUnicast() {
				clear(w.info[16:]) // routes decide
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
