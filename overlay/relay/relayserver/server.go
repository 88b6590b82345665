// Package relayserver is the relay: it forwards sealed frames between the
// nodes that are connected to it, within one network, and knows no key that
// opens them. Package relay has the frames and the node's half.
//
// The way of a packet: client.read (one goroutine per client, no buffer while
// idle) cuts frames, merges those that follow each other to one destination
// into a run, writes the sender into them in place and hands the run to the
// destination's queue under one lock; client.write (a goroutine only while
// there is something to write) takes what is queued, control and introduction
// frames first, then packets round robin by sender, and sends it as few large
// system calls.
//
// A queue holds at most 256 KB. When it is full, the goroutine that reads the
// sender waits for a moment if the destination is taking data, so that TCP
// slows the sender down; a destination that is not taking data loses its
// packets and holds nobody up.
//
// Two nodes that are both connected may ask for a lane (lanes.go): ServeUDP
// (udp.go) forwards their datagrams, beside STUN, on one UDP port. A lane ends
// with either connection.
//
// Nothing is stored. What the relay says about presence is fenced by a
// connection number that grows also across restarts.
//
// Not for embedders: a relay is run as weft-server, or as weft-server relay.
package relayserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
)

// Event says that a node's home connection came or went.
type Event struct {
	Network cert.NetworkID
	Node    cert.NodeID
	// Conn grows with every connection: an event with a lower number than
	// the last one seen of a node is late and means nothing.
	Conn   uint64
	Online bool
	At     time.Time
	Addr   netip.AddrPort // as the relay sees it, zero when not known
}

// Limits bound what one client can make others do. Zero fields have the
// defaults in parentheses.
type Limits struct {
	// New destinations per client: so many per minute (20), so many at once
	// (100), and for nodes with tags (5, 20). Who was sent to, or heard from,
	// within 15 minutes is not new.
	NewPerMinute, NewBurst             int
	TaggedNewPerMinute, TaggedNewBurst int
	// Clients over all networks (unlimited).
	Clients int
	// UDP lanes: that one client asked for (256) and all together (65,536).
	LanesPerClient, Lanes int
	// LaneIdle is after how long without a datagram a lane is forgotten (2
	// minutes), give or take 30 s. Whole seconds.
	LaneIdle time.Duration
	// LaneRate is how many bytes per second one client may send through all
	// its lanes together (unlimited). More is dropped.
	LaneRate int
}

// Config says who may connect and who is told. The functions are called from
// many goroutines; all but Verify must not wait long.
type Config struct {
	// Verify returns who a client certificate is. An error, whatever the
	// reason, refuses the client.
	Verify func(leaf *x509.Certificate) (network cert.NetworkID, node cert.NodeID, tagged bool, err error)
	// Versions returns the current versions for a node. nil: nobody is nudged.
	Versions func(cert.NetworkID, cert.NodeID) api.Versions
	// Changes returns what leads a node from the directory that it holds to the
	// current one, nil when that is long or nothing: the nudge brings it along.
	// Only a relay that is the coordination server has it; nil: nodes fetch.
	Changes func(network cert.NetworkID, node cert.NodeID, held api.Version) *api.Changes
	// Holds is told which versions a node says it holds. May be nil.
	Holds func(cert.NetworkID, cert.NodeID, api.Versions)
	// CRL returns the current CRL of a network for clients that say they hold
	// an older one; nil: they are nudged and fetch it.
	CRL func(cert.NetworkID) []byte
	// Away reports whether the coordination server is out of reach; nil: never.
	Away func() bool
	// Presence is told when a home connection comes or goes. May be nil.
	Presence func(Event)
	// Alert is told when one NodeID's connections replace each other three
	// times within a minute: two machines use one identity. It is told every
	// 10 minutes at most. May be nil.
	Alert func(cert.NetworkID, cert.NodeID)
	// Now is the time that clients learn; nil: time.Now.
	Now    func() time.Time
	Log    *slog.Logger // nil: nothing is logged
	Limits Limits

	unversioned bool
}

const (
	pingAfter    = 120 * time.Second
	pingAnswer   = 20 * time.Second
	probeAfter   = 10 * time.Second
	probeAnswer  = 2 * time.Second  // or as long as it took before …
	probeMost    = 10 * time.Second // … but not longer, so that who waits hears in time
	probeAsk     = 800 * time.Millisecond
	nudgeEvery   = 30 * time.Second
	changesEvery = time.Second      // to one client: more often than that it is cheaper to let it fetch
	lastWords    = time.Second      // for a client to hear why it has to go
	flipWindow   = 75 * time.Second // a replaced node waits 30 s: three flips of a clone take a minute and some jitter
	flipAlert    = 3
	flipHold     = 5 * time.Minute  // after that many, who is there stays, if it answers
	flipAsk      = 2 * time.Second  // how long it has for that, and the least time between two questions
	alertEvery   = 10 * time.Minute // for one node
	maxProcess   = 64               // bytes of a relay.Holds.Process
	kickMemory   = time.Minute
	spreadAbove  = 1000
	backPerSec   = 500 // idle clients that come back per second after a restart
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
	kicked   map[address]int64 // when, see now
	flips    map[address]*flips
	swept    int64 // when flips was last rid of what is over

	nudgeMu sync.Mutex
	// nudgeMu guards the following; it is taken while no other is held.
	behind     map[*client]int64 // clients whose versions differ -> when they were last nudged
	nudgeTimer *time.Timer
	pushes     map[cert.NetworkID]context.CancelFunc // CRL pushes under way
}

