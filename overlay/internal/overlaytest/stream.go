package overlaytest

import (
	"cmp"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// Window bounds what is in flight or unread in one direction of a stream, in bytes.
const Window = 1 << 20

const (
	maxSegment   = 64 << 10
	synSize      = 60
	minRTO       = 200 * time.Millisecond
	stallLimit   = 15 * time.Minute
	maxLostInRow = 8
)

// dialing is one dial in progress. Guarded by Internet.mu until done is closed.
type dialing struct {
	done  chan struct{}
	conn  *Conn
	err   error
	over  bool // decided, or given up by the caller
	taken bool // the dialler has taken the result
	local uint16
}

func (d *dialing) decideLocked(c *Conn, err error) {
	if !d.over {
		d.over, d.conn, d.err = true, c, err
		close(d.done)
	}
}

// cancel ends a dial whose caller no longer waits. A stream that was made for it is
// reset.
func (in *Internet) cancel(d *dialing) {
	in.mu.Lock()
	defer in.mu.Unlock()
	d.over = true
	if d.conn != nil && !d.taken {
		d.conn.abortLocked(net.ErrClosed, errReset)
	}
}

// path is the path of a stream, the same in both directions.
type path struct {
	in       *Internet
	from, to *Host // to is nil when the path ends at a router
	links    []*Link
	src, dst netip.AddrPort // as the destination sees them
	refused  bool           // a router refuses it

	// What the path depends on, and its state when the path was made.
	routers []*NAT
	epochs  []int
	moves   [2]int

	// The links by which packets of from and of to leave, up to the network that both are
	// in or behind.
	leaves [2][]*Link
}

// routeLocked returns the path to dst; nil when packets to dst are lost.
func (in *Internet) routeLocked(h *Host, src, dst netip.AddrPort) *path {
	p := &path{in: in, from: h, src: src, dst: dst}
	p.moves[0] = h.moves
	if dst.Addr().IsLoopback() || slices.Contains(h.addrs, dst.Addr()) {
		p.to, p.moves[1] = h, h.moves
		return p
	}
	p.links = append(p.links, h.Link)
	p.leaves[0] = append(p.leaves[0], h.Link)
	for n := h.net; ; {
		if to := n.hosts[dst.Addr()]; to != nil {
			p.to, p.moves[1] = to, to.moves
			p.links = append(p.links, to.Link)
			p.leaves[1] = append(p.leaves[1], to.Link)
			return p
		}
		if r := n.routers[dst.Addr()]; r != nil { // streams from outside are not forwarded
			p.links = append(p.links, r.Link)
			p.refused = true
			return p
		}
		if r := n.behindLocked(dst.Addr()); r != nil {
			if r.kind != NoNAT {
				return nil // its firewall has no flow that began inside
			}
			p.throughLocked(r)
			p.leaves[1] = append(p.leaves[1], r.Link)
			n = r.Net
			continue
		}
		r := n.router
		if r == nil || len(r.onlyTCP) > 0 && !r.onlyTCP[dst.Port()] {
			return nil
		}
		if r.translates(p.src.Addr()) {
			p.src = r.ext(uint16(1024 + r.rand.IntN(1<<16-1024)))
		}
		p.throughLocked(r)
		p.leaves[0] = append(p.leaves[0], r.Link)
		n = r.outer
	}
}

func (p *path) throughLocked(r *NAT) {
	p.links = append(p.links, r.Link)
	p.routers = append(p.routers, r)
	p.epochs = append(p.epochs, r.epoch)
}

// openLocked reports whether packets pass now.
func (p *path) openLocked() bool {
	if p.from.moves != p.moves[0] || p.to != nil && (p.to.moves != p.moves[1] || p.in.parted[[2]*Host{p.from, p.to}]) {
		return false
	}
	for i, r := range p.routers {
		if r.epoch != p.epochs[i] {
			return false
		}
	}
	return !slices.ContainsFunc(p.links, func(l *Link) bool { return l.down })
}

func (p *path) latencyLocked() (d time.Duration) {
	for _, l := range p.links {
		d += l.latency
	}
	return d
}

// delayLocked returns the latency plus the time for retransmissions.
func (p *path) delayLocked() time.Duration {
	latency := p.latencyLocked()
	delay, rto := latency, max(minRTO, 3*latency)
	for _, l := range p.links {
		for i := 0; i < maxLostInRow && l.loss > 0 && l.rand.Float64() < l.loss; i++ {
			delay += rto
		}
	}
	return delay
}

// syn sends one request for a stream. Its outcome, if there is one, decides d.
func (in *Internet) syn(h *Host, to netip.AddrPort, d *dialing) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return net.ErrClosed
	}
	src := h.sourceLocked(to.Addr())
	if !src.IsValid() {
		return errNoRoute
	}
	if d.local == 0 {
		d.local = uint16(32768 + h.rand.IntN(28232))
	}
	local := netip.AddrPortFrom(src, d.local)
	p := in.routeLocked(h, local, to)
	if p == nil || !p.openLocked() {
		return nil
	}
	for _, l := range p.links {
		if l.loss > 0 && l.losesLocked(synSize) {
			return nil
		}
	}
	queued, ok := p.enterLocked(0, synSize)
	if !ok {
		return nil
	}
	in.afterLocked(queued+p.latencyLocked(), func() { in.synArrivedLocked(p, local, d) })
	return nil
}

