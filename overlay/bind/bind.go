// Package bind is the transport of WireGuard messages: wireguard-go's conn.Bind
// over the node's relay connections.
//
// # Endpoints
//
// An Endpoint is a peer, not an address: it is named by the peer's NodeID, and
// where its messages go is decided underneath, by the Sender that it holds at
// the moment. WireGuard never learns of it, and no packet can move it.
//
// # Inwards
//
//	relay's read goroutine: Source.Deliver (copies into a chunk) ... Source.Flush
//	  -> queue of chunks, bounded
//	wireguard-go's receive goroutine: receive -> wireguard's buffers
//
// A Source belongs to the goroutine that reads one relay connection. It fills
// pooled chunks of 64 KB and hands them over whole, when full or when Flush says
// that no more input is waiting, so that a batch costs one wake-up. At most
// QueueChunks chunks wait for the receive goroutine; then Flush waits too, and
// after 50 ms drops. At most MaxInFlight data messages of one peer are between
// Deliver and Endpoint.Done, because each occupies a 64 KB buffer inside
// wireguard-go; more are dropped at once, so that one peer does not hold up the
// others. Messages of a node without Endpoint go to Config.Stranger.
//
// # Outwards
//
// Send passes a batch to the endpoint's Sender, which copies it and may block
// (backpressure). Without a Sender, or when it fails, the messages are dropped:
// to WireGuard and to what it carries that is packet loss, which both can deal
// with, so Send returns no error.
//
// Neither direction takes a lock or allocates in the steady state.
package bind

import (
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/cert"
)

const (
	// BatchSize is how many messages WireGuard takes at once. It keeps a
	// buffer of 64 KB for each; with messages of that size a larger batch
	// gains nothing.
	BatchSize = 8

	// QueueChunks bounds the chunks of 64 KB that wait for WireGuard's receive
	// goroutine, over all sources.
	QueueChunks = 32

	// MaxInFlight bounds the data messages of one peer between Deliver and
	// Done.
	MaxInFlight = 256

	// MaxMessage is the longest WireGuard message in bytes.
	MaxMessage = 65535
)

// backpressure is how long Flush waits for WireGuard.
const backpressure = 50 * time.Millisecond

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
}

// Bind implements conn.Bind. Its methods may be called from any goroutine.
type Bind struct {
	// Constant after New.
	stranger func(cert.NodeID, []byte)
	ready    chan *chunk
	pool     sync.Pool // of *chunk

	endpoints atomic.Pointer[map[cert.NodeID]*Endpoint] // replaced under mu, never changed
	dropped   atomic.Uint64
	lagging   atomic.Bool // a source waited for WireGuard in vain

	// mu guards the following.
	mu   sync.Mutex
	done chan struct{} // closed by Close; nil while not open
}

var _ conn.Bind = (*Bind)(nil)

// New makes a Bind without endpoints.
func New(cfg Config) *Bind {
	b := &Bind{stranger: cfg.Stranger, ready: make(chan *chunk, QueueChunks)}
	if b.stranger == nil {
		b.stranger = func(cert.NodeID, []byte) {}
	}
	b.pool.New = func() any { return &chunk{buf: make([]byte, 0, chunkSize)} }
	b.endpoints.Store(&map[cert.NodeID]*Endpoint{})
	return b
}

// NewEndpoint makes the endpoint of a node: a way to send to it. ip is the
// node's overlay address, by which WireGuard limits the rate of handshakes.
// What comes from the node goes to Config.Stranger until Admit.
func NewEndpoint(id cert.NodeID, ip netip.Addr) *Endpoint {
	return &Endpoint{id: id, name: id.String(), ip: ip}
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

// Drop forgets the endpoint of a node: its messages are a stranger's from now
// on, and what is sent to it is lost.
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
	ep.SetSender(nil)
}

// Dropped returns how many messages were dropped because WireGuard lagged
// behind.
func (b *Bind) Dropped() uint64 { return b.dropped.Load() }

// Open implements conn.Bind. It is called by wireguard-go.
func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	b.done = make(chan struct{})
	b.lagging.Store(false)
	r := &receiver{bind: b, done: b.done}
	return []conn.ReceiveFunc{r.receiveRelay}, port, nil
}

// Close implements conn.Bind. It is called by wireguard-go, also before Open.
// The receive function returns net.ErrClosed from then on.
func (b *Bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done != nil {
		close(b.done)
		b.done = nil
	}
	return nil
}

// SetMark implements conn.Bind: there is no socket to mark.
func (b *Bind) SetMark(uint32) error { return nil }

// BatchSize implements conn.Bind.
func (b *Bind) BatchSize() int { return BatchSize }

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
	ep.send(bufs)
	return nil
}