type address struct {
	network cert.NetworkID
	node    cert.NodeID
}

// flips is how a NodeID's connections have replaced each other lately. That they
// do is normal once: a device comes back by another network, and its old
// connection does not know yet. What says that it is the same process on the same
// machine (relay.Holds) does not count. Two machines with one identity do it for
// ever; each has been asked to wait then, but need not. So after some flips the
// connection there is stays for a while, if it answers: a device whose old one is
// dead gets in all the same. Server.mu guards it.
type flips struct {
	at      []int64
	hold    int64 // until when who is there stays
	asked   int64 // when it was last asked whether it is
	alerted int64 // when Alert was last told, 0: never
}

// network is the clients of one network. Server.mu guards it.
type network struct {
	id      cert.NetworkID
	clients map[cert.NodeID]*client
}

// New makes a relay. Connections come through Serve.
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
	s.numbers.Store(uint64(cfg.Now().UnixMicro())) // fewer than a million connections a second
	return s
}

// now counts nanoseconds since New, never 0.
func (s *Server) now() int64 { return int64(time.Since(s.started)) + 1 }

// Serve handles one connection whose TLS handshake is complete, until it
// ends, ctx ends, or the relay has had enough of it. The caller closes it.
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

// refuse says no and leaves the client a moment to hear it.
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
		// As if it had got in and been replaced at once: so it knows that there is
		// another, and waits.
		nc.Write(relay.AppendFrame(nil, relay.TypeReplaced, nil))
	} else {
		nc.Write(relay.AppendFrame(nil, relay.TypeRefused, []byte{byte(reason)}))
	}
	drain(nc)
}

// drain reads until the other side is gone or the deadline is over: closing
// with unread bytes would reset the connection and take the last words along.
func drain(nc net.Conn) {
	var b [512]byte
	for {
		if _, err := nc.Read(b[:]); err != nil {
			return
		}
	}
}

var (
	errKicked = errors.New("kicked while it connected")
	errFull   = errors.New("the relay is full")
	errHeld   = errors.New("connections of this node have replaced each other too often, and the one that is there answers")
)

// register makes c the connection of its NodeID. began is when its
// certificate was about to be verified: a node kicked since then stays out.
//
// After too many flips errHeld stands in the way of all but silent, which has been
// asked and has not answered. The holder is returned if it may be asked.
func (s *Server) register(c *client, id cert.NetworkID, began int64, silent *client) (holder *client, err error) {
	s.mu.Lock()
	at := address{id, c.id}
	f := s.flips[at]
	var old *client
	if n := s.networks[id]; n != nil {
		old = n.clients[c.id]
	}
	switch {
	case s.closed:
		err = net.ErrClosed
	case s.kicked[at] >= began:
		err = errKicked
	case s.cfg.Limits.Clients > 0 && s.clients.Load() >= int64(s.cfg.Limits.Clients):
		err = errFull
	case old != nil && old != silent && f != nil && s.now() < f.hold:
		err = errHeld
		if now := s.now(); now-f.asked >= int64(flipAsk) {
			f.asked, holder = now, old
		}
	}
	if err != nil {
		s.mu.Unlock()
		return holder, err
	}
	s.wg.Add(1)
	c.mu.Lock()
	c.timer = time.AfterFunc(pingAfter, c.tick)
	c.mu.Unlock()
	n := s.networks[id]
	if n == nil {
		n = &network{id: id, clients: map[cert.NodeID]*client{}}
		s.networks[id] = n
	}
	c.net = n
	c.number = s.numbers.Add(1)
	n.clients[c.id] = c
	s.clients.Add(1)
	alert := false
	if old != nil {
		s.clients.Add(-1)
		c.flipped, c.after = s.now(), old.process
		alert = s.flippedLocked(at, c.flipped)
	}
	s.mu.Unlock()
	if old != nil {
		s.replaced.Add(1)
		old.finish(relay.TypeReplaced, nil)
	}
	if alert {
		s.cfg.Log.Warn("connections of one node replace each other: is its state on two machines?", "network", id, "node", c.id, "remote", c.c.RemoteAddr(), "other", old.c.RemoteAddr())
		if s.cfg.Alert != nil {
			s.cfg.Alert(id, c.id)
		}
	}
	return nil, nil
}

