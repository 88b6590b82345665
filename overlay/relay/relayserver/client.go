package relayserver

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
	"weft/overlay/rtt"
)

// A client's connection: its input (read, run, frame) and its end. contacts.go limits to
// whom it may send, deliver.go queues for another client, write.go sends what is queued,
// silence.go detects dead clients.

// recently bounds how long ago a node may have exchanged frames with a client to get a
// gone frame when the client leaves. contact.seen is updated once a minute only.
const recently = 2 * time.Minute

// client is one connection.
type client struct {
	// constant after register
	s      *Server
	c      net.Conn
	lc     *link.Conn // nil when c is not a link
	id     cert.NodeID
	tagged bool
	net    *network
	number uint64
	wg     sync.WaitGroup

	lastRx  atomic.Int64 // Server.now of the last input
	writing atomic.Int64 // when the write in progress began, 0: none
	gone    atomic.Bool  // closed: senders must look the node up again
	silent  atomic.Bool  // closed because it did not answer a ping

	// Bytes of packets, introduction frames and lane datagrams, for Traffic.
	sent, received atomic.Uint64

	laneRate rateLimit
	// Server.lanes.mu guards the following.
	lanes      map[cert.NodeID]*laneSide // by peer
	asked      int                       // how many lanes it has asked for
	lanesEnded bool                      // it gets no new lanes

	// Server.mu guards the following.
	process string // from its first relay.Holds; "": not stated
	after   string // process of the connection that it replaced, if any
	flipped int64  // when it replaced that one; an element of flips.at

	// Only the reading goroutine uses the following.
	identified bool // Server.identify was called

	last    *contact // destination of the last run
	lastID  cert.NodeID
	noted   int64 // when last.seen was last updated
	refused int64 // when a busy frame for a new destination was last sent
	mixed   int64 // until when this sender counts as sending to several nodes
	buckets float64
	filled  int64

	// comparing is held from the call of Config.Versions until the client's nudge is
	// queued, so that the client gets the newest versions last. Taken before mu.
	comparing sync.Mutex

	mu sync.Mutex
	// mu guards the following.
	closed      bool
	finishing   bool // the last frame is queued: nothing follows
	writer      bool // a goroutine is in write
	control     []byte
	crl         []byte // shared, immutable
	nudge       []byte // the latest one
	sessions    sched
	packets     sched
	room        chan struct{} // closed when the writer takes something; nil: nobody waits
	contacts    map[cert.NodeID]*contact
	held        api.Versions
	changed     int64        // when a nudge last carried new changes
	lastChanges *api.Changes // those; shared, immutable
	home        bool         // it has sent versions
	online      bool         // last reported to Config.Presence
	pingAt      int64
	trip        rtt.Estimate // of pings, and of the link's handshake
	timer       *time.Timer  // pings after silence
	probe       *probe
	unanswered  int64                     // when the last unanswered probe began, 0: none
	measures    map[[8]byte]chan struct{} // of Ping, by nonce
}

func newClient(s *Server, nc net.Conn, id cert.NodeID, tagged bool) *client {
	c := &client{s: s, c: nc, id: id, tagged: tagged, filled: s.now()}
	c.buckets = float64(c.burst())
	c.sessions.limit, c.packets.limit = sessionRoom, packetRoom
	if tc, ok := nc.(*tls.Conn); ok {
		c.lc = link.Of(tc)
	}
	if c.lc != nil {
		c.trip.Add(c.lc.Trip())
	}
	c.lastRx.Store(s.now())
	return c
}

// read handles frames until the connection ends.
func (c *client) read() error {
	r := relay.NewReader(c.c, relay.AtRelay)
	defer r.Release()
	for {
		if err := r.Fill(); err != nil {
			if errors.Is(err, relay.ErrFrame) {
				c.s.cfg.Log.Info("client sent malformed frames", "network", c.net.id, "node", c.id, "remote", c.c.RemoteAddr(), "err", err)
				c.finish(relay.TypeRefused, []byte{byte(relay.RefusedProtocol)})
				drain(c.c)
			}
			return err
		}
		if c.gone.Load() { // finishing: its input is ignored
			drain(c.c)
			return net.ErrClosed
		}
		now := c.s.now()
		c.lastRx.Store(now)
		for f := r.Next(); f != nil; {
			if relay.Type(f[0]) == relay.TypePacket {
				f = c.run(r, f, now)
				continue
			}
			if err := c.frame(f, now); err != nil {
				return err
			}
			f = r.Next()
		}
	}
}