func (in *Internet) synArrivedLocked(p *path, local netip.AddrPort, d *dialing) {
	if d.over || !p.openLocked() {
		return
	}
	var l *Listener
	if p.to != nil {
		l = p.to.listeners[p.dst.Port()]
		if l != nil && !l.local.Addr().IsUnspecified() && l.local.Addr() != p.dst.Addr() {
			l = nil
		}
	}
	if l != nil && len(l.queue)+l.coming >= backlog {
		return
	}
	queued, ok := p.enterLocked(1, synSize)
	if !ok {
		return
	}
	if l != nil {
		l.coming++
	}
	in.afterLocked(queued+p.latencyLocked(), func() {
		switch {
		case d.over || !p.openLocked():
			if l != nil {
				l.coming--
			}
		case l == nil:
			d.decideLocked(nil, errRefused)
		default:
			client := &Conn{host: p.from, path: p, local: local, remote: p.dst, changed: newSignal()}
			server := &Conn{host: p.to, path: p, local: p.dst, remote: p.src, changed: newSignal(), peer: client}
			client.peer = server
			in.seq += 2
			client.id, server.id = in.seq-1, in.seq
			in.streams[client], in.streams[server] = struct{}{}, struct{}{}
			d.decideLocked(client, nil)
			queued, _ := p.enterLocked(0, synSize) // if it is lost, what follows has the same effect
			in.afterLocked(queued+p.latencyLocked(), func() { l.offerLocked(server) })
		}
	})
}

// Listener accepts streams.
type Listener struct {
	host  *Host
	local netip.AddrPort

	// Guarded by Internet.mu.
	queue   []*Conn
	coming  int // unfinished handshakes
	err     error
	changed signal
}

var _ net.Listener = (*Listener)(nil)

func (l *Listener) offerLocked(c *Conn) {
	l.coming--
	if l.err != nil {
		c.abortLocked(l.err, errReset)
		return
	}
	l.queue = append(l.queue, c)
	l.changed.tell()
}

// Accept waits for the next stream.
func (l *Listener) Accept() (net.Conn, error) {
	in := l.host.in
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		switch {
		case l.err != nil:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: l.err}
		case len(l.queue) > 0:
			c := l.queue[0]
			l.queue = l.queue[1:]
			return c, nil
		}
		in.waitLocked(&l.changed, time.Time{})
	}
}

