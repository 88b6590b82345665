// Package bind is the transport of WireGuard messages: wireguard-go's conn.Bind
// over the node's relay connections and its UDP sockets.
//
// # Endpoints
//
// An Endpoint is a peer, not an address: it is named by the peer's NodeID, and
// where its messages go is decided underneath, by SetWay: by its Sender (the
// relay connection), by UDP to an address, or by UDP through a relay's lane.
// WireGuard never learns of it, and no packet can move it.
//
// # Sockets
//
// Open opens one UDP socket for both address families (Config.Listen), whose
// port is Port; AddSocket opens more for the NATs that need it. A datagram is,
// by its first bytes,
//
//	01..04 00 00 00                a WireGuard message: taken only from a way in
//	                               the table of Verify, as that Endpoint's
//	F5                             a probe: Config.Probe
//	F6 00 00 00, lane id (16 B)    one of the two above, taken only if Verify has
//	                               the lane, and from its address at the relay
//	F6 01..03 00 00                about a lane: Config.Lane
//	00 or 01, and STUN's cookie    STUN: Config.STUN
//
// and is dropped otherwise. Nothing here ever answers. The callbacks run on the
// goroutine that reads the socket, with borrowed bytes: they must not block, and
// must not close a socket. What they are given is not authenticated, but for a
// probe by a lane, which has at least come from the lane. They answer by SendTo,
// with the Way that they were given.
//
// # Inwards
//
//	wireguard-go's receive goroutine: recvmmsg -> wireguard's buffers
//
//	relay's read goroutine: Source.Deliver (copies into a chunk) ... Source.Flush
//	  -> queue of chunks, bounded
//	wireguard-go's other receive goroutine: receive -> wireguard's buffers
//
// A Source belongs to the goroutine that reads one relay connection. It fills
// pooled chunks of 64 KB and hands them over whole, when full or when Flush says
// that no more input is waiting, so that a batch costs one wake-up. At most
// QueueChunks chunks wait for the receive goroutine; then Flush waits too, and
// after 50 ms drops. Messages of a node without Endpoint go to Config.Stranger.
//
// At most MaxInFlight bytes of data messages of one peer are between arrival and
// Endpoint.Done. Of those that a relay brings more are dropped at once, so that
// one peer does not hold up the others; the reader of the main socket waits up to
// 500 ms first, since the socket's own buffer goes on taking.
//
// # Outwards
//
// Send sends a batch by the endpoint's way. A socket may block it, and so may
// the Sender, which copies (backpressure). Messages that are longer than the
// limit of the way, or that the system refuses, go by the Sender. Without one,
// or when it fails, they are dropped: to WireGuard and to what it carries that is
// packet loss, which both can deal with, so Send returns no error.
// Config.Trouble is told of what the system refuses.
//
// Neither direction takes a lock or allocates in the steady state.
//
// # The Linux kernel's sockets
//
// They are read by recvmmsg and written by sendmmsg, with UDP_GRO and
// UDP_SEGMENT where the kernel has them and by scatter and gather, so that
// nothing is copied to be split or put together; with buffers of 7 MB, if the
// process may have them; and with the don't-fragment bit on every datagram,
// whatever the kernel believes to know about the path: finding out which size
// passes is left to whoever sets the limit of a way. On other systems, and for
// what Config.Listen opens that is no *net.UDPConn, one datagram is read or
// written at a time.
package bind

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/cert"
	"weft/overlay/limited"
	"weft/overlay/relay/lane"
)

const (
	// BatchSize is how many messages WireGuard takes at once where there are
	// sockets and 512 MB of memory, and RelayBatchSize where there are none. It keeps a buffer of
	// 64 KB for each, of which the pages become resident that are used.
	BatchSize      = 128
	RelayBatchSize = 8

	// QueueChunks bounds the chunks of 64 KB that wait for WireGuard's receive
	// goroutine, over all sources.
	QueueChunks = 32

	// MaxInFlight bounds the data messages of one peer between arrival and
	// Done, in bytes, with 4 KB more for each; a machine with less than 1 GB
	// has room for less.
	MaxInFlight = 16 << 20

	// MaxMessage is the longest WireGuard message in bytes.
	MaxMessage = 65535
)

