package bind

import (
	"net"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/cert"
	"weft/overlay/internal/mono"
)

const (
	chunkSize     = 64 << 10
	chunkMessages = 512

	minMessage = 32 // a keepalive, WireGuard's shortest message
)

// chunk carries messages from a source to the receive goroutine.
type chunk struct {
	buf  []byte // messages, without gaps
	msgs []message
	next int // index of the first message not yet received
	udp  bool

	sealed bool // its messages are for Takers
}

type message struct {
	from     *Endpoint
	off, len int
}

func (c *chunk) reset() {
	clear(c.msgs)
	c.buf, c.msgs, c.next, c.udp, c.sealed = c.buf[:0], c.msgs[:0], 0, false, false
}

// Source takes the messages of one relay connection. Its methods belong to the
// goroutine that reads the connection.
type Source struct {
	bind *Bind
	cur  *chunk // the chunk being filled; nil if none
	udp  bool   // its messages come from a socket
	run  [][]byte

	// The endpoint of the last message, valid while the table has not changed.
	last  *Endpoint
	table *map[cert.NodeID]*Endpoint
}

// NewSource makes a Source for a relay connection. It needs no closing.
func (b *Bind) NewSource() *Source { return &Source{bind: b} }

// Deliver takes one WireGuard message from a node. It copies msg, whose content and
// length need not be valid.
func (s *Source) Deliver(from cert.NodeID, msg []byte) {
	table := s.bind.endpoints.Load()
	if s.last == nil || s.table != table || s.last.id != from {
		s.table, s.last = table, (*table)[from]
		if s.last == nil {
			s.bind.unknownSender(from, msg)
			return
		}
	}
	if len(msg) < minMessage || len(msg) > MaxMessage {
		return
	}
	s.put(s.last, msg)
}

// put takes a message of length minMessage to MaxMessage.
func (s *Source) put(from *Endpoint, msg []byte) {
	if !from.admit(msg) {
		s.bind.dropped.Add(1)
		return
	}
	sealed := isSealed(msg)
	if s.cur != nil && (len(s.cur.buf)+len(msg) > cap(s.cur.buf) || len(s.cur.msgs) == chunkMessages || s.cur.sealed != sealed) {
		s.Flush()
	}
	if s.cur == nil {
		s.cur = s.bind.pool.Get().(*chunk)
		s.cur.udp, s.cur.sealed = s.udp, sealed
	}
	c := s.cur
	c.msgs = append(c.msgs, message{from, len(c.buf), len(msg)})
	c.buf = append(c.buf, msg...)
}

// Flush hands over the delivered messages. Those for Takers are taken before it returns. The reader calls it whenever no more input has
// arrived. When the queue is full, it waits up to 50 ms for WireGuard. Then the reader
// does not read, TCP slows the relay down, and nothing is lost. If WireGuard takes
// nothing in that time, messages are dropped until it does.
func (s *Source) Flush() {
	c := s.cur
	if c == nil {
		return
	}
	s.cur = nil
	if c.sealed {
		s.take(c)
		return
	}
	select {
	case s.bind.ready <- c:
	default:
		s.bind.push(c)
	}
}

// take passes the messages of a chunk to their Takers.
func (s *Source) take(c *chunk) {
	now := mono.Now()
	for i, m := range c.msgs {
		s.run = append(s.run, c.buf[m.off:m.off+m.len:m.off+m.len])
		if i+1 < len(c.msgs) && c.msgs[i+1].from == m.from {
			continue
		}
		if !c.udp {
			m.from.relayed.Store(now)
		}
		m.from.take(s.run)
		clear(s.run)
		s.run = s.run[:0]
	}
	s.bind.recycle(c)
}

func (b *Bind) push(c *chunk) {
	if !b.lagging.Load() {
		timer := time.NewTimer(backpressure)
		defer timer.Stop()
		select {
		case b.ready <- c:
			return
		case <-timer.C:
			b.lagging.Store(true)
		}
	}
	b.dropped.Add(uint64(len(c.msgs)))
	for _, m := range c.msgs {
		if msg := c.buf[m.off : m.off+m.len]; isData(msg) {
			m.from.inFlight.Add(-m.from.costOf(msg))
		}
	}
	b.recycle(c)
}

// Deliver takes one message and hands it over at once. It is for messages that
// Config.UnknownSender has held; a relay connection uses a Source.
func (b *Bind) Deliver(from cert.NodeID, msg []byte) {
	s := Source{bind: b}
	s.Deliver(from, msg)
	s.Flush()
}

func (b *Bind) recycle(c *chunk) {
	c.reset()
	b.pool.Put(c)
}

// relayBatch bounds the bytes of a batch from relays. With large messages a longer batch
// gains nothing, but makes more buffers of wireguard-go resident.
const relayBatch = 8 * (60 << 10)

// receiver is the state of the receive function of one Open. It belongs to
// wireguard-go's receive goroutine.
type receiver struct {
	bind *Bind
	done <-chan struct{}
	cur  *chunk // partly received
}

// receiveRelay is a conn.ReceiveFunc: it waits for messages and copies as many as have
// arrived.
func (r *receiver) receiveRelay(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	if r.cur == nil {
		select {
		case <-r.done:
			return 0, net.ErrClosed
		default:
		}
		select {
		case r.cur = <-r.bind.ready:
		case <-r.done:
			return 0, net.ErrClosed
		}
	}
	if r.bind.lagging.Load() {
		r.bind.lagging.Store(false)
	}
	now := mono.Now()
	n, bytes := 0, 0
	for n < len(bufs) && bytes < relayBatch {
		c := r.cur
		m := c.msgs[c.next]
		sizes[n] = copy(bufs[n], c.buf[m.off:m.off+m.len])
		eps[n] = m.from
		if isKeepalive(bufs[n][:m.len]) {
			m.from.keepalive.Store(now)
		}
		if !c.udp {
			m.from.relayed.Store(now)
		}
		bytes += m.len
		n++
		if c.next++; c.next < len(c.msgs) {
			continue
		}
		r.bind.recycle(c)
		r.cur = nil
		select {
		case r.cur = <-r.bind.ready:
			continue
		default:
		}
		break
	}
	return n, nil
}