// Close closes the listener; streams not yet accepted are reset.
func (l *Listener) Close() error {
	l.host.in.mu.Lock()
	defer l.host.in.mu.Unlock()
	if l.err != nil {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.Addr(), Err: l.err}
	}
	for _, c := range l.queue {
		c.abortLocked(net.ErrClosed, errReset)
	}
	l.endLocked(net.ErrClosed)
	return nil
}

func (l *Listener) endLocked(err error) {
	l.err, l.queue = err, nil
	delete(l.host.listeners, l.local.Port())
	l.changed.tell()
}

// Addr returns the address that the listener was bound to, with its port.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.local) }

// segment is a piece of a stream in flight.
type segment struct {
	data []byte
	fin  bool
	rst  bool

	// For streams over a link with a rate.
	sent, arrived bool
	resent        int
}

// Conn is one end of a stream.
type Conn struct {
	host          *Host
	peer          *Conn
	path          *path
	local, remote netip.AddrPort
	id            uint64

	// Guarded by Internet.mu.
	buf       []byte // received, not read
	eof       bool
	unread    int        // sent, not read by the peer
	pending   []*segment // sent, not arrived
	round     int        // counts stalls: segments of an earlier round are lost
	stalled   bool
	lastDue   time.Time // when the last segment arrives: nothing overtakes it
	pace      pace
	finSent   bool
	closed    bool
	err       error // ends both directions
	changed   signal
	readBy    time.Time
	writtenBy time.Time
}

var _ net.Conn = (*Conn)(nil)

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	in := c.host.in
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case expired(c.readBy):
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(c.buf) > 0 || len(b) == 0:
			n := copy(b, c.buf)
			c.buf = c.buf[n:]
			if len(c.buf) == 0 {
				c.buf = nil
			}
			c.peer.unread -= n
			c.peer.changed.tell()
			return n, nil
		case c.err != nil:
			return 0, c.opError("read", c.err)
		case c.eof:
			return 0, io.EOF
		}
		in.waitLocked(&c.changed, c.readBy)
	}
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	in := c.host.in
	in.mu.Lock()
	defer in.mu.Unlock()
	written := 0
	for {
		space := Window - c.unread
		switch {
		case c.closed:
			return written, c.opError("write", net.ErrClosed)
		case c.err != nil:
			return written, c.opError("write", c.err)
		case c.finSent:
			return written, c.opError("write", errBrokenPipe)
		case expired(c.writtenBy):
			return written, c.opError("write", os.ErrDeadlineExceeded)
		case written == len(b):
			return written, nil
		case space > 0:
			n := min(space, len(b)-written, maxSegment)
			data := slices.Clone(b[written : written+n])
			written += n
			c.unread += n
			if in.onPacket != nil {
				in.onPacket(Packet{From: c.host, Network: "tcp", Src: c.local, Dst: c.remote, Payload: data})
			}
			c.sendLocked(&segment{data: data})
			if written == len(b) {
				return written, nil
			}
			continue
		}
		in.waitLocked(&c.changed, c.writtenBy)
	}
}

// CloseWrite gives the peer EOF after what was written.
func (c *Conn) CloseWrite() error {
	c.host.in.mu.Lock()
	defer c.host.in.mu.Unlock()
	switch {
	case c.closed:
		return c.opError("close", net.ErrClosed)
	case c.err != nil:
		return c.opError("close", c.err)
	case !c.finSent:
		c.finSent = true
		c.sendLocked(&segment{fin: true})
	}
	return nil
}

// Close ends the stream. The peer gets EOF, or ECONNRESET if there was unread data or it
// keeps writing.
func (c *Conn) Close() error {
	c.host.in.mu.Lock()
	defer c.host.in.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	if c.err == nil {
		switch {
		case len(c.buf) > 0:
			c.sendLocked(&segment{rst: true})
		case !c.finSent:
			c.finSent = true
			c.sendLocked(&segment{fin: true})
		}
	}
	c.changed.tell()
	c.retireLocked()
	return nil
}