// backpressure is how long Flush waits for WireGuard, socketBackpressure how long
// the reader of the main socket does: its messages are in nobody's way.
const (
	backpressure       = 50 * time.Millisecond
	socketBackpressure = 500 * time.Millisecond
)

// stalled is how long Done has to be silent before the messages that were
// counted as in flight are given up: they were not data for this node.
const stalled = 200 * time.Millisecond

// A Sender carries WireGuard messages to nodes. A relay connection is one.
type Sender interface {
	// SendPackets sends each of bufs to a node. It copies them. It may block
	// while the path is full and may be called by many goroutines. Delivery
	// is not certain.
	SendPackets(to cert.NodeID, bufs [][]byte) error
}

// Config configures New.
type Config struct {
	// Stranger is handed each message from a node that has no Endpoint. pkt
	// is borrowed until it returns. It is called from the goroutine of the
	// Source and must not block. nil drops.
	Stranger func(from cert.NodeID, pkt []byte)

	// Listen opens the UDP sockets: Listen of this package, or ListenPacket
	// of an overlaytest.Host. network is "udp" or "udp4", address ":PORT".
	// What it returns needs the methods ReadFromUDPAddrPort and
	// WriteToUDPAddrPort. nil: no sockets.
	Listen func(network, address string) (net.PacketConn, error)

	// Port is the local port of the main socket; 0 is a random one.
	Port uint16

	// STUN and Probe are handed the datagrams of their kind; see the package
	// comment. from is Direct, or Lane for a probe that came by one. pkt is
	// borrowed until they return. nil drops.
	STUN  func(pkt []byte, from Way)
	Probe func(pkt []byte, from Way)

	// Lane is handed what a relay says about a lane, in the same way.
	Lane func(pkt []byte, from Way)

	// Trouble is told, at most ten times a second for each SetWay, why what
	// ep sends could not go by its way w: syscall.EMSGSIZE when a datagram
	// is too long for the interface that it should leave by, ENETUNREACH,
	// EHOSTUNREACH, EPERM, ErrNoSocket, and so on. It runs on the goroutine
	// that sends and must not block. nil ignores.
	Trouble func(ep *Endpoint, w Way, err error)
}

// Bind implements conn.Bind. Its methods may be called from any goroutine.
type Bind struct {
	// Constant after New.
	stranger   func(cert.NodeID, []byte)
	openSocket func(network, address string) (net.PacketConn, error) // nil: none
	wantPort   uint16
	onSTUN     func([]byte, Way)
	onProbe    func([]byte, Way)
	onLane     func([]byte, Way)
	onTrouble  func(*Endpoint, Way, error)
	ready      chan *chunk
	pool       sync.Pool // of *chunk

	main   atomic.Pointer[Socket] // nil while there is none
	inlets atomic.Pointer[inlets] // replaced under mu, never changed

	endpoints atomic.Pointer[map[cert.NodeID]*Endpoint] // replaced under mu, never changed
	dropped   atomic.Uint64
	lagging   atomic.Bool // a source waited for WireGuard in vain

	// mu guards the following.
	mu        sync.Mutex
	done      chan struct{} // closed by Close; nil while not open
	extra     map[*Socket]bool
	listenErr error // why there is no main socket
}

var _ conn.Bind = (*Bind)(nil)

// New makes a Bind without endpoints.
func New(cfg Config) *Bind {
	b := &Bind{
		stranger:   cfg.Stranger,
		openSocket: cfg.Listen,
		wantPort:   cfg.Port,
		onSTUN:     cfg.STUN,
		onProbe:    cfg.Probe,
		onLane:     cfg.Lane,
		onTrouble:  cfg.Trouble,
		ready:      make(chan *chunk, QueueChunks),
		extra:      make(map[*Socket]bool),
		listenErr:  ErrNoSocket,
	}
	if b.stranger == nil {
		b.stranger = func(cert.NodeID, []byte) {}
	}
	if b.onSTUN == nil {
		b.onSTUN = func([]byte, Way) {}
	}
	if b.onLane == nil {
		b.onLane = func([]byte, Way) {}
	}
	if b.onProbe == nil {
		b.onProbe = func([]byte, Way) {}
	}
	if b.onTrouble == nil {
		b.onTrouble = func(*Endpoint, Way, error) {}
	}
	b.inlets.Store(&inlets{direct: map[origin]*inlet{}, lanes: map[lane.ID]*inlet{}})
	b.pool.New = func() any { return &chunk{buf: make([]byte, 0, chunkSize)} }
	b.endpoints.Store(&map[cert.NodeID]*Endpoint{})
	return b
}

