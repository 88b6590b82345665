package tun

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	clonePath  = "/dev/net/tun"
	headerSize = 10 // of struct virtio_net_hdr

	// No TUN_F_TSO_ECN and no offloads of UDP: the kernel splits such packets itself.
	offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
)

// kernelDevice is a file descriptor of /dev/net/tun. Every packet starts with a struct
// virtio_net_hdr.
type kernelDevice struct {
	// Constant after openDevice.
	file *os.File
	conn syscall.RawConn
	get  func(fd uintptr) bool // for read, made once: a new closure would allocate

	// Used by the reading goroutine, between read and get.
	head [headerSize]byte
	iov  [3]unix.Iovec
	wait bool
	n    int
	err  error
	pace pace // since there was nothing to read
}

// pace counts what was moved without a pause, in packets; each 256 bytes of a packet are one
// more.
type pace int

func (p *pace) count(bytes int) { *p += pace(1 + bytes/256) }

// brief reports whether the next call may be brief (see transfer).
func (p pace) brief() bool { return p < 64 }

// transfer is readv or writev, which do not block: the device was opened so.
//
// A brief call bypasses the scheduler. If all was quiet before, any other call makes the
// scheduler wake the thread that watches over long calls (sysmon), which takes more time
// than the packet itself. But only that thread makes another one look for packets of the
// other direction while a goroutine is in a long call or never waits, so calls that are
// long, or follow each other without a pause, must not be brief.
func transfer(call, fd uintptr, iov []unix.Iovec, brief bool) (int, syscall.Errno) {
	for {
		var n uintptr
		var errno syscall.Errno
		if brief {
			n, _, errno = unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
		} else {
			n, _, errno = unix.Syscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
		}
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// openDevice makes an interface, or attaches to an existing one.
func openDevice(name string) (*kernelDevice, error) {
	fd, err := unix.Open(clonePath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("open "+clonePath, err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = os.NewSyscallError("TUNSETIFF", unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
	}
	if err == nil {
		err = os.NewSyscallError("TUNSETOFFLOAD", unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newDevice(fd)
}

// newDevice owns fd, which does not block.
func newDevice(fd int) (d *kernelDevice, err error) {
	d = &kernelDevice{file: os.NewFile(uintptr(fd), clonePath)}
	if d.conn, err = d.file.SyscallConn(); err != nil {
		d.file.Close()
		return nil, err
	}
	d.get = d.readv
	return d, nil
}

func (d *kernelDevice) read(h *offload, buf, rest []byte, wait bool) (int, error) {
	d.iov[0].Base = &d.head[0]
	d.iov[0].SetLen(headerSize)
	d.iov[1].Base = &buf[0]
	d.iov[1].SetLen(len(buf))
	d.iov[2].Base = &rest[0]
	d.iov[2].SetLen(len(rest))
	d.wait = wait
	err := d.conn.Read(d.get)
	d.iov[1].Base, d.iov[2].Base = nil, nil
	if err == nil {
		err = d.err
	}
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		if wait {
			d.file.SetReadDeadline(time.Time{})
			return 0, errWoken
		}
		return 0, errNothing // the next read, which waits, is woken
	case errors.Is(err, unix.EAGAIN):
		return 0, errNothing
	case errors.Is(err, unix.EBADFD):
		return 0, errGone
	default:
		return 0, err
	}
	if d.n < headerSize {
		return 0, nil
	}
	gso := d.head[1]
	*h = offload{
		partial: d.head[0]&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0,
		start:   int(binary.NativeEndian.Uint16(d.head[6:])),
		offset:  int(binary.NativeEndian.Uint16(d.head[8:])),
	}
	if gso == unix.VIRTIO_NET_HDR_GSO_TCPV4 || gso == unix.VIRTIO_NET_HDR_GSO_TCPV6 {
		h.segment = int(binary.NativeEndian.Uint16(d.head[4:]))
	}
	return d.n - headerSize, nil
}

// readv is called by the runtime, again whenever there may be a packet. It returns
// false to wait.
func (d *kernelDevice) readv(fd uintptr) bool {
	n, errno := transfer(unix.SYS_READV, fd, d.iov[:], d.pace.brief())
	switch errno {
	case 0:
		d.n, d.err = n, nil
		d.pace.count(n)
		return true
	case unix.EAGAIN:
		d.err = errno
		if d.wait {
			d.pace = 0
		}
		return !d.wait
	}
	d.err = errno
	return true
}

// wake sets a deadline in the past; the read that fails with it removes it.
func (d *kernelDevice) wake() { d.file.SetReadDeadline(time.Unix(1, 0)) }

// out is the state of one write.
type out struct {
	d    *kernelDevice
	head [headerSize]byte
	iov  []unix.Iovec
	put  func(fd uintptr)
	err  error
	size int
	pace pace // since a call that was not brief
}

func (d *kernelDevice) write(w *vector) error {
	o, _ := w.state.(*out)
	if o == nil {
		o = &out{d: d, iov: make([]unix.Iovec, 0, cap(w.parts)+1)}
		o.put = o.writev
		w.state = o
	}
	o.head = [headerSize]byte{}
	if w.off.partial {
		o.head[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
		binary.NativeEndian.PutUint16(o.head[6:], uint16(w.off.start))
		binary.NativeEndian.PutUint16(o.head[8:], uint16(w.off.offset))
	}
	if w.off.segment > 0 {
		o.head[1] = unix.VIRTIO_NET_HDR_GSO_TCPV4
		if w.off.v6 {
			o.head[1] = unix.VIRTIO_NET_HDR_GSO_TCPV6
		}
		head := w.off.start + int(w.parts[0][w.off.start+12]>>4)*4
		binary.NativeEndian.PutUint16(o.head[2:], uint16(head))
		binary.NativeEndian.PutUint16(o.head[4:], uint16(w.off.segment))
	}
	o.iov = append(o.iov[:0], unix.Iovec{Base: &o.head[0]})
	o.iov[0].SetLen(headerSize)
	o.size = 0
	for _, p := range w.parts {
		if len(p) == 0 {
			continue
		}
		v := unix.Iovec{Base: &p[0]}
		v.SetLen(len(p))
		o.iov = append(o.iov, v)
		o.size += len(p)
	}
	// Not conn.Write, which would serialize the peers' goroutines: a TUN device accepts
	// packets concurrently, and a write never blocks.
	err := d.conn.Control(o.put)
	clear(o.iov)
	runtime.KeepAlive(w)
	if err == nil {
		err = o.err
	}
	if errors.Is(err, unix.EBADFD) {
		return errGone
	}
	return err
}

func (o *out) writev(fd uintptr) {
	// Whether there was a pause is not known here, so that one call of many is not brief.
	o.pace.count(o.size)
	brief := o.pace.brief()
	if !brief {
		o.pace = 0
	}
	o.err = nil
	if _, errno := transfer(unix.SYS_WRITEV, fd, o.iov, brief); errno != 0 {
		o.err = errno
	}
}

func (d *kernelDevice) close() error { return d.file.Close() }