// flippedLocked notes that a node's connection replaced another, and reports
// whether somebody has to be told.
func (s *Server) flippedLocked(at address, now int64) (alert bool) {
	if now-s.swept > int64(time.Minute) {
		s.swept = now
		for a, f := range s.flips {
			if now-f.at[len(f.at)-1] > int64(alertEvery) {
				delete(s.flips, a)
			}
		}
	}
	f := s.flips[at]
	if f == nil {
		f = new(flips)
		s.flips[at] = f
	}
	f.at = recent(append(f.at, now), now-int64(flipWindow))
	if len(f.at) < flipAlert {
		return false
	}
	f.at = f.at[len(f.at)-1:]
	f.hold = now + int64(flipHold)
	if f.alerted != 0 && now-f.alerted < int64(alertEvery) {
		return false
	}
	f.alerted = now
	return true
}

// identify notes the process that c is of and, if that has replaced a connection of
// its own, takes the flip back. It comes with the connection's first words, so before
// any next flip.
func (s *Server) identify(c *client, process string) {
	if process == "" || len(process) > maxProcess {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.process = process
	at := address{c.net.id, c.id}
	f := s.flips[at]
	if c.after != process || f == nil {
		return
	}
	i := slices.Index(f.at, c.flipped)
	switch {
	case i < 0:
	case len(f.at) > 1:
		f.at = slices.Delete(f.at, i, i+1)
	case f.hold == 0:
		delete(s.flips, at)
	}
}

func recent(at []int64, since int64) []int64 {
	for len(at) > 0 && at[0] < since {
		at = at[1:]
	}
	return at
}

func (s *Server) unregister(c *client) {
	s.mu.Lock()
	if c.net.clients[c.id] == c {
		delete(c.net.clients, c.id)
		s.clients.Add(-1)
	}
	if len(c.net.clients) == 0 && s.networks[c.net.id] == c.net {
		delete(s.networks, c.net.id)
	}
	s.mu.Unlock()
	s.nudgeMu.Lock()
	delete(s.behind, c)
	s.nudgeMu.Unlock()
	c.presence(false)
}

// find returns the connection of a node in a network, nil when it has none.
func (s *Server) find(n *network, id cert.NodeID) *client {
	s.mu.RLock()
	defer s.mu.RUnlock()
	// n may have left the table and come back as another object.
	if now := s.networks[n.id]; now != nil {
		return now.clients[id]
	}
	return nil
}

// all returns the clients of a network.
func (s *Server) all(id cert.NetworkID) []*client {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.networks[id]
	if n == nil {
		return nil
	}
	out := make([]*client, 0, len(n.clients))
	for _, c := range n.clients {
		out = append(out, c)
	}
	return out
}

// Kick drops a node's connection at once. A connection that was being
// verified while Kick was called is refused, so call it after the change
// that makes Verify refuse.
func (s *Server) Kick(id cert.NetworkID, node cert.NodeID) {
	now := s.now()
	s.mu.Lock()
	for a, at := range s.kicked {
		if at < now-int64(kickMemory) {
			delete(s.kicked, a)
		}
	}
	s.kicked[address{id, node}] = now
	var c *client
	if n := s.networks[id]; n != nil {
		if c = n.clients[node]; c != nil {
			delete(n.clients, node)
			s.clients.Add(-1)
		}
	}
	s.mu.Unlock()
	if c != nil {
		c.finish(relay.TypeRefused, []byte{byte(relay.RefusedUnknown)})
	}
}

// Stats is what the relay did since New.
type Stats struct {
	Clients           int
	Bytes             uint64 // of packet and introduction frames taken in
	Dropped           uint64 // bytes of those that found no room
	Refused, Replaced uint64 // connections
	Lanes             int
	LaneBytes         uint64 // of lane datagrams sent on
	LaneDropped       uint64 // bytes of those that found no room, no way or were too many
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.lanes.mu.Lock()
	n := s.lanes.sides / 2
	s.lanes.mu.Unlock()
	return Stats{int(s.clients.Load()), s.bytes.Load(), s.dropped.Load(), s.refused.Load(), s.replaced.Load(), n, s.lanes.bytes.Load(), s.lanes.dropped.Load()}
}

// Online reports whether a node is connected, and since which connection.
func (s *Server) Online(id cert.NetworkID, node cert.NodeID) (conn uint64, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := s.networks[id]; n != nil {
		if c := n.clients[node]; c != nil {
			return c.number, true
		}
	}
	return 0, false
}

// spreadBack is over how many milliseconds idle clients come back.
func (s *Server) spreadBack() int {
	return int(min(max(s.clients.Load()*1000/backPerSec, 300), 30_000))
}

// Shutdown tells every client that the relay is draining, gives the words a
// moment to leave (until ctx ends, 250 ms at most), closes all connections
// and waits for their goroutines.
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
		panic(err) // plain structs of ours
	}
	return b
}
