// Package relayserver is the relay. It forwards encrypted frames between the nodes of a
// network that are connected to it, and has no key to decrypt them. Package relay has the
// frames and the node's half.
//
// How a packet travels: client.read (one goroutine per client, no buffer while idle) cuts
// the input into frames, joins consecutive ones to the same destination into a run,
// writes the sender into them in place and appends the run to the destination's queue
// under one lock. client.write (a goroutine that exists only while there is something to
// write) takes what is queued, control and introduction frames first, then packets round
// robin by sender, and sends it with few large system calls.
//
// A queue has at most 256 KB. When it is full and the destination is taking data, the
// goroutine that reads the sender waits for a moment, so that TCP slows the sender down.
// A destination that takes no data loses its packets and delays nobody.
//
// Two connected nodes may ask for a lane (lanes.go), for relayed UDP: ServeUDP (udp.go)
// forwards their datagrams and answers STUN on one UDP port. A lane ends with either
// connection.
//
// The relay stores nothing. Its reports of presence carry a connection number that keeps
// growing across restarts, so that late reports are recognised.
//
// Not for embedders: a relay is run as weft-server, or as weft-server relay.
package relayserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
)

// Event says that a node's home connection was made or has ended.
type Event struct {
	Network cert.NetworkID
	Node    cert.NodeID
	// Conn grows with every connection. An event with a lower number than the last one of
	// its node is late: ignore it.
	Conn   uint64
	Online bool
	At     time.Time
	Addr   netip.AddrPort // as the relay sees it; zero when unknown
}

// Limits bound the work that clients can cause. Zero fields mean the defaults in
// parentheses.
type Limits struct {
	// New destinations of one client: how many per minute (20) and at once (100), and for
	// nodes with tags (5, 20). A node with which it has exchanged frames within 15
	// minutes is not new.
	NewPerMinute, NewBurst             int
	TaggedNewPerMinute, TaggedNewBurst int
	// Clients over all networks (unlimited).
	Clients int
	// Lanes for which one client has asked (256), and all together (65,536).
	LanesPerClient, Lanes int
	// LaneIdle is after how long without a datagram a lane ends (2 minutes), give or take
	// 30 s. Whole seconds.
	LaneIdle time.Duration
	// LaneRate is how many bytes per second one client may send through all its lanes
	// together (unlimited). The relay drops more.
	LaneRate int
}

// Config configures New. The functions are called from many goroutines; none but Verify
// may block for long.
type Config struct {
	// Verify returns the node of a client certificate. Any error refuses the client.
	Verify func(leaf *x509.Certificate) (network cert.NetworkID, node cert.NodeID, tagged bool, err error)
	// Versions returns the current versions for a node. nil: nobody is nudged.
	Versions func(cert.NetworkID, cert.NodeID) api.Versions
	// Changes returns the delta from a node's version of the directory to the current
	// one, for the nudge; nil when it is empty or too long. Only the relay of a
	// coordination server has it; nil: nodes fetch.
	Changes func(network cert.NetworkID, node cert.NodeID, held api.Version) *api.Changes
	// Holds is called with the versions that a node says it has. May be nil.
	Holds func(cert.NetworkID, cert.NodeID, api.Versions)
	// CRL returns the current CRL of a network for clients that say they have an older
	// one; nil: they are nudged and fetch it.
	CRL func(cert.NetworkID) []byte
	// Away reports whether the coordination server is unreachable; nil: never.
	Away func() bool
	// Presence is called when a home connection was made or has ended. May be nil.
	Presence func(Event)
	// Alert is called when the connections of one NodeID replace each other three times
	// within a minute: two machines use one identity. At most every 10 minutes per node.
	// May be nil.
	Alert func(cert.NetworkID, cert.NodeID)
	// Now returns the time to send to clients; nil: time.Now.
	Now    func() time.Time
	Log    *slog.Logger // nil: nothing is logged
	Limits Limits

	unversioned bool
}

