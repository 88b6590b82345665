package tun

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
)

const (
	// readBytes ends a batch: what is read at once has to fit between Read
	// and Send (the backlog of package dataplane).
	readBytes = 256 << 10
	// inPlace is how much of a packet is read into the caller's buffer at once.
	// wireguard-go keeps thousands of buffers of 64 KB, which cost what was
	// ever touched of them: a large packet that is then cut must not go there.
	inPlace = 2 << 10
	// minPayload is that of a segment, whatever the limit.
	minPayload = 64
	// maxInjected bounds the packets of our own that wait for Read.
	maxInjected = 64
)

// offload is what the kernel says about a packet, or we to it
// (linux/virtio_net.h).
type offload struct {
	partial bool // the checksum at start+offset is the pseudo header's only
	start   int
	offset  int
	segment int // payload bytes of a TCP segment; 0: one packet
	v6      bool
}

// reader is what Read keeps between calls. It belongs to the reading goroutine.
type reader struct {
	off   offload
	split splitter
	large [inPlace + maxWhole]byte // a packet longer than inPlace, while it is read and cut
}

// alwaysFits is the length of packets that every way carries.
const alwaysFits = 576

// SetLimit has TCP packets cut that are longer, in bytes, than limit says when
// asked with the packet. limit is called on the packet path, for TCP packets
// longer than 576 bytes. Before SetLimit, and for a limit of 0, packets stay
// whole. It implements overlay.Net.
func (n *Net) SetLimit(limit func(pkt []byte) int) { n.limit.Store(&limit) }

// Read waits for packets of the kernel, fills bufs[i][offset:] with one IP
// packet each, checksums complete, and sets sizes[i]. It returns how many, at
// least one unless WakeRead was called, or os.ErrClosed after Close. TCP packets
// have up to MaxPacket bytes (see SetLimit), others up to the MTU. One goroutine
// may call it.
func (n *Net) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	r := &n.reader
	count, bytes := 0, 0
	for r.split.more() && count < len(bufs) {
		sizes[count] = r.split.next(bufs[count][offset:])
		count++
	}
	for count < len(bufs) {
		size := n.inject.take(bufs[count][offset:])
		if size == 0 {
			break
		}
		sizes[count] = size
		count++
	}
	for count < len(bufs) && bytes < readBytes && !r.split.more() {
		buf := bufs[count][offset:]
		size, err := n.dev.read(&r.off, buf[:min(len(buf), inPlace)], r.large[inPlace:], count == 0)
		switch {
		case err == nil:
		case errors.Is(err, errWoken), errors.Is(err, errNothing):
			return count, nil
		default:
			if n.ctx.Err() == nil && errors.Is(err, errGone) {
				n.lost(err)
			}
			if count > 0 {
				return count, nil // the next call finds it again
			}
			return 0, os.ErrClosed
		}
		pkt := buf[:min(size, len(buf), inPlace)]
		if size > len(pkt) {
			if len(pkt) < inPlace {
				continue // no room
			}
			copy(r.large[:], pkt)
			pkt = r.large[:size]
		}
		if !n.ours(pkt) {
			continue
		}
		if g := n.gate; g != nil {
			g.noteOut(pkt)
		}
		bytes += size
		if k := n.segments(pkt, bufs[count:], sizes[count:], offset); k > 0 {
			count += k
		}
	}
	return count, nil
}

// ours reports whether a packet is from one of our addresses.
func (n *Net) ours(pkt []byte) bool {
	a := n.addrs.Load()
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		if a.has4 && [4]byte(pkt[12:16]) == a.v4 {
			return true
		}
		if pkt[16]&0xf0 == 0xe0 || pkt[16] == 255 {
			return false // multicast goes to every interface: nobody's fault
		}
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		if a.has6 && [16]byte(pkt[8:24]) == a.v6 {
			return true
		}
		if pkt[24] == 0xff {
			return false
		}
	}
	n.stats.foreign.Add(1)
	return false
}

// segments puts a packet that was read into the buffers: whole into the first,
// where a short one is already, or cut into as many as there are; the rest is
// left in the reader. It returns the number of buffers filled, 0 for a packet
// that is not usable.
func (n *Net) segments(pkt []byte, bufs [][]byte, sizes []int, offset int) int {
	r := &n.reader
	if len(pkt) > alwaysFits {
		shape, ok := shapeOf(pkt)
		if !ok && r.off.segment > 0 {
			return 0
		}
		if size := n.cut(pkt, shape, ok); size > 0 {
			// What is cut is read again while it is: not from a buffer.
			if len(pkt) <= inPlace {
				pkt = r.large[:copy(r.large[:], pkt)]
			}
			count := 0
			for r.split.begin(pkt, shape, size); r.split.more() && count < len(bufs); count++ {
				sizes[count] = r.split.next(bufs[count][offset:])
			}
			return count
		}
	}
	if len(pkt) > inPlace {
		buf := bufs[0][offset:]
		if len(pkt) > len(buf) {
			return 0
		}
		pkt = buf[:copy(buf, pkt)]
	}
	if r.off.partial && !complete(pkt, r.off.start, r.off.offset) {
		return 0
	}
	sizes[0] = len(pkt)
	return 1
}

// cut returns the payload that segments of the packet may have, 0 for all of it.
func (n *Net) cut(pkt []byte, shape tcpShape, isTCP bool) int {
	if !isTCP || pkt[shape.ip+13]&(tcpSYN|tcpRST|tcpURG) != 0 {
		return 0
	}
	most := MaxPacket
	if limit := n.limit.Load(); limit != nil {
		if l := (*limit)(pkt); l > 0 {
			most = min(most, l)
		}
	}
	if len(pkt) <= most {
		return 0
	}
	size := max(most-shape.head, minPayload)
	if segment := n.reader.off.segment; segment > 0 && most <= n.cfg.MTU {
		size = min(size, segment) // the connection's own segments, where they fit
	}
	return size
}

// WakeRead makes a Read that waits, or else the next one, return at once.
func (n *Net) WakeRead() { n.dev.wake() }

// injected are packets of our own on their way to Read.
type injected struct {
	waiting atomic.Int32 // len(packets)

	mu      sync.Mutex
	packets [][]byte // guarded by mu
}

// put reports whether there was room.
func (q *injected) put(pkt []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.packets) >= maxInjected {
		return false
	}
	q.packets = append(q.packets, pkt)
	q.waiting.Store(int32(len(q.packets)))
	return true
}

// take copies the oldest into buf and returns its length, 0 for none.
func (q *injected) take(buf []byte) int {
	if q.waiting.Load() == 0 {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.packets) == 0 {
		return 0
	}
	k := copy(buf, q.packets[0])
	q.packets = q.packets[1:]
	if len(q.packets) == 0 {
		q.packets = nil
	}
	q.waiting.Store(int32(len(q.packets)))
	return k
}

// send has Read return a packet of our own.
func (n *Net) send(pkt []byte) bool {
	if !n.inject.put(pkt) {
		return false
	}
	n.dev.wake()
	return true
}
