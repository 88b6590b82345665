// Package mmsg moves many datagrams per system call through a UDP socket of
// Linux (recvmmsg(2), sendmmsg(2)): the kernel's structures and what is in them.
// Whoever uses it keeps arrays of Buffers, Names and Messages that point to each
// other, calls Receive and Send from a syscall.RawConn, and makes no garbage.
// ReadBatch of golang.org/x/net makes some for each datagram's address.
//
// Nothing here blocks, and nothing is locked: a Message and all that it points to
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

// Set has it be b, which may be empty.
func (v *Buffer) Set(b []byte) {
	v.v.Base = unsafe.SliceData(b)
	v.v.SetLen(len(b))
}

// Bytes returns what it was set to.
func (v *Buffer) Bytes() []byte { return unsafe.Slice(v.v.Base, int(v.v.Len)) }

// Name is an address of a socket, of either family.
type Name struct{ sa unix.RawSockaddrInet6 }

// Set fills it in for a socket of IPv4 alone (is4), which can take no other
// address, or for one of both families. It returns its length for the kernel.
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

// AddrPort returns the address, an IPv4 one never as IPv6; the zero value if the
// kernel has filled in nothing.
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

// port is at the same place in both families, in the network's order.
func (a *Name) port() []byte { return (*[2]byte)(unsafe.Pointer(&a.sa.Port))[:] }

// Message is a datagram, or several of one length that the kernel puts together
// (UDP_GRO) or splits (UDP_SEGMENT): struct mmsghdr.
type Message struct {
	hdr unix.Msghdr
	n   uint32 // bytes received or sent
}

// SetName says where it goes, or where its sender is to be written; length is
// what Name.Set has returned, NameLen of a message received, or MaxName.
func (m *Message) SetName(a *Name, length uint32) {
	m.hdr.Name, m.hdr.Namelen = (*byte)(unsafe.Pointer(&a.sa)), length
}

// MaxName is the length of a Name to receive.
const MaxName = unix.SizeofSockaddrInet6

// NameLen is the length of the name received.
func (m *Message) NameLen() uint32 { return m.hdr.Namelen }

// SetBuffers says what is sent or filled, at least one.
func (m *Message) SetBuffers(v []Buffer) {
	m.hdr.Iov = &v[0].v
	m.hdr.SetIovlen(len(v))
}

// SetControl says which control messages go with it, or where those received are
// to be written.
func (m *Message) SetControl(b []byte) {
	m.hdr.Control = unsafe.SliceData(b)
	m.hdr.SetControllen(len(b))
}

// Len is how many bytes were received.
func (m *Message) Len() int { return int(m.n) }

// Truncated reports whether it was longer than the buffers.
func (m *Message) Truncated() bool { return m.hdr.Flags&unix.MSG_TRUNC != 0 }

// Control returns the data of a control message that came with it, or nil.
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

// Segment returns the length of the datagrams that a message received was put
// together of, the last of which may be shorter; 0 if it is one.
func (m *Message) Segment() int {
	if b := m.Control(unix.SOL_UDP, unix.UDP_GRO); len(b) >= 4 {
		return int(int32(binary.NativeEndian.Uint32(b)))
	}
	return 0
}

// PutControl writes a control message to the beginning of b and returns the space
// that it takes, after which another may follow.
func PutControl(b []byte, level, typ int32, data []byte) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(len(data)))
	copy(b[unix.CmsgLen(0):], data)
	return unix.CmsgSpace(len(data))
}

// PutSegment writes the control message that has the kernel split a message into
// datagrams of so many bytes, and returns the space that it takes, at most
// SegmentSpace.
func PutSegment(b []byte, bytes int) int {
	var size [2]byte
	binary.NativeEndian.PutUint16(size[:], uint16(bytes))
	return PutControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, size[:])
}

// SegmentSpace is enough for the control message of PutSegment, and for that of
// UDP_GRO.
const SegmentSpace = unix.SizeofCmsghdr + 8

// Receive fills messages, and returns how many. EAGAIN says that there is
// nothing. Neither it nor Send blocks, so the scheduler is not told of them: it
// would find that 64 KB take long and move other goroutines to another thread, at
// a tenth of the processor time of a transfer.
func Receive(fd uintptr, msgs []Message) (int, syscall.Errno) {
	return do(unix.SYS_RECVMMSG, fd, msgs)
}

// Send sends messages, and returns how many: not all if one after the first
// failed. EAGAIN says that there is no room. It returns at once if msgs is empty.
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
