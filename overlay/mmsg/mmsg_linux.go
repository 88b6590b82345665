// Package mmsg sends and receives many datagrams per system call on Linux (recvmmsg(2),
// sendmmsg(2)). It wraps the kernel's structures. A caller keeps arrays of Buffers, Names
// and Messages that point to each other, calls Receive and Send from a syscall.RawConn,
// and allocates nothing. ReadBatch of golang.org/x/net allocates an address for each
// datagram.
//
// Nothing here blocks and nothing takes a lock: a Message and all that it points to
// belong to one goroutine at a time.
//
// Not for embedders: node, relay and resolver share it.
package mmsg

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Buffer is a piece of memory that is read or written (struct iovec).
type Buffer struct{ v unix.Iovec }

// Set makes it refer to b, which may be empty.
func (v *Buffer) Set(b []byte) {
	v.v.Base = unsafe.SliceData(b)
	v.v.SetLen(len(b))
}

// Bytes returns the slice given to Set.
func (v *Buffer) Bytes() []byte { return unsafe.Slice(v.v.Base, int(v.v.Len)) }

// Name is an address of a socket, of either family.
type Name struct{ sa unix.RawSockaddrInet6 }

// Set writes the address for a socket of IPv4 alone (is4), which takes IPv4 addresses
// only, or for a socket of both families. It returns the length to tell the kernel.
func (a *Name) Set(to netip.AddrPort, is4 bool) (length uint32) {
	if is4 {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&a.sa)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
		length = unix.SizeofSockaddrInet4
	} else {
		a.sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16()}
		length = unix.SizeofSockaddrInet6
	}
	binary.BigEndian.PutUint16(a.port(), to.Port())
	return length
}

// AddrPort returns the address, with IPv4 unmapped; the zero value if the kernel wrote
// none.
func (a *Name) AddrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(a.port())
	switch a.sa.Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&a.sa)).Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.sa.Addr).Unmap(), port)
	}
	return netip.AddrPort{}
}

// port returns the two bytes of the port, which have the same offset in both families, in
// network byte order.
func (a *Name) port() []byte { return (*[2]byte)(unsafe.Pointer(&a.sa.Port))[:] }

// Message is a datagram, or several of one length that the kernel joins (UDP_GRO) or
// splits (UDP_SEGMENT): struct mmsghdr.
type Message struct {
	hdr unix.Msghdr
	n   uint32 // bytes received or sent
}

// SetName sets the destination, or where to write the sender. length is the result of
// Name.Set, NameLen of a received message, or MaxName.
func (m *Message) SetName(a *Name, length uint32) {
	m.hdr.Name, m.hdr.Namelen = (*byte)(unsafe.Pointer(&a.sa)), length
}

// MaxName is the length to give SetName before Receive.
const MaxName = unix.SizeofSockaddrInet6

// NameLen returns the length of the sender's name.
func (m *Message) NameLen() uint32 { return m.hdr.Namelen }

// SetBuffers sets the buffers to send or to fill, at least one.
func (m *Message) SetBuffers(v []Buffer) {
	m.hdr.Iov = &v[0].v
	m.hdr.SetIovlen(len(v))
}

// SetControl sets the control messages to send, or where to write those received.
func (m *Message) SetControl(b []byte) {
	m.hdr.Control = unsafe.SliceData(b)
	m.hdr.SetControllen(len(b))
}

// Len returns how many bytes were received.
func (m *Message) Len() int { return int(m.n) }

// Truncated reports whether the datagram was longer than the buffers.
func (m *Message) Truncated() bool { return m.hdr.Flags&unix.MSG_TRUNC != 0 }

// Control returns the data of a received control message, or nil.
func (m *Message) Control(level, typ int32) []byte {
	return find(unsafe.Slice(m.hdr.Control, int(m.hdr.Controllen)), level, typ)
}

func find(b []byte, level, typ int32) []byte {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		if uint64(h.Len) < uint64(unix.CmsgLen(0)) || uint64(h.Len) > uint64(len(b)) {
			return nil
		}
		data := b[unix.CmsgLen(0):h.Len]
		if h.Level == level && h.Type == typ {
			return data
		}
		b = b[min(unix.CmsgSpace(len(data)), len(b)):]
	}
	return nil
}

// Segment returns the length in bytes of the datagrams that the kernel joined into this
// message, the last of which may be shorter; 0 if it is a single datagram.
func (m *Message) Segment() int {
	if b := m.Control(unix.SOL_UDP, unix.UDP_GRO); len(b) >= 4 {
		return int(int32(binary.NativeEndian.Uint32(b)))
	}
	return 0
}

// PutControl writes a control message to the start of b and returns the bytes that it
// takes. Another may follow there.
func PutControl(b []byte, level, typ int32, data []byte) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(len(data)))
	copy(b[unix.CmsgLen(0):], data)
	return unix.CmsgSpace(len(data))
}

// PutSegment writes the control message that makes the kernel split a message into
// datagrams of this many bytes, and returns the space that it takes, at most
// SegmentSpace.
func PutSegment(b []byte, bytes int) int {
	var size [2]byte
	binary.NativeEndian.PutUint16(size[:], uint16(bytes))
	return PutControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, size[:])
}

// SegmentSpace is enough for the control message of PutSegment, and for that of
// UDP_GRO.
const SegmentSpace = unix.SizeofCmsghdr + 8

// Receive fills messages and returns how many. EAGAIN means that nothing is waiting.
// Receive and Send never block, so they bypass the scheduler: it would take a call that
// moves 64 KB for one that blocks and start another thread for the other goroutines,
// which costs a tenth of a transfer's CPU time.
func Receive(fd uintptr, msgs []Message) (int, syscall.Errno) {
	return do(unix.SYS_RECVMMSG, fd, msgs)
}

// Send sends messages and returns how many: fewer than all if one after the first failed.
// EAGAIN means that there is no room. It returns at once if msgs is empty.
func Send(fd uintptr, msgs []Message) (int, syscall.Errno) {
	return do(unix.SYS_SENDMMSG, fd, msgs)
}

func do(call, fd uintptr, msgs []Message) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(msgs))), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
