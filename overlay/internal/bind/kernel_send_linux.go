package bind

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"weft/overlay/mmsg"
)

const (
	// maxSegments is the limit of the kernel for the datagrams of one UDP_SEGMENT send.
	maxSegments = 64
	// maxGather bounds its bytes.
	maxGather = 65000
)

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
func (k *kernel) send(bufs [][]byte, r *sendPath) (int, error) {
	if k.is4 && !r.path.Addr.Addr().Is4() {
		return 0, errFamily
	}
	w := writers.Get().(*writer)
	defer w.release()
	sent, together := 0, true
	var prefix []byte
	if r.path.Kind == RelayedUDP {
		prefix = r.prefix[:]
	}
	var failed error
	for sent < len(bufs) {
		w.begin(k, r.path.Addr)
		w.gather(bufs[sent:], prefix, together && !k.noGSO.Load())
		n, err := w.flush()
		sent += n
		switch {
		case err == nil:
		case errors.Is(err, unix.EIO) && !k.noGSO.Load():
			// A device that does not compute checksums cannot split datagrams.
			k.noGSO.Store(true)
		case errors.Is(err, unix.EINVAL) && w.failed > 1:
			// Older kernels return this when the parts are too long. Sent one by one they
			// give EMSGSIZE.
			together = false
		case errors.Is(err, unix.ENOBUFS):
			// The device's queue is full: treat it as sent and lost.
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

// writer holds the arguments of one sendmmsg. A datagram is one piece, or two with a
// lane's header. A message is one datagram, or several of the same size (the last may be
// shorter) that the kernel splits.
type writer struct {
	k      *kernel
	msgs   [BatchSize]mmsg.Message
	iovs   [2 * BatchSize]mmsg.Buffer
	counts [BatchSize]int                     // datagrams in each message
	ctrl   [BatchSize][mmsg.SegmentSpace]byte // UDP_SEGMENT of each
	name   mmsg.Name
	length uint32 // of name in bytes
	now    bool   // do not block
	n      int    // how many messages
	niov   int
	fd     func(uintptr) bool

	// The message being made.
	first int // index of its first piece
	size  int // bytes in its first datagram
	total int // bytes in all

	done   int // messages sent
	failed int // datagrams in the message that failed
	errno  syscall.Errno
}

func (w *writer) begin(k *kernel, to netip.AddrPort) {
	w.k, w.n, w.niov, w.now, w.done, w.failed, w.errno = k, 0, 0, false, 0, 0, 0
	w.length = w.name.Set(to, k.is4)
	w.open()
}

// release drops the references to the buffers.
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

// gather puts as many datagrams as fit into messages.
func (w *writer) gather(bufs [][]byte, prefix []byte, gso bool) {
	for _, b := range bufs[:min(len(bufs), BatchSize)] {
		size := len(prefix) + len(b)
		if w.size != 0 && (!gso || size > w.size || w.counts[w.n] == maxSegments || w.total+size > maxGather) {
			w.end()
		}
		w.add(prefix, b, size)
		if size < w.size {
			w.end() // only the last datagram of a message may be shorter
		}
	}
	if w.size != 0 {
		w.end()
	}
}

// add adds a datagram to the message being made.
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

// end completes the message being made.
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

// flush sends the messages and returns how many datagrams were sent.
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

// write is a callback of RawConn.Write: it sends what is left; false means wait for
// space.
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