// run forwards f and the packets after it for the same node, and returns the first frame
// that is none of these.
func (c *client) run(r *relay.Reader, f []byte, now int64) (next []byte) {
	to := relay.Peer(f)
	n := len(f)
	run := f[:n:cap(f)]
	relay.SetPeer(f, c.id)
	for {
		next = r.Next()
		if next == nil || relay.Type(next[0]) != relay.TypePacket || relay.Peer(next) != to {
			break
		}
		relay.SetPeer(next, c.id)
		n += len(next)
	}
	run = run[:n]
	c.s.bytes.Add(uint64(n))
	c.sent.Add(uint64(n))
	if dst := c.destination(to, now, false); dst != nil {
		dst.deliver(c, run, now)
	}
	return next
}

// frame handles a frame that is not a packet.
func (c *client) frame(f []byte, now int64) error {
	body := f[relay.HeadLen:]
	switch relay.Type(f[0]) {
	case relay.TypeSession:
		to := relay.Peer(f)
		relay.SetPeer(f, c.id)
		c.s.bytes.Add(uint64(len(f)))
		c.sent.Add(uint64(len(f)))
		if dst := c.destination(to, now, true); dst != nil {
			dst.introduce(c, f, now)
		}
	case relay.TypePing:
		c.send(relay.TypePong, body)
	case relay.TypePong:
		c.measured(body, now)
	case relay.TypeLane:
		c.lane(relay.Peer(f), now)
	case relay.TypeVersions:
		var h relay.Holds
		if err := json.Unmarshal(body, &h); err != nil {
			return fmt.Errorf("%w: %w", relay.ErrFrame, err)
		}
		if !c.identified {
			c.identified = true
			c.s.identify(c, h.Process)
		}
		c.versions(h.Versions)
	}
	return nil
}

// finish queues the last frame. The client then has a second to close the connection.
func (c *client) finish(t relay.Type, body []byte) {
	f := relay.AppendFrame(nil, t, body)
	c.gone.Store(true)
	c.s.lanes.end(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.finishing {
		return
	}
	c.finishing = true
	c.packets.clear()
	c.sessions.clear()
	c.crl, c.nudge = nil, nil
	c.control = append(c.control, f...)
	c.wakeLocked()
	c.timer.Stop()
	c.timer = time.AfterFunc(lastWords, c.close)
	c.c.SetReadDeadline(time.Now().Add(lastWords))
}

// close ends the connection at once, without blocking.
func (c *client) close() {
	c.gone.Store(true)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	c.timer.Stop()
	if c.probe != nil {
		c.probe.timer.Stop()
	}
	tell := c.leftBehindLocked()
	c.probe = nil
	c.packets.clear()
	c.sessions.clear()
	c.control, c.crl, c.nudge = nil, nil, nil
	for _, done := range c.measures {
		close(done) // Ping sees that gone is set
	}
	c.measures = nil
	c.roomLocked()
	c.mu.Unlock()
	link.CloseNow(c.c)
	c.s.lanes.end(c)
	if cur := c.s.find(c.net, c.id); cur != nil && cur != c || c.s.ctx.Err() != nil {
		return // it has reconnected already, or the relay is shutting down
	}
	for _, id := range tell {
		if from := c.s.find(c.net, id); from != nil {
			from.sendPeer(relay.TypeGone, c.id, byte(relay.GoneAbsent))
		}
	}
}

// leftBehindLocked returns the nodes that may be waiting for an answer of this one: they
// have asked for it, or exchanged frames with it lately.
func (c *client) leftBehindLocked() []cert.NodeID {
	var ids []cert.NodeID
	if c.probe != nil {
		ids = append(ids, c.probe.waiters...)
	}
	now := c.s.now()
	for id, ct := range c.contacts {
		if len(ids) >= maxWaiters {
			break
		}
		if now-ct.seen < int64(recently) {
			ids = append(ids, id)
		}
	}
	return ids
}

// presence reports a change to Config.Presence.
func (c *client) presence(online bool) {
	c.mu.Lock()
	tell := c.online != online
	c.online = online
	c.mu.Unlock()
	if tell && c.s.cfg.Presence != nil {
		addr, _ := netip.ParseAddrPort(c.c.RemoteAddr().String())
		at := c.s.cfg.Now()
		if !online && c.silent.Load() {
			at = at.Add(-time.Duration(c.s.now() - c.lastRx.Load()))
		}
		c.s.cfg.Presence(Event{c.net.id, c.id, c.number, online, at, addr})
	}
}
