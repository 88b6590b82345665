package netstack

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Splitting of large outgoing TCP packets (a kernel calls it TSO), for a tunnel whose
// path cannot carry them whole. It happens while a packet is copied out of the stack.

// SetLimit splits TCP packets that are longer than limit returns, in bytes. limit gets
// the beginning of the packet, at least its IP header. Read calls it for every TCP
// packet longer than 576 bytes. Before SetLimit, and for a limit of 0, packets stay
// whole, up to Config.MaxSegment.
func (n *Net) SetLimit(limit func(pkt []byte) int) { n.link.limit.Store(&limit) }

const (
	alwaysFits  = 576
	minPayload  = 64 // of a segment, even if the limit is lower
	maxTCPStart = 60 + 60
)

// split is a TCP packet that is being copied out in segments. It holds a
// reference to the packet.
type split struct {
	pkt  *stack.PacketBuffer
	view *buffer.View // position in the payload
	at   int          // offset in view

	head    [maxTCPStart]byte // IP and TCP header of the whole
	ip, tcp int               // their lengths
	size    int               // payload of a segment
	left    int               // payload that is left
	seq     uint32
	index   uint16
	pseudo  uint16 // checksum of the pseudo header without the length
}

// begin reports whether pkt, of the given size, has to be split, and prepares that.
func (s *split) begin(pkt *stack.PacketBuffer, size int, limit func([]byte) int) bool {
	if size <= alwaysFits || pkt.TransportProtocolNumber != header.TCPProtocolNumber {
		return false
	}
	s.view, s.at = nil, 0
	n := s.peek(pkt)
	head := s.head[:n]
	proto := protocolOfPacket(head)
	switch {
	case proto == header.IPv4ProtocolNumber && head[9] == protoTCP && binary.BigEndian.Uint16(head[6:])&0x3fff == 0:
		s.ip = int(head[0]&15) * 4
	case proto == header.IPv6ProtocolNumber && head[6] == protoTCP:
		s.ip = header.IPv6MinimumSize
	default:
		return false
	}
	if s.ip < header.IPv4MinimumSize || n < s.ip+header.TCPMinimumSize {
		return false
	}
	s.tcp = int(head[s.ip+12]>>4) * 4
	start := s.ip + s.tcp
	if s.tcp < header.TCPMinimumSize || n < start || head[s.ip+13]&uint8(header.TCPFlagSyn|header.TCPFlagRst|header.TCPFlagUrg) != 0 {
		return false
	}
	most := limit(head)
	if most <= 0 || size <= most {
		return false
	}
	s.pkt, s.size, s.left, s.index = pkt, max(most-start, minPayload), size-start, 0
	s.seq = binary.BigEndian.Uint32(head[s.ip+4:])
	s.pseudo = checksum.Checksum(head[12:20], protoTCP)
	if proto == header.IPv6ProtocolNumber {
		s.pseudo = checksum.Checksum(head[8:40], protoTCP)
	}
	s.skip(start)
	return true
}

// peek copies the beginning of a packet into s.head and leaves s.view there.
func (s *split) peek(pkt *stack.PacketBuffer) int {
	views, skip := pkt.AsViewList()
	n := 0
	for v := views.Front(); v != nil && n < len(s.head); v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		if s.view == nil {
			s.view, s.at = v, skip
		}
		n += copy(s.head[n:], b[skip:])
		skip = 0
	}
	return n
}

// skip advances by n bytes.
func (s *split) skip(n int) {
	for s.view != nil {
		have := s.view.Size() - s.at
		if n < have {
			s.at += n
			return
		}
		n -= have
		s.view, s.at = s.view.Next(), 0
	}
}

// next writes the next segment into out and returns its length, 0 if it does not fit.
// done means that it was the last; the packet is the caller's again.
func (s *split) next(out []byte) (n int, done bool) {
	payload := min(s.size, s.left)
	start := s.ip + s.tcp
	n = start + payload
	if n > len(out) {
		return 0, true
	}
	out = out[:n]
	copy(out, s.head[:start])
	for at := start; at < n && s.view != nil; {
		c := copy(out[at:], s.view.AsSlice()[s.at:])
		at += c
		s.skip(c)
	}
	s.left -= payload
	if s.ip == header.IPv6MinimumSize && out[0]>>4 == 6 {
		binary.BigEndian.PutUint16(out[4:], uint16(n-s.ip))
	} else {
		binary.BigEndian.PutUint16(out[2:], uint16(n))
		binary.BigEndian.PutUint16(out[4:], binary.BigEndian.Uint16(out[4:])+s.index)
		out[10], out[11] = 0, 0
		binary.BigEndian.PutUint16(out[10:], ^checksum.Checksum(out[:s.ip], 0))
	}
	t := out[s.ip:]
	binary.BigEndian.PutUint32(t[4:], s.seq)
	if s.left > 0 {
		t[13] &^= uint8(header.TCPFlagFin | header.TCPFlagPsh)
	}
	t[16], t[17] = 0, 0
	binary.BigEndian.PutUint16(t[16:], ^checksum.Checksum(t, checksum.Combine(s.pseudo, uint16(len(t)))))
	s.seq += uint32(payload)
	s.index++
	return n, s.left == 0 || s.view == nil
}

var splits = sync.Pool{New: func() any { return new(split) }}

// release releases the packet and s.
func (s *split) release() {
	s.pkt.DecRef()
	s.pkt, s.view = nil, nil
	splits.Put(s)
}

// leftovers are packets that found no buffer in a Read; the first may be partly read.
// There are at most batchSize for each Read in progress.
type leftovers struct {
	waiting atomic.Int32 // len(queue)

	// mu guards the following.
	mu    sync.Mutex
	queue []leftover
}

// leftover is a packet, or a split in progress.
type leftover struct {
	split *split
	pkt   *stack.PacketBuffer
	limit *func([]byte) int
}

func (q *leftovers) add(pkt *stack.PacketBuffer, limit *func([]byte) int) {
	q.put(leftover{pkt: pkt, limit: limit})
}

func (q *leftovers) addSplit(s *split) { q.put(leftover{split: s}) }

func (q *leftovers) put(l leftover) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, l)
	q.waiting.Store(int32(len(q.queue)))
}

// take fills buffers with leftovers.
func (q *leftovers) take(bufs [][]byte, sizes []int, offset int) int {
	if q.waiting.Load() == 0 {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n, gone := 0, 0
	for i := range q.queue {
		l := &q.queue[i]
		if n == len(bufs) {
			break
		}
		if l.split == nil && l.limit != nil {
			s := splits.Get().(*split)
			if s.begin(l.pkt, l.pkt.Size(), *l.limit) {
				l.split, l.pkt = s, nil
			} else {
				splits.Put(s)
			}
		}
		done := true
		if s := l.split; s != nil {
			done = false
			for n < len(bufs) && !done {
				sizes[n], done = s.next(bufs[n][offset:])
				n++
			}
			if done {
				s.release()
			}
		} else {
			if size := l.pkt.Size(); size > 0 && offset+size <= len(bufs[n]) {
				serialize(bufs[n][offset:offset+size], l.pkt)
				sizes[n] = size
				n++
			}
			l.pkt.DecRef()
		}
		if !done {
			break
		}
		gone++
	}
	m := copy(q.queue, q.queue[gone:])
	clear(q.queue[m:])
	q.queue = q.queue[:m]
	q.waiting.Store(int32(m))
	return n
}

// drop discards all leftovers.
func (q *leftovers) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.queue {
		if l.split != nil {
			l.split.release()
		} else {
			l.pkt.DecRef()
		}
	}
	q.queue = nil
	q.waiting.Store(0)
}
