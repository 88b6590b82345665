package tun

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
)

const (
	// readBytes ends a batch: all packets of one Read must fit between Read and Send
	// (the backlog of package dataplane).
	readBytes = 256 << 10
	// inPlace is how much of a packet is read into the caller's buffer directly.
	// wireguard-go keeps thousands of buffers of 64 KB, and each costs the memory that
	// was ever touched: a large packet that is then split must not go there.
	inPlace = 2 << 10
	// minPayload is the minimum payload of a segment, even if the limit is lower.
	minPayload = 64
	// maxInjected bounds our own packets that wait for Read.
	maxInjected = 64
)

// offload is the metadata of a packet from or to the kernel (linux/virtio_net.h).
type offload struct {
	partial bool // the checksum at start+offset covers only the pseudo header
	start   int
	offset  int
	segment int // payload bytes of a TCP segment; 0: a single packet
	v6      bool
}

// reader is the state of Read between calls. Only the reading goroutine uses it.
type reader struct {
	off   offload
	split splitter
	large [inPlace + maxWhole]byte // a packet longer than inPlace, while it is read and split
}

// alwaysFits is the length of packets that every path carries.
const alwaysFits = 576

// SetLimit splits TCP packets that are longer than limit returns, in bytes. limit is
// called on the packet path with each TCP packet longer than 576 bytes. Before
// SetLimit, and for a limit of 0, packets stay whole. It implements overlay.Net.
func (n *Net) SetLimit(limit func(pkt []byte) int) { n.limit.Store(&limit) }

// Read waits for packets of the kernel, writes one IP packet with complete checksums
// into each bufs[i][offset:] and sets sizes[i]. It returns their number, at least one
// unless WakeRead was called, or os.ErrClosed after Close. TCP packets have up to
// MaxPacket bytes (see SetLimit), others up to the MTU. Only one goroutine may call it.
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
				return count, nil // the next call gets the same error
			}
			return 0, os.ErrClosed
		}
		pkt := buf[:min(size, len(buf), inPlace)]
		if size > len(pkt) {
			if len(pkt) < inPlace {
				continue // too little room
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

// ours reports whether a packet has one of our addresses as its source.
func (n *Net) ours(pkt []byte) bool {
	a := n.addrs.Load()
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		if a.has4 && [4]byte(pkt[12:16]) == a.v4 {
			return true
		}
		if pkt[16]&0xf0 == 0xe0 || pkt[16] == 255 {
			return false // not counted: multicast goes to every interface
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

// segments puts a packet into the buffers: whole into the first buffer, which already
// contains a short one, or split into as many as fit; the reader keeps the rest. It
// returns the number of buffers filled, 0 for an unusable packet.
func (n *Net) segments(pkt []byte, bufs [][]byte, sizes []int, offset int) int {
	r := &n.reader
	if len(pkt) > alwaysFits {
		shape, ok := shapeOf(pkt)
		if !ok && r.off.segment > 0 {
			return 0
		}
		if size := n.cut(pkt, shape, ok); size > 0 {
			// The packet is read again during the split, so it must not be in a buffer
			// that is written to.
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

// cut returns the payload size for splitting the packet, 0 to leave it whole.
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
		size = min(size, segment) // the connection's own segment size, if it fits
	}
	return size
}

// WakeRead makes a waiting Read, or else the next one, return at once.
func (n *Net) WakeRead() { n.dev.wake() }

// injected are our own packets that wait for Read.
type injected struct {
	waiting atomic.Int32 // len(packets)

	mu      sync.Mutex
	packets [][]byte // guarded by mu
}

// put queues a packet and reports whether there was room.
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

// take copies the oldest packet into buf and returns its length, 0 for none.
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

// send makes Read return a packet of our own.
func (n *Net) send(pkt []byte) bool {
	if !n.inject.put(pkt) {
		return false
	}
	n.dev.wake()
	return true
}
