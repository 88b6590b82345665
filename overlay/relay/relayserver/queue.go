package relayserver

import (
	"sync"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

// sched is a client's queue: frames in one flow per sender, taken round robin by bytes.
// It has no clock and takes no lock; the client's mutex guards it.
type sched struct {
	limit int // bytes over all flows
	bytes int
	flows []*flow // those with frames, in the order in which they are served
	next  int     // index in flows
}

type flow struct {
	from    cert.NodeID
	buf     *[]byte // pooled; whole frames, from off
	off     int
	deficit int
}

const (
	// maxFlows bounds senders with frames in one queue.
	maxFlows = 256
	// quantum is how many bytes a flow may send in its turn. For a longer frame it saves
	// up over several turns.
	quantum = 16 << 10
)

func (f *flow) len() int { return len(*f.buf) - f.off }

// put queues a run of whole frames of one sender and returns how many bytes were dropped.
// When the queue is full, a sender with more than its share loses the new frames;
// otherwise the sender with most loses its oldest.
func (s *sched) put(from cert.NodeID, run []byte) (dropped int) {
	f := s.flow(from)
	if f == nil {
		if len(s.flows) >= maxFlows {
			return len(run)
		}
		f = &flow{from: from, buf: getBuf(len(run))}
		s.flows = append(s.flows, f)
	}
	defer func() {
		if f.len() == 0 {
			s.remove(f)
		}
	}()
	if s.bytes+len(run) <= s.limit {
		f.append(run)
		s.bytes += len(run)
		return 0
	}
	for len(run) > 0 {
		n := relay.FrameLen(run)
		if !s.makeRoom(f, n) {
			dropped += n
		} else {
			f.append(run[:n])
			s.bytes += n
		}
		run = run[n:]
	}
	return dropped
}

// fits returns how many bytes of the leading whole frames of run have room.
func (s *sched) fits(run []byte) int {
	room := s.limit - s.bytes
	if len(run) <= room {
		return len(run)
	}
	return prefix(run, room)
}

// prefix returns the length of the whole frames in the first n bytes of run.
func prefix(run []byte, n int) int {
	pos := 0
	for len(run)-pos >= relay.HeadLen {
		l := relay.FrameLen(run[pos:])
		if pos+l > n {
			break
		}
		pos += l
	}
	return pos
}

// makeRoom frees n bytes for f by dropping from flows that have more than f would have.
func (s *sched) makeRoom(f *flow, n int) bool {
	for s.bytes+n > s.limit {
		longest := s.flows[0]
		for _, g := range s.flows[1:] {
			if g.len() > longest.len() {
				longest = g
			}
		}
		if longest == f || longest.len() < f.len()+n {
			return false
		}
		l := relay.FrameLen((*longest.buf)[longest.off:])
		longest.off += l
		s.bytes -= l
		if longest.len() == 0 {
			s.remove(longest)
		}
	}
	return true
}

func (s *sched) flow(from cert.NodeID) *flow {
	for _, f := range s.flows {
		if f.from == from {
			return f
		}
	}
	return nil
}

func (s *sched) remove(f *flow) {
	for i, g := range s.flows {
		if g != f {
			continue
		}
		s.flows = append(s.flows[:i], s.flows[i+1:]...)
		if s.next > i {
			s.next--
		}
		s.bytes -= f.len()
		putBuf(f.buf)
		if len(s.flows) == 0 {
			s.flows, s.next = nil, 0
		}
		return
	}
}

// take moves as many whole frames as fit to the end of dst and returns it. dst must have
// room for the longest frame, so that at least one is taken when there are any.
func (s *sched) take(dst []byte) []byte {
	for len(s.flows) > 0 {
		if s.next >= len(s.flows) {
			s.next = 0
		}
		f := s.flows[s.next]
		room := cap(dst) - len(dst)
		if len(s.flows) > 1 {
			f.deficit += quantum
			room = min(room, f.deficit)
		}
		n := f.len()
		if n > room {
			n = prefix((*f.buf)[f.off:], room)
		}
		dst = append(dst, (*f.buf)[f.off:f.off+n]...)
		f.off += n
		s.bytes -= n
		if f.len() == 0 {
			s.remove(f) // the next flow moves to this index
			continue
		}
		full := cap(dst)-len(dst) < relay.FrameLen((*f.buf)[f.off:])
		if len(s.flows) > 1 {
			f.deficit -= n
			if full { // the flow's turn continues with the next take
				f.deficit -= quantum
			}
		}
		if full {
			return dst
		}
		s.next++
	}
	return dst
}

func (s *sched) clear() {
	for _, f := range s.flows {
		putBuf(f.buf)
	}
	s.flows, s.next, s.bytes = nil, 0, 0
}

// append adds frames, and moves to a larger buffer if necessary.
func (f *flow) append(run []byte) {
	b := *f.buf
	if len(b)+len(run) > cap(b) {
		if f.len()+len(run) <= cap(b) {
			n := copy(b, b[f.off:])
			*f.buf, f.off = b[:n], 0
		} else {
			big := getBuf(f.len() + len(run))
			*big = append(*big, b[f.off:]...)
			putBuf(f.buf)
			f.buf, f.off = big, 0
		}
	}
	*f.buf = append(*f.buf, run...)
}

// Buffers have a few sizes, so that many small queues stay small.
var bufSizes = [...]int{2 << 10, 16 << 10, 80 << 10, 320 << 10}

var bufPools [len(bufSizes)]sync.Pool

func getBuf(n int) *[]byte {
	for i, size := range bufSizes {
		if n <= size {
			if b, ok := bufPools[i].Get().(*[]byte); ok {
				return b
			}
			b := make([]byte, 0, size)
			return &b
		}
	}
	b := make([]byte, 0, n)
	return &b
}

func putBuf(b *[]byte) {
	for i, size := range bufSizes {
		if cap(*b) == size {
			*b = (*b)[:0]
			bufPools[i].Put(b)
			return
		}
	}
}
