package bind

import (
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft/overlay/mmsg"
)

// kernelReader reads a kernel socket for one goroutine. Each message that recvmmsg fills
// has `slots` buffers. All but the last have the length of the previous datagrams, so
// that each of many datagrams that the kernel has joined lands in a buffer of its own.
type kernelReader struct {
	// Constant after newReader.
	k     *kernel
	large bool
	fd    func(uintptr) bool

	msgs  []mmsg.Message
	iovs  []mmsg.Buffer
	ctrl  [][mmsg.SegmentSpace]byte
	names []mmsg.Name
	n     int // messages asked for, then received
	errno syscall.Errno

	slots int // buffers for each message
	size  int // of a datagram, if slots is not 1
	less  int // how many reads in a row needed at most half the slots
	other int // how many messages in a row were joined of smaller datagrams

	line    []byte // a message in one piece, when it must be split again
	carried []carry
}

// carry is a message that did not fit in the buffers of the read.
type carry struct {
	b    []byte // what is left of it
	size int    // of each datagram but the last
	from netip.AddrPort
}

func (k *kernel) newReader(batch int, large bool) reader {
	r := &kernelReader{k: k, large: large, slots: 1, iovs: make([]mmsg.Buffer, batch)}
	n := min(batch, readMessages)
	r.msgs, r.ctrl, r.names = make([]mmsg.Message, n), make([][mmsg.SegmentSpace]byte, n), make([]mmsg.Name, n)
	r.fd = r.receive
	return r
}

// read implements reader.
func (r *kernelReader) read(bufs [][]byte, sizes []int, from []netip.AddrPort) (int, error) {
	if len(r.carried) > 0 {
		return r.resume(bufs, sizes, from), nil
	}
	bufs = bufs[:min(len(bufs), len(r.iovs))]
	slots := min(r.slots, len(bufs))
	r.prepare(bufs, slots)
	if err := r.k.raw.Read(r.fd); err != nil {
		return 0, net.ErrClosed
	}
	if r.errno != 0 {
		// An error about an earlier send, or a lack of memory. Pause, in case it is
		// permanent.
		time.Sleep(time.Millisecond)
		return 0, nil
	}
	clear(sizes[:len(bufs)])
	most := 1
	for i := range r.n {
		m := &r.msgs[i]
		n, size, addr := m.Len(), m.Segment(), r.names[i].AddrPort()
		if m.Truncated() || n == 0 {
			continue
		}
		count := 1
		if size > 0 && size < n {
			count = (n + size - 1) / size
		} else {
			size = n
		}
		most = max(most, count)
		mine, at := bufs[i*slots:(i+1)*slots], i*slots
		if len(r.carried) > 0 || !r.place(mine, sizes[at:], n, size, count) {
			r.carry(mine, n, size, addr)
			continue
		}
		for j := range count {
			from[at+j] = addr
		}
	}
	r.adapt(most)
	return r.n * slots, nil
}

// prepare fills in the messages to receive.
func (r *kernelReader) prepare(bufs [][]byte, slots int) {
	r.n = min(len(bufs)/slots, len(r.msgs))
	r.errno = 0
	for i := range r.n {
		mine := r.iovs[i*slots : (i+1)*slots]
		for j := range mine {
			b := bufs[i*slots+j]
			if j < slots-1 {
				b = b[:min(r.size, len(b))]
			}
			mine[j].Set(b)
		}
		m := &r.msgs[i]
		m.SetName(&r.names[i], mmsg.MaxName)
		m.SetBuffers(mine)
		m.SetControl(r.ctrl[i][:])
	}
}

// receive is a callback of RawConn.Read: it fills the messages; false means wait for
// input.
func (r *kernelReader) receive(fd uintptr) bool {
	n, errno := mmsg.Receive(fd, r.msgs[:r.n])
	if errno == unix.EAGAIN {
		return false
	}
	r.n, r.errno = n, errno
	return true
}

// place moves the datagrams of a message of n bytes into one buffer each, and reports
// whether they fit.
func (r *kernelReader) place(bufs [][]byte, sizes []int, n, size, count int) bool {
	slots := len(bufs)
	switch {
	case count > slots:
		return false
	case count == 1 && (slots == 1 || n <= r.size):
		// One datagram in the first buffer.
	case count > 1 && size == r.size:
		// Each is in its buffer already.
	case count == 1:
		// One that is longer than expected.
		if n > len(bufs[0]) {
			return false
		}
		r.collect(bufs[0][r.size:], bufs[1:], n-r.size)
	default:
		if cap(r.line) < n {
			r.line = make([]byte, MaxMessage+1)
		}
		line := r.line[:n]
		r.collect(line, bufs, n)
		for i := range count {
			copy(bufs[i], line[i*size:min((i+1)*size, n)])
		}
	}
	for i := range count {
		sizes[i] = min(size, n-i*size)
	}
	return true
}

// collect copies the n bytes that are scattered over bufs into dst.
func (r *kernelReader) collect(dst []byte, bufs [][]byte, n int) {
	for i, b := range bufs {
		if n <= 0 {
			return
		}
		part := n
		if i < len(bufs)-1 {
			part = min(n, r.size)
		}
		copy(dst, b[:part])
		dst, n = dst[part:], n-part
	}
}

// carry holds a message for the next reads.
func (r *kernelReader) carry(bufs [][]byte, n, size int, from netip.AddrPort) {
	b := make([]byte, n)
	if len(bufs) == 1 {
		copy(b, bufs[0])
	} else {
		r.collect(b, bufs, n)
	}
	r.carried = append(r.carried, carry{b, size, from})
}

// resume returns datagrams of carried messages, in order.
func (r *kernelReader) resume(bufs [][]byte, sizes []int, from []netip.AddrPort) int {
	i := 0
	for ; i < len(bufs) && len(r.carried) > 0; i++ {
		c := &r.carried[0]
		part := c.b[:min(c.size, len(c.b))]
		sizes[i], from[i] = copy(bufs[i], part), c.from
		if c.b = c.b[len(part):]; len(c.b) == 0 {
			r.carried[0] = carry{}
			r.carried = r.carried[1:]
		}
	}
	if len(r.carried) == 0 {
		r.carried = nil
	}
	return i
}

// adapt chooses the slots for the next messages by the last ones: more at once, fewer
// only after several reads.
func (r *kernelReader) adapt(most int) {
	if !r.large {
		return
	}
	size := 0
	for i := range r.n {
		size = max(size, r.msgs[i].Segment())
	}
	switch {
	case size > r.size:
		r.size, r.other = size, 0
	case size == r.size:
		r.other = 0
	case size > 0 && r.other < 16:
		r.other++
	case size > 0:
		r.size, r.other = size, 0
	}
	switch {
	case most > r.slots:
		for r.slots < most {
			r.slots *= 2
		}
		r.less = 0
	case most*2 > r.slots:
		r.less = 0
	case r.less < 16:
		r.less++
	default:
		r.slots, r.less = max(r.slots/2, 1), 0
	}
}
