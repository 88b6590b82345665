// Package bind is the transport of WireGuard messages: wireguard-go's conn.Bind
// over the node's relay connections and its UDP sockets.
//
// # Endpoints
//
// An Endpoint is a peer, not an address: the peer's NodeID names it. SetPath selects the
// path of its messages, invisibly for WireGuard: its Sender (the relay connection), UDP
// to an address, or relayed UDP. No received packet can change it.
//
// # Sockets
//
// Open opens one UDP socket for both address families (Config.Listen), whose port is
// Port; AddSocket opens more for the NATs that need it. The first bytes of a datagram
// tell what it is:
//
//	01..04 00 00 00                a WireGuard message: taken only from a path in
//	                               the table of Verify, as that Endpoint's
//	05..06 00 00 00                a datagram of package gcm: the same
//	F5                             a probe: Config.Probe
//	F6 00 00 00, lane id (16 B)    one of the three above, taken only if Verify has
//	                               the lane, and from its address at the relay
//	F6 01..03 00 00                about a lane: Config.LaneControl
//	00 or 01, and STUN's cookie    STUN: Config.STUN
//
// Any other datagram is dropped. This package never answers. The callbacks run on the
// goroutine that reads the socket. They must not block, close a socket or keep the bytes.
// Their datagrams are not authenticated, except that a relayed probe has come from a
// known lane. They answer with SendTo and the Path that they were given.
//
// # Inwards
//
//	wireguard-go's receive goroutine: recvmmsg -> wireguard's buffers
//
//	relay's read goroutine: Source.Deliver (copies into a chunk) ... Source.Flush
//	  -> queue of chunks, bounded
//	wireguard-go's other receive goroutine: receive -> wireguard's buffers
//
// A Source belongs to the goroutine that reads one relay connection. It fills pooled
// chunks of 64 KB and hands them over as a whole, when full or when Flush says that no
// more input is waiting, so that a batch costs one wake-up. At most QueueChunks chunks
// wait for the receive goroutine; then Flush waits too, and after 50 ms drops. Messages
// of a node without an Endpoint go to Config.UnknownSender.
//
// At most MaxInFlight bytes of data messages of one peer are between arrival and
// Endpoint.Done. More from a relay are dropped at once, so that one peer does not delay
// the others. The reader of the main socket waits up to 500 ms before it drops, while the
// kernel's buffer still takes datagrams.
//
// Datagrams of package gcm are not queued: the goroutine that reads the socket, or the relay
// connection, passes them to their Endpoint's Taker as a batch, which decrypts them and
// passes them on before it returns. wireguard-go does not see them.
//
// # Outwards
//
// Send sends a batch on the endpoint's path. The socket may block it, and so may the
// Sender, which copies (backpressure). Messages that are longer than the limit of the
// path, or that the system refuses, go to the Sender. Without a Sender, or when it fails,
// they are dropped. WireGuard and the protocols inside treat that as packet loss, so Send
// returns no error. Config.SendFailed is called with errors of the system.
//
// Neither direction takes a lock or allocates in the steady state.
//
// # The Linux kernel's sockets
//
// They are read with recvmmsg and written with sendmmsg, with UDP_GRO and UDP_SEGMENT
// where the kernel has them, and with scatter and gather, so that nothing is copied to be
// split or joined. They have buffers of 7 MB, if the process may have them. Every
// datagram has the don't-fragment bit, and the kernel's idea of the path MTU is ignored:
// whoever sets the limit of a path finds out which sizes pass. On other systems, and for
// a result of Config.Listen that is not a *net.UDPConn, datagrams are read and written
// one at a time.
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
	// BatchSize is how many messages WireGuard takes at once with sockets and at least
	// 512 MB of memory, RelayBatchSize without sockets. It has a buffer of 64 KB for
	// each, of which only the used pages become resident.
	BatchSize      = 128
	RelayBatchSize = 8

	// QueueChunks bounds the chunks of 64 KB that wait for WireGuard's receive
	// goroutine, over all sources.
	QueueChunks = 32

	// MaxInFlight bounds the data messages of one peer between arrival and Done, in
	// bytes, counting 4 KB more for each. It is less on a machine with less than 1 GB.
	MaxInFlight = 16 << 20

	// MaxMessage is the longest WireGuard message in bytes.
	MaxMessage = 65535
)

// backpressure is how long Flush waits for WireGuard. socketBackpressure is how long the
// reader of the main socket waits; it is longer because it does not delay a relay
// connection.
const (
	backpressure       = 50 * time.Millisecond
	socketBackpressure = 500 * time.Millisecond
)

// stalled is how long after the last Done the messages counted as in flight are given up:
// WireGuard has refused them.
const stalled = 200 * time.Millisecond

// A Sender carries WireGuard messages to nodes. A relay connection is one.
type Sender interface {
	// SendPackets sends each of bufs to a node. It copies them. It may block
	// while the path is full and may be called by many goroutines. Delivery
	// is not certain.
	SendPackets(to cert.NodeID, bufs [][]byte) error
}

// A TrySender is a Sender that need not block.
type TrySender interface {
	Sender
	// TrySendPackets is SendPackets, but drops what finds no room. It returns how many of
	// bufs have found room.
	TrySendPackets(to cert.NodeID, bufs [][]byte) (int, error)
}

