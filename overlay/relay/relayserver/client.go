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

// A client's connection: what comes in (read, run, frame), and its end.
// contacts.go says who it may send to, deliver.go queues for another client,
// write.go sends what is queued, silence.go finds out who vanished.

// recently is how long ago somebody may have sent to a client to be told
// when it goes; contacts are noted once a minute.
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
	writing atomic.Int64 // when the write under way began, 0: none
	gone    atomic.Bool  // closed: senders should look again
	silent  atomic.Bool  // closed because it did not answer

	laneRate rateLimit
	// Server.lanes.mu guards the following.
	lanes      map[cert.NodeID]*laneSide // by peer
	asked      int                       // lanes that it asked for
	lanesEnded bool                      // it gets no more

	// Server.mu guards the following.
	process string // of its first relay.Holds; "": not said
	after   string // that of the connection whose place it took, if it did
	flipped int64  // when; it is in flips.at

	// Only the reading goroutine uses the following.
	identified bool // Server.identify was told

	last    *contact // of the last run
	lastID  cert.NodeID
	noted   int64 // when last was last marked as seen
	refused int64 // when a new destination was last hinted at
	mixed   int64 // until when this sender counts as sending to many
	buckets float64
	filled  int64

	// comparing is held from when the current versions are asked for to when the
	// client is told, so that it is told last what was so last: before mu.
	comparing sync.Mutex

	mu sync.Mutex
	// mu guards the following.
	closed   bool
	last1    bool // finishing: nothing more is queued
	writer   bool // a goroutine is in write
	control  []byte
	crl      []byte // shared, not to be changed
	nudge    []byte // the latest
	sessions sched
	packets  sched
	room     chan struct{} // closed when the writer took something; nil: nobody waits
	contacts map[cert.NodeID]*contact
	held     api.Versions
	changed  int64        // when a nudge last brought new changes along
	told     *api.Changes // those; shared, not to be changed
	home     bool         // it said which versions it holds
	online   bool         // Presence was told
	pingAt   int64
	trip     rtt.Estimate // of pings, and of the link's handshake
	timer    *time.Timer  // pings after silence
	probe    *probe
	unheard  int64                     // when the last probe began that nobody answered, 0: none
	measures map[[8]byte]chan struct{} // by Ping
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

// read takes frames until the end.
func (c *client) read() error {
	r := relay.NewReader(c.c, relay.AtRelay)
	defer r.Release()
	for {
		if err := r.Fill(); err != nil {
			if errors.Is(err, relay.ErrFrame) {
				c.s.cfg.Log.Info("client sent junk", "network", c.net.id, "node", c.id, "remote", c.c.RemoteAddr(), "err", err)
				c.finish(relay.TypeRefused, []byte{byte(relay.RefusedProtocol)})
				drain(c.c)
			}
			return err
		}
		if c.gone.Load() { // finishing: what it still says counts no more
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

// run forwards f and the packets behind it that go to the same node, and
// returns the first frame that does not.
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
	if dst := c.destination(to, now, false); dst != nil {
		dst.deliver(c, run, now)
	}
	return next
}

// frame handles what is not a packet.
func (c *client) frame(f []byte, now int64) error {
	body := f[relay.HeadLen:]
	switch relay.Type(f[0]) {
	case relay.TypeSession:
		to := relay.Peer(f)
		relay.SetPeer(f, c.id)
		c.s.bytes.Add(uint64(len(f)))
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

// finish queues a last frame, after which the client has a second to close.
func (c *client) finish(t relay.Type, body []byte) {
	f := relay.AppendFrame(nil, t, body)
	c.gone.Store(true)
	c.s.lanes.end(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.last1 {
		return
	}
	c.last1 = true
	c.packets.clear()
	c.sessions.clear()
	c.crl, c.nudge = nil, nil
	c.control = append(c.control, f...)
	c.wakeLocked()
	c.timer.Stop()
	c.timer = time.AfterFunc(lastWords, c.close)
	c.c.SetReadDeadline(time.Now().Add(lastWords))
}

// close ends the connection at once. It waits for nothing.
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
		close(done) // gone is set
	}
	c.measures = nil
	c.roomLocked()
	c.mu.Unlock()
	link.CloseNow(c.c)
	c.s.lanes.end(c)
	if cur := c.s.find(c.net, c.id); cur != nil && cur != c || c.s.ctx.Err() != nil {
		return // it is back already, or everybody has to look for another relay
	}
	for _, id := range tell {
		if from := c.s.find(c.net, id); from != nil {
			from.sendPeer(relay.TypeGone, c.id, byte(relay.GoneAbsent))
		}
	}
}

// leftBehindLocked returns the nodes that may be waiting for this one's
// answer: they asked for it, or exchanged frames with it lately.
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

// presence tells Config.Presence, once each way.
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
