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
	buf  []byte // messages, one after the other
	msgs []message
	next int // first message that was not received yet
	udp  bool
}

type message struct {
	from     *Endpoint
	off, len int
}

func (c *chunk) reset() {
	clear(c.msgs)
	c.buf, c.msgs, c.next, c.udp = c.buf[:0], c.msgs[:0], 0, false
}

// Source is the inward end of one relay connection. Its methods belong to the
// goroutine that reads the connection.
type Source struct {
	bind *Bind
	cur  *chunk // being filled; nil while nothing waits
	udp  bool   // its messages come by a socket

	// The endpoint of the last message, valid while the table is the same.
	last  *Endpoint
	table *map[cert.NodeID]*Endpoint
}

// NewSource makes the inward end of a relay connection. It needs no closing.
func (b *Bind) NewSource() *Source { return &Source{bind: b} }

// Deliver takes one WireGuard message from a node. It copies msg, which may be
// anything of any length.
func (s *Source) Deliver(from cert.NodeID, msg []byte) {
	table := s.bind.endpoints.Load()
	if s.last == nil || s.table != table || s.last.id != from {
		s.table, s.last = table, (*table)[from]
		if s.last == nil {
			s.bind.stranger(from, msg)
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
	if s.cur != nil && (len(s.cur.buf)+len(msg) > cap(s.cur.buf) || len(s.cur.msgs) == chunkMessages) {
		s.Flush()
	}
	if s.cur == nil {
		s.cur = s.bind.pool.Get().(*chunk)
		s.cur.udp = s.udp
	}
	c := s.cur
	c.msgs = append(c.msgs, message{from, len(c.buf), len(msg)})
	c.buf = append(c.buf, msg...)
}

// Flush hands over what was delivered. The reader calls it whenever it has no
// more input at hand. When the queue is full it waits for WireGuard, 50 ms at
// most; the waiting reader is felt by the relay as backpressure, so that a
// stream loses nothing. If that was in vain messages are dropped until WireGuard
// moves again.
func (s *Source) Flush() {
	c := s.cur
	if c == nil {
		return
	}
	s.cur = nil
	select {
	case s.bind.ready <- c:
	default:
		s.bind.push(c)
	}
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
// were held back (Config.Stranger); a relay connection uses a Source.
func (b *Bind) Deliver(from cert.NodeID, msg []byte) {
	s := Source{bind: b}
	s.Deliver(from, msg)
	s.Flush()
}

func (b *Bind) recycle(c *chunk) {
	c.reset()
	b.pool.Put(c)
}

// relayBatch is at how many bytes a batch from relays ends: of large messages a
// longer one gains nothing, but makes as many buffers of wireguard-go resident.
const relayBatch = 8 * (60 << 10)

// receiver is the state of the receive function of one Open. It belongs to
// wireguard-go's receive goroutine.
type receiver struct {
	bind *Bind
	done <-chan struct{}
	cur  *chunk // partly received
}

// receiveRelay is a conn.ReceiveFunc: it waits for messages and copies as many
// as are at hand.
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
			m.from.kept.Store(now)
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