// NewEndpoint makes the endpoint of a node: a way to send to it. ip is the
// node's overlay address, by which WireGuard limits the rate of handshakes.
// What comes from the node goes to Config.Stranger until Admit.
func NewEndpoint(id cert.NodeID, ip netip.Addr) *Endpoint {
	ep := &Endpoint{id: id, name: id.String(), ip: ip, moved: make(chan struct{}, 1)}
	ep.most, ep.page = inFlightBounds(limited.Memory())
	return ep
}

// Admit lets what comes from ep's node in. WireGuard has to know the node by
// then: it drops what comes from strangers, and who sent it waits and tries
// again.
func (b *Bind) Admit(ep *Endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.endpoints.Load()
	if old[ep.id] == ep {
		return
	}
	next := make(map[cert.NodeID]*Endpoint, len(old)+1)
	maps.Copy(next, old)
	next[ep.id] = ep
	b.endpoints.Store(&next)
}

// Find returns the endpoint of a node, or nil.
func (b *Bind) Find(id cert.NodeID) *Endpoint { return (*b.endpoints.Load())[id] }

// Drop forgets the endpoint of a node and its verified ways: its messages are a
// stranger's from now on, and what is sent to it is lost.
func (b *Bind) Drop(id cert.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.endpoints.Load()
	ep := old[id]
	if ep == nil {
		return
	}
	next := maps.Clone(old)
	delete(next, id)
	b.endpoints.Store(&next)
	b.dropInletsLocked(func(in *inlet) bool { return in.ep == ep })
	ep.route.Store(nil)
	ep.SetSender(nil)
}

// Open implements conn.Bind. It is called by wireguard-go. If the main socket
// cannot be opened there is none until the next Open: see ListenError.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	b.done = make(chan struct{})
	b.lagging.Store(false)
	r := &receiver{bind: b, done: b.done}
	fns := []conn.ReceiveFunc{r.receiveRelay}
	if b.openSocket == nil {
		return fns, port, nil
	}
	var s *Socket
	if s, b.listenErr = b.listen(b.wantPort, true); b.listenErr != nil {
		return fns, port, nil
	}
	b.main.Store(s)
	d := &demux{sock: s, reader: s.io.newReader(BatchSize, true)}
	return append(fns, d.receive), s.port, nil
}

// ListenError returns why there is no main socket; nil if there is one.
func (b *Bind) ListenError() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.listenErr
}

// Close implements conn.Bind. It is called by wireguard-go, also before Open. It
// closes all sockets and waits for the goroutines that read the extra ones. The
// receive functions return net.ErrClosed from then on.
func (b *Bind) Close() error {
	b.mu.Lock()
	if b.done != nil {
		close(b.done)
		b.done = nil
	}
	extra := slices.Collect(maps.Keys(b.extra))
	if s := b.main.Swap(nil); s != nil {
		s.closed.Store(true)
		s.conn.Close()
	}
	b.mu.Unlock()
	for _, s := range extra {
		s.Close()
	}
	return nil
}

// SetMark implements conn.Bind: nobody asks for a mark.
func (b *Bind) SetMark(uint32) error { return nil }

// BatchSize implements conn.Bind.
func (b *Bind) BatchSize() int {
	if b.openSocket == nil {
		return RelayBatchSize
	}
	return batchSize(limited.Memory())
}

// batchSize is BatchSize with so many bytes of memory. WireGuard keeps two batches
// of 64 KB each.
func batchSize(memory int64) int {
	return max(limited.ShareOf(memory, BatchSize<<20, 1./4)>>20, RelayBatchSize)
}

// ParseEndpoint implements conn.Bind: s is the NodeID of an endpoint that
// exists.
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	id, err := cert.ParseNodeID(s)
	if err != nil {
		return nil, err
	}
	ep := b.Find(id)
	if ep == nil {
		return nil, net.UnknownNetworkError(s)
	}
	return ep, nil
}

// Send implements conn.Bind.
func (b *Bind) Send(bufs [][]byte, endpoint conn.Endpoint) error {
	ep, ok := endpoint.(*Endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	ep.send(b, bufs)
	return nil
}
