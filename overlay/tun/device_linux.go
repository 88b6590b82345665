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
	d := &kernelDevice{file: os.NewFile(uintptr(fd), clonePath)}
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
	for {
		n, _, errno := unix.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&d.iov[0])), uintptr(len(d.iov)))
		switch errno {
		case 0:
			d.n, d.err = int(n), nil
			return true
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			d.err = unix.EAGAIN
			return !d.wait
		}
		d.err = errno
		return true
	}
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
	for _, p := range w.parts {
		if len(p) == 0 {
			continue
		}
		v := unix.Iovec{Base: &p[0]}
		v.SetLen(len(p))
		o.iov = append(o.iov, v)
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
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&o.iov[0])), uintptr(len(o.iov)))
		switch errno {
		case 0:
			o.err = nil
			return
		case unix.EINTR:
			continue
		}
		o.err = errno
		return
	}
}

func (d *kernelDevice) close() error { return d.file.Close() }