// Config configures New.
type Config struct {
	// UnknownSender is called with each message of an unknown sender: a node without an
	// Endpoint. pkt is valid until it returns. It runs on the goroutine of the Source and
	// must not block. nil: the message is dropped.
	UnknownSender func(from cert.NodeID, pkt []byte)

	// Listen opens the UDP sockets: Listen of this package, or ListenPacket of an
	// overlaytest.Host. network is "udp" or "udp4", address ":PORT". Its result must have
	// the methods ReadFromUDPAddrPort and WriteToUDPAddrPort. nil: there are no sockets.
	Listen func(network, address string) (net.PacketConn, error)

	// Port is the local port of the main socket; 0 is a random one.
	Port uint16

	// STUN and Probe are called with the datagrams of their kind; see the package
	// comment. from is Direct, or RelayedUDP for a relayed probe. pkt is valid until they
	// return. nil: the datagram is dropped.
	STUN  func(pkt []byte, from Path)
	Probe func(pkt []byte, from Path)

	// LaneControl is called in the same way with control datagrams about a lane.
	LaneControl func(pkt []byte, from Path)

	// SendFailed is called, at most ten times a second for each SetPath, with the error of
	// sending on ep's path w: syscall.EMSGSIZE when a datagram is too long for the
	// interface, ENETUNREACH, EHOSTUNREACH, EPERM, ErrNoSocket, and so on. It runs on the
	// goroutine that sends and must not block. May be nil.
	SendFailed func(ep *Endpoint, w Path, err error)
}

// Bind implements conn.Bind. Its methods may be called from any goroutine.
type Bind struct {
	// Constant after New.
	unknownSender func(cert.NodeID, []byte)
	openSocket    func(network, address string) (net.PacketConn, error) // nil: none
	wantPort      uint16
	onSTUN        func([]byte, Path)
	onProbe       func([]byte, Path)
	onLane        func([]byte, Path)
	onSendFailed  func(*Endpoint, Path, error)
	ready         chan *chunk
	pool          sync.Pool // of *chunk

	main   atomic.Pointer[Socket] // nil while there is none
	inlets atomic.Pointer[inlets] // immutable; replaced with mu held

	endpoints atomic.Pointer[map[cert.NodeID]*Endpoint] // immutable; replaced with mu held
	dropped   atomic.Uint64
	lagging   atomic.Bool // a source has waited for WireGuard in vain

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
		unknownSender: cfg.UnknownSender,
		openSocket:    cfg.Listen,
		wantPort:      cfg.Port,
		onSTUN:        cfg.STUN,
		onProbe:       cfg.Probe,
		onLane:        cfg.LaneControl,
		onSendFailed:  cfg.SendFailed,
		ready:         make(chan *chunk, QueueChunks),
		extra:         make(map[*Socket]bool),
		listenErr:     ErrNoSocket,
	}
	if b.unknownSender == nil {
		b.unknownSender = func(cert.NodeID, []byte) {}
	}
	if b.onSTUN == nil {
		b.onSTUN = func([]byte, Path) {}
	}
	if b.onLane == nil {
		b.onLane = func([]byte, Path) {}
	}
	if b.onProbe == nil {
		b.onProbe = func([]byte, Path) {}
	}
	if b.onSendFailed == nil {
		b.onSendFailed = func(*Endpoint, Path, error) {}
	}
	b.inlets.Store(&inlets{direct: map[origin]*inlet{}, lanes: map[lane.ID]*inlet{}})
	b.pool.New = func() any { return &chunk{buf: make([]byte, 0, chunkSize)} }
	b.endpoints.Store(&map[cert.NodeID]*Endpoint{})
	return b
}

// NewEndpoint makes the endpoint of a node, for sending to it. ip is the node's overlay
// address, by which WireGuard limits the rate of handshakes. Messages from the node go to
// Config.UnknownSender until Admit.
func NewEndpoint(id cert.NodeID, ip netip.Addr) *Endpoint {
	ep := &Endpoint{id: id, name: id.String(), ip: ip, moved: make(chan struct{}, 1)}
	ep.most, ep.page = inFlightBounds(limited.Memory())
	return ep
}

// Admit lets messages from ep's node in. WireGuard must have the peer by then: it drops
// messages of unknown peers, whose sender would have to wait and try again.
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

// Drop removes the endpoint of a node and its verified paths. From now on the node is an
// unknown sender, and messages to it are lost.
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
	ep.path.Store(nil)
	ep.SetSender(nil)
}

// Open implements conn.Bind. wireguard-go calls it. If the main socket cannot be opened,
// there is none until the next Open: see ListenError.
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

// Close implements conn.Bind. wireguard-go calls it, also before Open. It closes all
// sockets and waits for the goroutines that read the extra ones. The receive functions
// return net.ErrClosed afterwards.
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

// SetMark implements conn.Bind. It does nothing: weft sets no mark.
func (b *Bind) SetMark(uint32) error { return nil }

// BatchSize implements conn.Bind.
func (b *Bind) BatchSize() int {
	if b.openSocket == nil {
		return RelayBatchSize
	}
	return batchSize(limited.Memory())
}

// batchSize returns the batch size for a machine with this many bytes of memory.
// WireGuard has two batches of buffers of 64 KB.
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
