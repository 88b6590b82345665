package tun

import (
	"encoding/binary"
	"errors"
	"os"
)

const (
	// runs is the number of TCP flows of one batch that are merged at once.
	runs = 8
	// maxWhole is the longest packet that the kernel accepts.
	maxWhole = 65535
)

// vector is one packet for the kernel: its metadata and its parts.
type vector struct {
	off   offload
	parts [][]byte
	state any // the device's own
}

// run is a TCP packet that grows by the segments that follow it.
type run struct {
	shape tcpShape
	head  []byte // the first segment
	size  int    // payload of a full segment
	next  uint32 // next sequence number
	total int    // current length of the whole packet
	full  bool   // no segment may follow
	parts [][]byte
}

// writer is the state of one Write. Writers are pooled, since several peers write at
// once.
type writer struct {
	n    *Net
	vec  vector
	runs [runs]run
	open int // runs[:open] are in use, oldest first
}

func newWriter(n *Net) *writer {
	w := &writer{n: n}
	w.vec.parts = make([][]byte, 0, batchSize+1)
	for i := range w.runs {
		w.runs[i].parts = make([][]byte, 0, batchSize)
	}
	return w
}

// Write gives the kernel one IP packet from a peer in each bufs[i][offset:], and may
// change the headers. Packets that the kernel does not accept are dropped and counted.
// Calls may run at the same time, but the packets of one flow must come in order from
// one goroutine at a time. It returns len(bufs), or os.ErrClosed after Close.
func (n *Net) Write(bufs [][]byte, offset int) (int, error) {
	if n.ctx.Err() != nil {
		return 0, os.ErrClosed
	}
	w := n.writers.Get().(*writer)
	for _, b := range bufs {
		pkt := b[offset:]
		if n.pings.Take(pkt) {
			continue
		}
		if g := n.gate; g != nil && !g.admits(pkt) {
			n.stats.closed.Add(1)
			n.refuse(pkt)
			continue
		}
		w.add(pkt)
	}
	for w.open > 0 {
		w.flush(0)
	}
	n.writers.Put(w)
	return len(bufs), nil
}

// add sends a packet, or appends it to a run.
func (w *writer) add(pkt []byte) {
	shape, ok := shapeOf(pkt)
	if !ok {
		w.vec.off = offload{}
		w.vec.parts = append(w.vec.parts[:0], pkt)
		w.send()
		return
	}
	for i := range w.open {
		r := &w.runs[i]
		if !r.sameFlow(pkt, shape) {
			continue
		}
		if r.take(pkt, shape) {
			return
		}
		w.flush(i) // to keep the order
		break
	}
	if w.open == runs {
		w.flush(0)
	}
	w.runs[w.open].begin(pkt, shape)
	w.open++
}

// begin starts a run with its first segment.
func (r *run) begin(pkt []byte, shape tcpShape) {
	tcp := pkt[shape.ip:]
	r.shape, r.head = shape, pkt
	r.size = len(pkt) - shape.head
	r.next = binary.BigEndian.Uint32(tcp[4:]) + uint32(r.size)
	r.total = len(pkt)
	r.full = r.size == 0 || tcp[13]&^tcpPSH != tcpACK || tcp[13]&tcpPSH != 0
	r.parts = r.parts[:0]
}

// sameFlow compares addresses and ports.
func (r *run) sameFlow(pkt []byte, shape tcpShape) bool {
	return shape.v6 == r.shape.v6 &&
		binary.NativeEndian.Uint32(pkt[shape.ip:]) == binary.NativeEndian.Uint32(r.head[r.shape.ip:]) &&
		string(shape.addresses(pkt)) == string(r.shape.addresses(r.head))
}

// take appends a segment that continues the run exactly: the kernel treats the whole as
// it would treat the parts.
func (r *run) take(pkt []byte, shape tcpShape) bool {
	size := len(pkt) - shape.head
	if r.full || shape != r.shape || size == 0 || size > r.size || r.total+size > maxWhole || len(r.parts) == cap(r.parts) {
		return false
	}
	a, b := r.head[shape.ip:shape.head], pkt[shape.ip:shape.head]
	if binary.BigEndian.Uint32(b[4:]) != r.next || b[13]&^tcpPSH != tcpACK ||
		string(a[8:12]) != string(b[8:12]) || // acknowledgement
		string(a[14:16]) != string(b[14:16]) || // window
		string(a[20:]) != string(b[20:]) || // options
		!sameService(r.head, pkt, shape.v6) {
		return false
	}
	r.parts = append(r.parts, pkt[shape.head:])
	r.total += size
	r.next += uint32(size)
	r.full = size < r.size || b[13]&tcpPSH != 0
	a[13] |= b[13] & tcpPSH
	return true
}

// sameService compares the rest of the IP headers: traffic class, hop limit, "don't
// fragment".
func sameService(a, b []byte, v6 bool) bool {
	if v6 {
		return binary.NativeEndian.Uint32(a) == binary.NativeEndian.Uint32(b) && a[7] == b[7]
	}
	return a[1] == b[1] && a[6] == b[6] && a[8] == b[8]
}

// flush sends runs[i] and closes the gap.
func (w *writer) flush(i int) {
	r := &w.runs[i]
	shape := r.shape
	segment := r.size
	if len(r.parts) == 0 {
		// A single packet: one that its sender did not segment, or a small one. The
		// kernel counts segments, and splits again what it forwards.
		segment = w.n.cfg.MTU - shape.head
	}
	w.vec.off = offload{}
	if r.total > shape.head+segment {
		if len(r.parts) > 0 {
			shape.setLength(r.head, r.total)
		}
		w.vec.off = offload{partial: true, start: shape.ip, offset: 16, segment: segment, v6: shape.v6}
		binary.NativeEndian.PutUint16(r.head[shape.ip+16:], fold(shape.pseudo(r.head, r.total)))
	}
	w.vec.parts = append(append(w.vec.parts[:0], r.head), r.parts...)
	w.send()

	// The storage of its parts moves to the end with it.
	done := w.runs[i]
	clear(done.parts)
	done.head, done.parts = nil, done.parts[:0]
	copy(w.runs[i:w.open], w.runs[i+1:w.open])
	w.open--
	w.runs[w.open] = done
}

func (w *writer) send() {
	if err := w.n.dev.write(&w.vec); err != nil {
		w.n.stats.notTaken.Add(1)
		if errors.Is(err, errGone) && w.n.ctx.Err() == nil {
			w.n.lost(err)
		}
	}
	clear(w.vec.parts)
}
