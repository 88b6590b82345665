package bind

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft/overlay/limited"
	"weft/overlay/mmsg"
)

// socketBuffer is how many bytes the kernel may hold for a socket in each
// direction: what arrives while this process waits for a processor.
// It counts as this process's memory where a control group limits that.
const (
	socketBuffer      = 7 << 20
	socketBufferShare = 1. / 32 // at most, of the memory
)

// Listen opens a UDP socket of the system, for Config.Listen.
func Listen(network, address string) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { configure(int(fd)) })
	}}
	return lc.ListenPacket(context.Background(), network, address)
}

// configure sets what helps. Nothing of it is needed: a process without
// CAP_NET_ADMIN gets the buffers that net.core allows, an old kernel has fewer
// options, and an IPv4 socket has none of IPv6's.
func configure(fd int) {
	buffer := limited.Share(socketBuffer, socketBufferShare)
	for _, o := range []struct{ level, opt, value int }{
		{unix.SOL_SOCKET, unix.SO_RCVBUF, buffer},
		{unix.SOL_SOCKET, unix.SO_SNDBUF, buffer},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer},
		{unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer},
		// Don't fragment, and do not believe ICMP about the path's MTU, which
		// anybody can send: the limit of a way is found out by probes.
		{unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		{unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
	} {
		unix.SetsockoptInt(fd, o.level, o.opt, o.value)
	}
}

const (
	// maxSegments is the kernel's limit for one UDP_SEGMENT send.
	maxSegments = 64
	// maxGather bounds the bytes of one.
	maxGather = 65000
)

// kernel is the transport of a socket of the Linux kernel.
type kernel struct {
	// Constant after kernelTransport.
	raw  syscall.RawConn
	is4  bool // an AF_INET socket
	gro  bool // may deliver datagrams put together
	main bool

	noGSO atomic.Bool // the kernel or the device cannot split datagrams
}

func kernelTransport(c *net.UDPConn, main bool) transport {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	k := &kernel{raw: raw, main: main}
	err = raw.Control(func(fd uintptr) {
		domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		k.is4 = err == nil && domain == unix.AF_INET
		_, err = unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		k.noGSO.Store(err != nil)
		k.gro = main && unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) == nil
	})
	if err != nil {
		return nil
	}
	return k
}

var errFamily = os.NewSyscallError("sendmsg", unix.EAFNOSUPPORT)

// sendNow implements transport.
func (k *kernel) sendNow(b []byte, to netip.AddrPort) error {
	if k.is4 && !to.Addr().Is4() || !to.IsValid() {
		return errFamily
	}
	w := writers.Get().(*writer)
	defer w.release()
	w.begin(k, to)
	w.add(nil, b, len(b))
	w.end()
	w.now = true
	_, err := w.flush()
	return err
}

// send implements transport.
func (k *kernel) send(bufs [][]byte, r *route) (int, error) {
	if k.is4 && !r.way.Addr.Addr().Is4() {
		return 0, errFamily
	}
	w := writers.Get().(*writer)
	defer w.release()
	sent, together := 0, true
	var prefix []byte
	if r.way.Kind == Lane {
		prefix = r.prefix[:]
	}
	var failed error
	for sent < len(bufs) {
		w.begin(k, r.way.Addr)
		w.gather(bufs[sent:], prefix, together && !k.noGSO.Load())
		n, err := w.flush()
		sent += n
		switch {
		case err == nil:
		case errors.Is(err, unix.EIO) && !k.noGSO.Load():
			// A device that does not compute checksums cannot split.
			k.noGSO.Store(true)
		case errors.Is(err, unix.EINVAL) && w.failed > 1:
			// What older kernels say when the parts are too long: one by one
			// they say EMSGSIZE.
			together = false
		case errors.Is(err, unix.ENOBUFS):
			// The device's queue is full: as good as sent and lost.
			sent += max(w.failed, 1)
		default:
			failed = err
		}
		if failed != nil {
			break
		}
	}
	return sent, failed
}

// writer holds what one sendmmsg needs. A datagram is one piece, or two with a
// lane's header; a message is one datagram, or several of the same size (the last
// may be shorter) for the kernel to split.
type writer struct {
	k      *kernel
	msgs   [BatchSize]mmsg.Message
	iovs   [2 * BatchSize]mmsg.Buffer
	counts [BatchSize]int                     // datagrams in each message
	ctrl   [BatchSize][mmsg.SegmentSpace]byte // UDP_SEGMENT of each
	name   mmsg.Name
	length uint32 // of name
	now    bool   // do not wait
	n      int    // messages
	niov   int
	fd     func(uintptr) bool

	// The message being put together.
	first int // its first piece
	size  int // bytes in its first datagram
	total int // bytes in all

	done   int // messages sent
	failed int // datagrams in the message that failed
	errno  syscall.Errno
}

var writers = sync.Pool{New: func() any {
	w := new(writer)
	w.fd = w.write
	return w
}}

