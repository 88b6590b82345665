package bind

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/internal/mono"
	"weft/overlay/relay/lane"
)

// MaxSockets bounds the extra sockets that are open at a time.
const MaxSockets = 512

var (
	// ErrNoSocket is returned while there is no UDP socket to send by.
	ErrNoSocket = errors.New("no UDP socket")

	errTooManySockets = errors.New("too many sockets")
	errTooLong        = errors.New("datagram is longer than its path carries")
)

// packetConn is what a socket must implement, as *net.UDPConn does.
type packetConn interface {
	net.PacketConn
	ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
}

// transport reads and writes datagrams in batches. There are two: for kernel sockets on
// Linux (kernel_linux.go) and for any packetConn (plain below).
type transport interface {
	// newReader makes a reader of up to batch datagrams at a time, for one goroutine.
	// large says that the buffers have MaxMessage bytes: then joined datagrams are read,
	// and split.
	newReader(batch int, large bool) reader
	// send sends each of bufs as one datagram on the route. It may block. It returns how
	// many it has sent or dropped silently, and the error of the next one.
	send(bufs [][]byte, r *sendPath) (int, error)
	// sendNow sends one datagram, or drops it if it would block.
	sendNow(b []byte, to netip.AddrPort) error
}

// reader fills buffers with datagrams. from[i] is the sender of the i-th; an entry of
// size 0 is empty. The error is net.ErrClosed once the socket is closed.
type reader interface {
	read(bufs [][]byte, sizes []int, from []netip.AddrPort) (int, error)
}

// Socket is a UDP socket besides the main one, for a NAT that can be traversed only with
// many sockets. It carries both address families where the system can.
type Socket struct {
	// Constant after listen.
	bind *Bind
	conn packetConn
	io   transport
	port uint16
	self *Socket // as in Path.Socket: nil for the main socket

	closed atomic.Bool
	wg     sync.WaitGroup // the goroutine that reads an extra socket
}

// listen opens a socket for both families, or for IPv4 where there is one only.
func (b *Bind) listen(port uint16, main bool) (*Socket, error) {
	addr := ":" + strconv.Itoa(int(port))
	c, err := b.openSocket("udp", addr)
	if err != nil {
		var err4 error
		if c, err4 = b.openSocket("udp4", addr); err4 != nil {
			return nil, fmt.Errorf("open UDP socket: %w", err)
		}
	}
	pc, ok := c.(packetConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("open UDP socket: a %T cannot read and write by address", c)
	}
	s := &Socket{bind: b, conn: pc}
	if !main {
		s.self = s
	}
	if a, ok := pc.LocalAddr().(*net.UDPAddr); ok {
		s.port = uint16(a.Port)
	}
	s.io = newTransport(pc, main)
	return s, nil
}

// Port returns the local port of the main socket, for both families; 0 while
// there is none.
func (b *Bind) Port() uint16 {
	if s := b.main.Load(); s != nil {
		return s.port
	}
	return 0
}

// AddSocket opens another socket, on a random port. The Path of its datagrams names it. It
// is slower than the main one: it reads datagrams of up to 2,048 bytes and copies them
// once more.
func (b *Bind) AddSocket() (*Socket, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.done == nil || b.openSocket == nil:
		return nil, ErrNoSocket
	case len(b.extra) >= MaxSockets:
		return nil, errTooManySockets
	}
	s, err := b.listen(0, false)
	if err != nil {
		return nil, err
	}
	b.extra[s] = true
	s.wg.Go(s.run)
	return s, nil
}

// Close closes a socket of AddSocket. Its paths are no longer verified, and datagrams
// sent on them are lost. It must not be called from a callback of the Bind. Further calls
// do nothing.
func (s *Socket) Close() error {
	if s.self == nil || !s.closed.CompareAndSwap(false, true) {
		return nil
	}
	err := s.conn.Close()
	s.bind.mu.Lock()
	delete(s.bind.extra, s)
	s.bind.dropInletsLocked(func(in *inlet) bool { return in.path.Socket == s })
	s.bind.mu.Unlock()
	s.wg.Wait()
	return err
}

