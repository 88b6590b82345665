package dns

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft/overlay/mmsg"
)

// batch is the number of datagrams read or sent by one system call.
const batch = 16

// receiveBuffer is how much of a burst the kernel should hold, in bytes; it grants as
// much as the system allows.
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

// batches are the buffers of one socket. The constant pointers between them are set up
// once.
type batches struct {
	in       [batch][maxQuery]byte
	out      [batch][maxUDP]byte
	from     [batch]mmsg.Name
	inBuf    [batch]mmsg.Buffer
	outBuf   [batch]mmsg.Buffer
	inMsg    [batch]mmsg.Message
	outMsg   [batch]mmsg.Message
	n        int // datagrams of the last system call
	errno    syscall.Errno
	at, todo int // of outMsg, while it is sent
}

// serveBatches is serveUDP with as few system calls as possible; false if that does not
// work here.
func (s *Server) serveBatches(c *net.UDPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	b := new(batches)
	for i := range batch {
		b.inBuf[i].Set(b.in[i][:])
		b.inMsg[i].SetBuffers(b.inBuf[i:][:1])
		b.outMsg[i].SetBuffers(b.outBuf[i:][:1])
	}
	read := func(fd uintptr) bool {
		for i := range batch {
			b.inMsg[i].SetName(&b.from[i], mmsg.MaxName)
		}
		b.n, b.errno = mmsg.Receive(fd, b.inMsg[:])
		return b.errno != unix.EAGAIN
	}
	write := func(fd uintptr) bool {
		b.n, b.errno = mmsg.Send(fd, b.outMsg[b.at:b.todo])
		return b.errno != unix.EAGAIN
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
			continue // the error of an answer sent earlier
		}
		got, st, now := b.n, s.current(), time.Now()
		b.at, b.todo = 0, 0
		for i := range got {
			m := &b.inMsg[i]
			if m.Truncated() {
				continue
			}
			from := b.from[i].AddrPort()
			in := incoming{st: st, from: from.Addr(), now: now}
			out, rest := s.answer(&in, b.in[i][:m.Len()], b.out[b.todo][:0])
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
				b.n = 1 // skip this one; the others can be sent
			}
			b.at += b.n
		}
	}
}

// add queues out as the answer to datagram i.
func (b *batches) add(out []byte, i int) {
	b.outBuf[b.todo].Set(out)
	b.outMsg[b.todo].SetName(&b.from[i], b.inMsg[i].NameLen())
	b.todo++
}