func (w *writer) begin(k *kernel, to netip.AddrPort) {
	w.k, w.n, w.niov, w.now, w.done, w.failed, w.errno = k, 0, 0, false, 0, 0, 0
	w.length = w.name.Set(to, k.is4)
	w.open()
}

// release forgets the buffers.
func (w *writer) release() {
	clear(w.iovs[:w.niov])
	w.k = nil
	writers.Put(w)
}

func (w *writer) open() {
	w.first, w.size, w.total = w.niov, 0, 0
	if w.n < len(w.counts) {
		w.counts[w.n] = 0
	}
}

// gather puts datagrams into messages, as many as there is room for.
func (w *writer) gather(bufs [][]byte, prefix []byte, gso bool) {
	for _, b := range bufs[:min(len(bufs), BatchSize)] {
		size := len(prefix) + len(b)
		if w.size != 0 && (!gso || size > w.size || w.counts[w.n] == maxSegments || w.total+size > maxGather) {
			w.end()
		}
		w.add(prefix, b, size)
		if size < w.size {
			w.end() // a shorter one can only be the last
		}
	}
	if w.size != 0 {
		w.end()
	}
}

// add adds a datagram to the message being put together.
func (w *writer) add(prefix, b []byte, size int) {
	if w.size == 0 {
		w.size = max(size, 1)
	}
	w.counts[w.n]++
	w.total += size
	if len(prefix) > 0 {
		w.iovs[w.niov].Set(prefix)
		w.niov++
	}
	w.iovs[w.niov].Set(b)
	w.niov++
}

// end ends the message being put together.
func (w *writer) end() {
	m := &w.msgs[w.n]
	m.SetName(&w.name, w.length)
	m.SetBuffers(w.iovs[w.first:w.niov])
	if w.counts[w.n] > 1 {
		c := w.ctrl[w.n][:]
		m.SetControl(c[:mmsg.PutSegment(c, w.size)])
	} else {
		m.SetControl(nil)
	}
	w.n++
	w.open()
}

// flush sends the messages and returns how many datagrams went out.
func (w *writer) flush() (int, error) {
	err := w.k.raw.Write(w.fd)
	sent := 0
	for i := range w.done {
		sent += w.counts[i]
	}
	if err != nil {
		return sent, net.ErrClosed
	}
	if w.errno != 0 {
		w.failed = w.counts[w.done]
		return sent, os.NewSyscallError("sendmmsg", w.errno)
	}
	return sent, nil
}

// write sends what is left; false waits until there is space.
func (w *writer) write(fd uintptr) bool {
	for w.done < w.n {
		n, errno := mmsg.Send(fd, w.msgs[w.done:w.n])
		switch {
		case errno == 0:
			w.done += n
		case errno != unix.EAGAIN:
			w.errno = errno
			return true
		case w.now:
			w.errno = unix.ENOBUFS
			return true
		default:
			return false
		}
	}
	return true
}

// kernelReader reads a kernel's socket for one goroutine. Each message that
// recvmmsg is to fill has `slots` buffers. All but the last take as many bytes as
// the last datagrams were long, so that of many that the kernel has put together
// each lands in a buffer of its own.
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
	less  int // reads in a row that would have done with half the slots
	other int // messages in a row that were put together of a smaller size

	line    []byte // a message in one piece, when it has to be split again
	carried []carry
}

// carry is a message that had no room in the buffers of the read.
type carry struct {
	b    []byte // what is left of it
	size int    // of each datagram but the last
	from netip.AddrPort
}

const readMessages = 64

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
		// An error about something sent, or no memory. Not so fast, should it
		// be for good.
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

// receive fills them; false waits until there is something.
func (r *kernelReader) receive(fd uintptr) bool {
	n, errno := mmsg.Receive(fd, r.msgs[:r.n])
	if errno == unix.EAGAIN {
		return false
	}
	r.n, r.errno = n, errno
	return true
}

// place sees to it that the datagrams of a message of n bytes are in one buffer
// each, and reports whether they could be.
func (r *kernelReader) place(bufs [][]byte, sizes []int, n, size, count int) bool {
	slots := len(bufs)
	switch {
	case count > slots:
		return false
	case count == 1 && (slots == 1 || n <= r.size):
		// One datagram in the first buffer.
	case count > 1 && size == r.size:
		// Each is where it belongs.
	case count == 1:
		// A longer one than foreseen.
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

// carry keeps a message for the next reads.
func (r *kernelReader) carry(bufs [][]byte, n, size int, from netip.AddrPort) {
	b := make([]byte, n)
	if len(bufs) == 1 {
		copy(b, bufs[0])
	} else {
		r.collect(b, bufs, n)
	}
	r.carried = append(r.carried, carry{b, size, from})
}

// resume returns what was carried, in its order.
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

// adapt foresees the next messages from the last: more slots at once, fewer only
// after some reads.
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