const (
	extraBatch = 16
	extraSize  = 2048
)

// run reads an extra socket and passes its messages to a Source, like a relay connection.
// Of hundreds of sockets at most one will carry messages, so a socket gets large buffers
// only then.
func (s *Socket) run() {
	if !s.read(1) {
		return
	}
	s.read(extraBatch)
}

// read reads datagrams, batch at a time, until the socket is closed, and then returns
// false. With a batch of one it returns true at the first WireGuard message.
func (s *Socket) read(batch int) bool {
	bufs := make([][]byte, batch)
	space := make([]byte, batch*extraSize)
	for i := range bufs {
		bufs[i] = space[i*extraSize : (i+1)*extraSize]
	}
	in := &demux{sock: s, reader: s.io.newReader(batch, false)}
	sizes, eps := make([]int, batch), make([]conn.Endpoint, batch)
	src := s.bind.NewSource()
	src.udp = true
	for {
		n, err := in.receive(bufs, sizes, eps)
		if err != nil {
			return false
		}
		for i := range n {
			if sizes[i] > 0 {
				src.put(eps[i].(*Endpoint), bufs[i][:sizes[i]])
			}
		}
		src.Flush()
		if batch == 1 {
			return true
		}
	}
}

// SendTo sends one datagram, a STUN request or a probe, on a path that is not Relay. It
// drops the datagram rather than block. For RelayedUDP it prepends the lane's header.
func (b *Bind) SendTo(pkt []byte, w Path) error {
	s := w.Socket
	if s == nil {
		s = b.main.Load()
	}
	if s == nil || w.Kind == Relay {
		return ErrNoSocket
	}
	if w.Kind == RelayedUDP {
		if len(pkt) > MaxLimit-lane.HeaderLen {
			return errTooLong
		}
		pkt = append(lane.AppendHeader(make([]byte, 0, lane.HeaderLen+len(pkt)), w.Lane), pkt...)
	}
	return s.io.sendNow(pkt, w.Addr)
}

// demux sorts the datagrams of one socket. It belongs to one goroutine.
type demux struct {
	sock   *Socket
	reader reader
	from   []netip.AddrPort

	// The inlet of the last direct message, valid while the table has not changed.
	table *inlets
	addr  netip.AddrPort
	last  *inlet

	// A run of messages for one Taker.
	run   [][]byte
	runOf *Endpoint
}

// receive reads until there are WireGuard messages and returns them with their Endpoints.
// Entries of size 0 are gaps. Other datagrams go to Takers and the callbacks.
func (d *demux) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	if len(d.from) < len(bufs) {
		d.from = make([]netip.AddrPort, len(bufs))
	}
	for {
		n, err := d.reader.read(bufs, sizes, d.from)
		if err != nil {
			return 0, err
		}
		now := mono.Now()
		taken := 0
		for i := range n {
			if sizes[i] == 0 {
				continue
			}
			b := bufs[i][:sizes[i]]
			sizes[i] = 0
			if ep, size := d.take(b, d.from[i], now); ep != nil {
				sizes[i], eps[i] = size, ep
				taken++
			}
		}
		d.endRun()
		if taken > 0 {
			return n, nil
		}
	}
}