// sendLocked queues a segment and puts it on its way.
func (c *Conn) sendLocked(s *segment) {
	if c.leavesLocked() {
		c.sendSlowlyLocked(s)
		return
	}
	c.pending = append(c.pending, s)
	if !c.stalled {
		c.launchLocked(s)
	}
}

// launchLocked sends the last segment of pending, or stalls.
func (c *Conn) launchLocked(s *segment) {
	if !c.path.openLocked() {
		c.stallLocked()
		return
	}
	due := time.Now().Add(c.path.delayLocked())
	if due.Before(c.lastDue) {
		due = c.lastDue
	}
	c.lastDue = due
	round := c.round
	c.host.in.atLocked(due, func() {
		if c.round != round {
			return
		}
		if !c.path.openLocked() {
			c.stallLocked()
			return
		}
		c.pending = c.pending[1:]
		c.peer.arriveLocked(s)
		c.retireLocked()
	})
}

// stallLocked holds pending segments until the path is open again.
func (c *Conn) stallLocked() {
	c.stalled = true
	c.host.in.streams[c] = struct{}{} // so that resumeLocked finds it
	c.round++
	round := c.round
	c.host.in.afterLocked(stallLimit, func() {
		if c.round == round && c.stalled {
			c.failLocked(errTimedOut)
		}
	})
}

// resumeLocked continues stalled streams whose paths are open again.
func (in *Internet) resumeLocked() {
	for _, c := range in.streamsLocked() {
		if !c.stalled || !c.path.openLocked() {
			continue
		}
		c.stalled = false
		c.round++
		c.lastDue = time.Time{}
		if c.leavesLocked() {
			c.restartLocked()
			continue
		}
		for _, s := range c.pending {
			c.launchLocked(s)
		}
	}
}

// streamsLocked returns all ends of streams, the oldest first.
func (in *Internet) streamsLocked() []*Conn {
	all := make([]*Conn, 0, len(in.streams))
	for c := range in.streams {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *Conn) int { return cmp.Compare(a.id, b.id) })
	return all
}

// arriveLocked takes a segment from the peer.
func (c *Conn) arriveLocked(s *segment) {
	switch {
	case s.rst:
		c.failLocked(errReset)
		return
	case c.closed || c.err != nil:
		if len(s.data) > 0 { // nobody will read it
			c.sendLocked(&segment{rst: true})
		}
		return
	case s.fin:
		c.eof = true
	default:
		c.buf = append(c.buf, s.data...)
	}
	c.changed.tell()
}

// failLocked ends the stream here and now.
func (c *Conn) failLocked(err error) {
	if c.err == nil {
		c.err = err
	}
	c.pending, c.stalled = nil, false
	c.round++
	c.changed.tell()
	c.retireLocked()
}

// abortLocked ends the stream here with err. If tell is not nil, the peer gets it after
// the data in flight.
func (c *Conn) abortLocked(err, tell error) {
	over := c.err != nil || c.closed
	if c.err == nil {
		c.err = err
	}
	if tell == nil {
		c.failLocked(err)
		return
	}
	c.changed.tell()
	if !over {
		c.sendLocked(&segment{rst: true})
	}
	c.retireLocked()
}

// retireLocked drops an end that has nothing left to send.
func (c *Conn) retireLocked() {
	if (c.closed || c.err != nil) && len(c.pending) == 0 {
		delete(c.host.in.streams, c)
	}
}

// LocalAddr returns the address as this host knows it, RemoteAddr the peer's as
// it is seen from here: with NATs in between neither is what the other end has.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr: see LocalAddr.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *Conn) setDeadlines(read, write *time.Time) error {
	c.host.in.mu.Lock()
	defer c.host.in.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	if read != nil {
		c.readBy = *read
	}
	if write != nil {
		c.writtenBy = *write
	}
	c.changed.tell()
	return nil
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