const (
	pingAfter    = 120 * time.Second
	pingAnswer   = 20 * time.Second
	probeAfter   = 10 * time.Second
	probeAnswer  = 2 * time.Second  // or longer if the client's answers are known to be slow …
	probeMost    = 10 * time.Second // … up to this, so that those who wait get their answer in time
	probeAsk     = 800 * time.Millisecond
	nudgeEvery   = 30 * time.Second
	changesEvery = time.Second // to one client: more often, a fetch is cheaper
	lastWords    = time.Second // for a client to read the last frame
	kickMemory   = time.Minute
	spreadAbove  = 1000
	backPerSec   = 500 // idle clients that reconnect per second after a restart
	crlPerSecond = 500
	unsentLimit  = 128 << 10
)

// Server is one relay.
type Server struct {
	// constant after New
	cfg     Config
	started time.Time
	numbers atomic.Uint64
	ctx     context.Context // ends at Shutdown
	cancel  context.CancelFunc
	wg      sync.WaitGroup // clients and helpers
	lanes   lanes

	// Counters, for Stats.
	clients           atomic.Int64
	bytes, dropped    atomic.Uint64
	refused, replaced atomic.Uint64

	mu sync.RWMutex
	// mu guards the following. It is taken before a client's mutex, never
	// while one is held.
	closed   bool
	networks map[cert.NetworkID]*network
	kicked   map[address]int64 // when, by now
	flips    map[address]*flips
	swept    int64 // when old entries were last removed from flips

	nudgeMu sync.Mutex
	// nudgeMu guards the following; it is taken while no other is held.
	behind     map[*client]int64 // clients whose versions differ, and when they were last nudged
	nudgeTimer *time.Timer
	pushes     map[cert.NetworkID]context.CancelFunc // CRL pushes in progress
}

type address struct {
	network cert.NetworkID
	node    cert.NodeID
}

// network holds the clients of one network. Server.mu guards it.
type network struct {
	id      cert.NetworkID
	clients map[cert.NodeID]*client
}