// take returns the Endpoint and size of a WireGuard message that may enter. The message
// is moved to the beginning of b.
func (d *demux) take(b []byte, from netip.AddrPort, now int64) (*Endpoint, int) {
	bind := d.sock.bind
	switch sortOf(b) {
	case sortWireGuard:
		in := d.lookup(from)
		if in == nil {
			return nil, 0
		}
		in.received.Store(now)
		return d.admit(in.ep, b, now)
	case sortSealed:
		if in := d.lookup(from); in != nil {
			d.sealed(in, b, now)
		}
	case sortLane:
		in := bind.inlets.Load().lanes[lane.ID(b[4:])]
		if in == nil || in.path.Addr != from || in.path.Socket != d.sock.self {
			return nil, 0
		}
		inner := b[lane.HeaderLen:]
		switch sortOf(inner) {
		case sortWireGuard:
			in.received.Store(now)
			ep, n := d.admit(in.ep, inner, now)
			copy(b, inner)
			return ep, n
		case sortSealed:
			d.sealed(in, inner, now)
		case sortProbe:
			bind.onProbe(inner, in.path)
		}
	case sortProbe:
		bind.onProbe(b, Path{Kind: Direct, Socket: d.sock.self, Addr: from})
	case sortLaneControl:
		bind.onLane(b, Path{Kind: Direct, Socket: d.sock.self, Addr: from})
	case sortSTUN:
		bind.onSTUN(b, Path{Kind: Direct, Socket: d.sock.self, Addr: from})
	}
	return nil, 0
}

// sealed adds a message to the run for its Taker.
func (d *demux) sealed(in *inlet, msg []byte, now int64) {
	if in.received.Load() != now {
		in.received.Store(now)
	}
	if d.runOf != in.ep {
		d.endRun()
		d.runOf = in.ep
	}
	d.run = append(d.run, msg)
}

// endRun passes the run to its Taker.
func (d *demux) endRun() {
	if d.runOf == nil {
		return
	}
	d.runOf.take(d.run)
	clear(d.run)
	d.run, d.runOf = d.run[:0], nil
}

func (d *demux) lookup(from netip.AddrPort) *inlet {
	table := d.sock.bind.inlets.Load()
	if table != d.table || from != d.addr {
		d.table, d.addr, d.last = table, from, table.direct[origin{d.sock.self, from}]
	}
	return d.last
}

func (d *demux) admit(ep *Endpoint, msg []byte, now int64) (*Endpoint, int) {
	// The main socket waits until WireGuard catches up. An extra one passes messages to a
	// Source, which counts them.
	if d.sock.self == nil && !ep.admitWaiting(msg) {
		d.sock.bind.dropped.Add(1)
		return nil, 0
	}
	if isKeepalive(msg) {
		ep.keepalive.Store(now)
	}
	return ep, len(msg)
}

// newTransport chooses how a socket is read and written.
func newTransport(c packetConn, main bool) transport {
	if u, ok := c.(*net.UDPConn); ok {
		if t := kernelTransport(u, main); t != nil {
			return t
		}
	}
	return plain{c}
}

// plain is the transport of any packetConn: one datagram at a time.
type plain struct{ conn packetConn }

func (p plain) newReader(int, bool) reader { return p }

func (p plain) read(bufs [][]byte, sizes []int, from []netip.AddrPort) (int, error) {
	for {
		n, addr, err := p.conn.ReadFromUDPAddrPort(bufs[0])
		if err == nil {
			sizes[0], from[0] = n, netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())
			return 1, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return 0, net.ErrClosed
		}
		// For example an ICMP error about an earlier send. Pause, in case it is
		// permanent.
		time.Sleep(time.Millisecond)
	}
}

// laneBuffers hold a message with the header of its lane.
var laneBuffers = sync.Pool{New: func() any { return new([MaxLimit]byte) }}

func (p plain) send(bufs [][]byte, r *sendPath) (int, error) {
	var space *[MaxLimit]byte
	if r.path.Kind == RelayedUDP {
		space = laneBuffers.Get().(*[MaxLimit]byte)
		defer laneBuffers.Put(space)
	}
	for i, b := range bufs {
		if space != nil {
			n := copy(space[:], r.prefix[:])
			b = space[:n+copy(space[n:], b)]
		}
		if _, err := p.conn.WriteToUDPAddrPort(b, r.path.Addr); err != nil {
			return i, err
		}
	}
	return len(bufs), nil
}

func (p plain) sendNow(b []byte, to netip.AddrPort) error {
	_, err := p.conn.WriteToUDPAddrPort(b, to)
	return err
}
