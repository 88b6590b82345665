package relayserver

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"

	"weft/overlay/mmsg"
)

// Sending on Linux: datagrams are gathered into few messages and system calls.

// txMessage is datagrams of equal length to one address; only the last may be
// shorter.
type txMessage struct {
	to    *binding // nil for answers
	seg   int      // length of each but the last
	segs  int
	bytes int
	open  bool // the last datagram has full length, so more may follow
	iovs  int
	iov   [maxSegments]mmsg.Buffer
	name  mmsg.Name
	ctl   [96]byte
	ctlen int       // length of ctl without the segment size
	own   [128]byte // holds an answer
}

// forward queues a run of datagrams of seg bytes each, the last one possibly
// shorter.
func (u *udpLoop) forward(to *binding, run []byte, seg int) {
	if to.sock.raw == nil {
		for ; len(run) > 0; run = run[min(seg, len(run)):] {
			u.s.lanes.one(to, run[:min(seg, len(run))])
		}
		return
	}
	if to.sock != u.tx.sock {
		u.flush()
		u.tx.sock = to.sock
	}
	if !to.sock.gso.Load() {
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
		break // datagrams to one address must keep their order
	}
	for len(run) > 0 { // one turn, except with kernels that receive more at once than they send
		n := min(len(run), maxSegments*seg, max(maxGather/seg, 1)*seg)
		u.message(to, seg).add(run[:n], (n+seg-1)/seg)
		run = run[n:]
	}
}

// message starts a new outgoing message.
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
func (u *udpLoop) reply(out []byte, src *sourceInfo) {
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
	u.address(u.tx.n-1, src)
}

// address writes destination and source address of message i.
func (u *udpLoop) address(i int, src *sourceInfo) {
	m := &u.tx.msg[i]
	m.name = src.name
	u.tx.wire[i].SetName(&m.name, src.nameLen)
	m.ctlen = 0
	if src.infoLen > 0 {
		level, typ := int32(unix.SOL_IP), int32(unix.IP_PKTINFO)
		if u.tx.sock.six {
			level, typ = unix.SOL_IPV6, unix.IPV6_PKTINFO
		}
		m.ctlen = mmsg.PutControl(m.ctl[:], level, typ, src.info[:src.infoLen])
	}
}

// flush sends what is queued, without blocking.
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
			// The interface cannot compute checksums, so it cannot segment either.
			u.tx.sock.gso.Store(false)
			u.single(u.tx.sent)
			bytes += uint64(m.bytes)
			u.tx.sent++
		case errors.Is(err, unix.EAGAIN), errors.Is(err, net.ErrClosed):
			for ; u.tx.sent < u.tx.n; u.tx.sent++ {
				dropped += uint64(u.tx.msg[u.tx.sent].bytes)
			}
		default: // this one cannot be sent: too long, unreachable, forbidden
			dropped += uint64(m.bytes)
			u.tx.sent++
		}
	}
	u.tx.n = 0
	u.s.lanes.bytes.Add(bytes)
	u.s.lanes.dropped.Add(dropped)
}

// prepare writes the headers of what is queued.
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

// send is a callback of RawConn.Write. It never blocks.
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
	for _, v := range m.iov[:m.iovs] { // a copy, because each becomes the only one in turn
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