// New makes a relay. Serve and ServeUDP give it connections and sockets.
func New(cfg Config) *Server {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Versions == nil {
		cfg.Versions = func(cert.NetworkID, cert.NodeID) api.Versions { return api.Versions{} }
		cfg.unversioned = true
	}
	if cfg.Away == nil {
		cfg.Away = func() bool { return false }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &cfg.Limits
	for _, d := range []struct {
		v *int
		n int
	}{{&l.NewPerMinute, 20}, {&l.NewBurst, 100}, {&l.TaggedNewPerMinute, 5}, {&l.TaggedNewBurst, 20}, {&l.LanesPerClient, 256}, {&l.Lanes, 1 << 16}} {
		if *d.v == 0 {
			*d.v = d.n
		}
	}
	if l.LaneIdle == 0 {
		l.LaneIdle = 2 * time.Minute
	}
	s := &Server{
		cfg:      cfg,
		started:  time.Now(),
		networks: map[cert.NetworkID]*network{},
		kicked:   map[address]int64{},
		flips:    map[address]*flips{},
		behind:   map[*client]int64{},
		pushes:   map[cert.NetworkID]context.CancelFunc{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.lanes.s, s.lanes.secret = s, newSecret()
	s.numbers.Store(uint64(cfg.Now().UnixMicro())) // grows across restarts if there are fewer than a million connections a second
	return s
}

// now returns nanoseconds since New, never 0.
func (s *Server) now() int64 { return int64(time.Since(s.started)) + 1 }

// Serve handles one connection whose TLS handshake is complete, until it ends, ctx ends,
// or the relay disconnects the client. The caller closes it.
func (s *Server) Serve(ctx context.Context, tc *tls.Conn) {
	if lc := link.Of(tc); lc != nil {
		lc.Tune(unsentLimit)
	}
	certs := tc.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return
	}
	s.serve(ctx, tc, certs[0])
}

func (s *Server) serve(ctx context.Context, nc net.Conn, leaf *x509.Certificate) {
	began := s.now()
	network, node, tagged, err := s.cfg.Verify(leaf)
	if err != nil {
		s.refuse(nc, err)
		return
	}
	c := newClient(s, nc, node, tagged)
	c.control = relay.AppendFrame(nil, relay.TypeWelcome, mustJSON(relay.Welcome{ServerTime: s.cfg.Now(), Versions: s.cfg.Versions(network, node), SpreadMS: s.spreadBack(), Lanes: true, Away: s.cfg.Away()}))
	holder, err := s.register(c, network, began, nil)
	if holder != nil && !holder.answers(ctx) {
		_, err = s.register(c, network, began, holder)
	}
	if err != nil {
		s.refuse(nc, err)
		return
	}
	defer s.wg.Done()
	stop := context.AfterFunc(ctx, c.close)
	c.mu.Lock()
	c.wakeLocked()
	c.mu.Unlock()
	err = c.read()
	stop()
	c.close()
	s.unregister(c)
	c.wg.Wait()
	s.cfg.Log.Debug("client left", "node", node, "err", err)
}

// refuse sends the reason and gives the client a moment to read it.
func (s *Server) refuse(nc net.Conn, err error) {
	s.refused.Add(1)
	reason := relay.RefusedUnknown
	switch err {
	case errFull:
		reason = relay.RefusedFull
	case net.ErrClosed:
		return
	}
	s.cfg.Log.Debug("client refused", "remote", nc.RemoteAddr(), "err", err)
	nc.SetDeadline(time.Now().Add(lastWords))
	if err == errHeld {
		// The same answer as if it had connected and been replaced at once: it learns
		// that there is another, and waits.
		nc.Write(relay.AppendFrame(nil, relay.TypeReplaced, nil))
	} else {
		nc.Write(relay.AppendFrame(nil, relay.TypeRefused, []byte{byte(reason)}))
	}
	drain(nc)
}

// drain reads until the client closes or the deadline passes: closing with unread bytes
// would reset the connection, and the last frame would be lost.
func drain(nc net.Conn) {
	var b [512]byte
	for {
		if _, err := nc.Read(b[:]); err != nil {
			return
		}
	}
}

// Stats counts what the relay has done since New.
type Stats struct {
	Clients           int
	Bytes             uint64 // of packet and introduction frames received
	Dropped           uint64 // bytes of those that were dropped for want of room
	Refused, Replaced uint64 // connections
	Lanes             int
	LaneBytes         uint64 // of lane datagrams forwarded
	LaneDropped       uint64 // bytes of those that were dropped: no room, no destination or over the rate
}

// Relayed returns how many bytes were sent on between nodes.
func (s Stats) Relayed() uint64 { return s.Bytes - s.Dropped + s.LaneBytes }

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.lanes.mu.Lock()
	n := s.lanes.sides / 2
	s.lanes.mu.Unlock()
	return Stats{int(s.clients.Load()), s.bytes.Load(), s.dropped.Load(), s.refused.Load(), s.replaced.Load(), n, s.lanes.bytes.Load(), s.lanes.dropped.Load()}
}

// spreadBack is over how many milliseconds idle clients should spread their
// reconnections.
func (s *Server) spreadBack() int {
	return int(min(max(s.clients.Load()*1000/backPerSec, 300), 30_000))
}

// Shutdown sends every client a draining frame, waits a moment for the frames to be sent
// (until ctx ends, 250 ms at most), closes all connections and waits for their
// goroutines.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	var all []*client
	for _, n := range s.networks {
		for _, c := range n.clients {
			all = append(all, c)
		}
	}
	s.mu.Unlock()
	body := mustJSON(relay.Draining{SpreadMS: s.spreadBack()})
	for _, c := range all {
		c.send(relay.TypeDraining, body)
	}
	if len(all) > 0 {
		t := time.NewTimer(250 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	s.cancel()
	s.lanes.stop()
	s.nudgeMu.Lock()
	if s.nudgeTimer != nil {
		s.nudgeTimer.Stop()
	}
	s.nudgeMu.Unlock()
	for _, c := range all {
		c.close()
	}
	s.wg.Wait()
	return nil
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own structs can always be marshalled
	}
	return b
}
