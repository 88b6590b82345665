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

	"weft/coord/api"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
)

const (
	packetRoom  = 192 << 10
	sessionRoom = 64 << 10
	controlRoom = 16 << 10
	// batch is what one write takes: introduction frames up to their share,
	// and at least the longest packet frame.
	batch        = 128 << 10
	sessionShare = 48 << 10

	// patience is how long the reader of a sender waits for a destination
	// that is taking data, and how long that may have been in one write to
	// still count as such. A sender that sent to more than one node within
	// mixedFor has less of it: one of them must not hold up the others.
	patience      = 100 * time.Millisecond
	patienceMixed = 5 * time.Millisecond
	mixedFor      = time.Second
	// stuck is how long a write may take before the client is given up.
	stuck = 60 * time.Second

	contactFor  = 15 * time.Minute
	maxContacts = 4096
	maxWaiters  = 64
	hintEvery   = time.Second
	// recently is how long ago somebody may have sent to a client to be told
	// when it goes; contacts are noted once a minute.
	recently = 2 * time.Minute
)

var outPool = sync.Pool{New: func() any { b := make([]byte, 0, batch); return &b }}

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
	flips  []int64 // when this NodeID's connections replaced each other
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

	// Only the reading goroutine uses the following.
	last    *contact // of the last run
	lastID  cert.NodeID
	noted   int64 // when last was last marked as seen
	refused int64 // when a new destination was last hinted at
	mixed   int64 // until when this sender counts as sending to many
	buckets float64
	filled  int64

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
	home     bool // it said which versions it holds
	online   bool // Presence was told
	pingAt   int64
	timer    *time.Timer // pings after silence
	probe    *probe
	unheard  int64                     // when the last probe began that nobody answered, 0: none
	measures map[[8]byte]chan struct{} // by Ping
}

// contact is another node that this client exchanged frames with.
type contact struct {
	peer           *client // its connection when last looked up, may be nil
	seen           int64
	goneAt, busyAt int64 // when this client was last told so
}

// probe is a ping to a client not heard from, on behalf of senders of
// introduction frames.
type probe struct {
	at      int64
	asked   bool // a ping is on its way
	waiters []cert.NodeID
	timer   *time.Timer
}

func newClient(s *Server, nc net.Conn, id cert.NodeID, tagged bool) *client {
	c := &client{s: s, c: nc, id: id, tagged: tagged, filled: s.now()}
	c.buckets = float64(c.burst())
	c.sessions.limit, c.packets.limit = sessionRoom, packetRoom
	if tc, ok := nc.(*tls.Conn); ok {
		c.lc = link.Of(tc)
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
		c.measured(body)
	case relay.TypeLane:
		c.lane(relay.Peer(f), now)
	case relay.TypeVersions:
		var v api.Versions
		if err := json.Unmarshal(body, &v); err != nil {
			return fmt.Errorf("%w: %w", relay.ErrFrame, err)
		}
		c.versions(v)
	}
	return nil
}

// destination returns the connection of a node, or nil after telling this
// client why there is none. New destinations are limited.
func (c *client) destination(to cert.NodeID, now int64, session bool) *client {
	if to != c.lastID || c.last == nil {
		if c.last != nil {
			c.mixed = now + int64(mixedFor)
		}
		c.last, c.lastID = c.contact(to, now), to
		if c.last == nil {
			return nil
		}
	}
	ct := c.last
	if now-c.noted > int64(time.Minute) {
		c.noted = now
		c.mu.Lock()
		ct.seen = now
		c.mu.Unlock()
	}
	if ct.peer == nil || ct.peer.gone.Load() {
		ct.peer = c.s.find(c.net, to)
		if ct.peer == nil {
			// Packets come by the thousand; who sends a session frame waits for
			// an answer to it.
			if session || ct.goneAt == 0 || now-ct.goneAt >= int64(hintEvery) {
				ct.goneAt = now
				c.sendPeer(relay.TypeGone, to, byte(relay.GoneAbsent))
			}
			return nil
		}
		ct.peer.met(c.id, now)
	}
	return ct.peer
}

// contact returns this client's record of a node. Only the reading goroutine
// changes records; the map is shared.
func (c *client) contact(to cert.NodeID, now int64) *contact {
	c.mu.Lock()
	defer c.mu.Unlock()
	ct := c.contacts[to]
	if ct == nil || now-ct.seen > int64(contactFor) {
		if !c.allowNew(now) {
			if c.refused == 0 || now-c.refused >= int64(hintEvery) {
				c.refused = now
				c.controlLocked(relay.AppendPeerFrame(nil, relay.TypeBusy, to, nil))
			}
			return nil
		}
		ct = c.addContactLocked(to, now)
	}
	ct.seen = now
	return ct
}

func (c *client) burst() int {
	if c.tagged {
		return c.s.cfg.Limits.TaggedNewBurst
	}
	return c.s.cfg.Limits.NewBurst
}

// allowNew is the bucket of new destinations.
func (c *client) allowNew(now int64) bool {
	rate := c.s.cfg.Limits.NewPerMinute
	if c.tagged {
		rate = c.s.cfg.Limits.TaggedNewPerMinute
	}
	c.buckets = min(c.buckets+float64(rate)*time.Duration(now-c.filled).Minutes(), float64(c.burst()))
	c.filled = now
	if c.buckets < 1 {
		return false
	}
	c.buckets--
	return true
}

func (c *client) addContactLocked(id cert.NodeID, now int64) *contact {
	if c.contacts == nil {
		c.contacts = map[cert.NodeID]*contact{}
	}
	if n := len(c.contacts); n >= 256 && n&(n-1) == 0 || n >= maxContacts {
		for k, ct := range c.contacts {
			if now-ct.seen > int64(contactFor) {
				delete(c.contacts, k)
			}
		}
		for k := range c.contacts {
			if len(c.contacts) < maxContacts {
				break
			}
			delete(c.contacts, k) // any
		}
	}
	ct := &contact{seen: now}
	c.contacts[id] = ct
	return ct
}

// met notes that another node sent something here: answering it needs no
// permit.
func (c *client) met(id cert.NodeID, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ct := c.contacts[id]; ct != nil {
		ct.seen = now
	} else if !c.closed {
		c.addContactLocked(id, now)
	}
}

// knows reports whether this client exchanged frames with any of the nodes.
func (c *client) knows(ids []cert.NodeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if c.contacts[id] != nil {
			return true
		}
	}
	return false
}

// deliver queues packets from another client, called by the goroutine that
// reads that one.
func (c *client) deliver(from *client, run []byte, now int64) {
	wait := patience
	if now < from.mixed {
		wait = patienceMixed
	}
	c.mu.Lock()
	for c.packets.bytes+len(run) > c.packets.limit && !c.closed && !c.last1 && c.taking(wait) {
		if n := c.packets.fits(run); n > 0 {
			c.packets.put(from.id, run[:n])
			run = run[n:]
			c.wakeLocked()
		}
		if !c.waitRoom(wait) {
			break
		}
	}
	if c.closed || c.last1 || len(run) == 0 {
		c.mu.Unlock()
		return
	}
	dropped := c.packets.put(from.id, run)
	c.wakeLocked()
	c.mu.Unlock()
	if dropped > 0 {
		c.s.dropped.Add(uint64(dropped))
		from.busy(c.id, now)
	}
}

// taking reports whether the client's socket took data within the last while.
func (c *client) taking(while time.Duration) bool {
	began := c.writing.Load()
	return began == 0 || time.Duration(c.s.now()-began) < while
}

// waitRoom waits for the writer to take something, mu held before and after,
// not between. It reports false when that took too long.
func (c *client) waitRoom(atMost time.Duration) bool {
	if c.room == nil {
		c.room = make(chan struct{})
	}
	room := c.room
	c.mu.Unlock()
	defer c.mu.Lock()
	t := time.NewTimer(atMost)
	defer t.Stop()
	select {
	case <-room:
		return true
	case <-t.C:
		return false
	}
}

// introduce queues one introduction frame. A client that was silent for long
// is asked whether it is still there.
func (c *client) introduce(from *client, f []byte, now int64) {
	c.mu.Lock()
	if c.closed || c.last1 {
		c.mu.Unlock()
		return
	}
	dropped := c.sessions.put(from.id, f)
	// One that did not answer the last time is not given another two seconds.
	silent := c.unheard != 0 && c.lastRx.Load() < c.unheard
	c.probeLocked(from.id, now)
	c.wakeLocked()
	c.mu.Unlock()
	if silent {
		from.sendPeer(relay.TypeGone, c.id, byte(relay.GoneSilent))
	}
	if dropped > 0 {
		c.s.dropped.Add(uint64(dropped))
		from.busy(c.id, now)
	}
}

// probeLocked tells from if nothing comes from this client in probeAnswer. One
// that has been silent for long is asked at once, another when it has had time
// to answer the frame itself: it may have vanished a moment ago.
func (c *client) probeLocked(from cert.NodeID, now int64) {
	if c.probe != nil && c.lastRx.Load() >= c.probe.at {
		c.probe.timer.Stop() // answered; the new sender wants to know anew
		c.probe = nil
	}
	if c.probe == nil {
		p := &probe{at: now, asked: now-c.lastRx.Load() > int64(probeAfter)}
		wait := probeAsk
		if p.asked {
			wait = probeAnswer
			c.pingLocked(now)
		}
		p.timer = time.AfterFunc(wait, func() { c.probed(p) })
		c.probe = p
	}
	for _, id := range c.probe.waiters {
		if id == from {
			return
		}
	}
	if len(c.probe.waiters) < maxWaiters {
		c.probe.waiters = append(c.probe.waiters, from)
	}
}

func (c *client) probed(p *probe) {
	c.mu.Lock()
	if c.probe != p {
		c.mu.Unlock()
		return
	}
	answered := c.lastRx.Load() >= p.at
	if !answered && !p.asked {
		p.asked = true
		c.pingLocked(c.s.now())
		p.timer.Reset(probeAnswer - probeAsk)
		c.mu.Unlock()
		return
	}
	c.probe = nil
	if !answered {
		c.unheard = p.at
	}
	c.mu.Unlock()
	if answered {
		return
	}
	for _, id := range p.waiters {
		if from := c.s.find(c.net, id); from != nil {
			from.sendPeer(relay.TypeGone, c.id, byte(relay.GoneSilent))
		}
	}
}

// tick pings after silence and gives up a client that does not answer.
func (c *client) tick() {
	now := c.s.now()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	rx := c.lastRx.Load()
	if began := c.writing.Load(); began != 0 && now-began > int64(stuck) {
		c.mu.Unlock()
		c.close()
		return
	}
	switch {
	case c.pingAt != 0 && rx < c.pingAt:
		if wait := int64(pingAnswer) - (now - c.pingAt); wait > 0 {
			c.timer.Reset(time.Duration(wait))
			break
		}
		c.mu.Unlock()
		c.silent.Store(true)
		c.s.cfg.Log.Debug("client is silent", "network", c.net.id, "node", c.id)
		c.close()
		return
	case now-rx >= int64(pingAfter):
		c.pingLocked(now)
	default:
		c.pingAt = 0
		c.timer.Reset(pingAfter - time.Duration(now-rx))
	}
	c.mu.Unlock()
}

func (c *client) pingLocked(now int64) {
	var nonce [8]byte // any input is an answer
	c.controlLocked(relay.AppendFrame(nil, relay.TypePing, nonce[:]))
	c.pingAt = now
	c.timer.Reset(pingAnswer)
}

// busy hints, once a second per destination, that packets were lost. The
// goroutine that reads c calls it.
func (c *client) busy(peer cert.NodeID, now int64) {
	if ct := c.last; ct != nil && c.lastID == peer && (ct.busyAt == 0 || now-ct.busyAt >= int64(hintEvery)) {
		ct.busyAt = now
		c.sendPeer(relay.TypeBusy, peer)
	}
}

// send queues a control frame. It never waits; when 16 KB of them wait it is
// lost, for they are all hints.
func (c *client) send(t relay.Type, body []byte) {
	f := relay.AppendFrame(nil, t, body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.controlLocked(f)
}

func (c *client) sendPeer(t relay.Type, peer cert.NodeID, rest ...byte) {
	f := relay.AppendPeerFrame(nil, t, peer, rest)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.controlLocked(f)
}

func (c *client) controlLocked(f []byte) {
	if c.closed || c.last1 || len(c.control)+len(f) > controlRoom {
		return
	}
	c.control = append(c.control, f...)
	c.wakeLocked()
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

func (c *client) roomLocked() {
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// wakeLocked sees to it that somebody writes what is queued.
func (c *client) wakeLocked() {
	if c.writer || c.closed {
		return
	}
	c.writer = true
	c.wg.Go(c.write)
}

// write sends what is queued until nothing is.
func (c *client) write() {
	out := outPool.Get().(*[]byte)
	defer outPool.Put(out)
	for {
		c.mu.Lock()
		control, crl, nudge := c.control, c.crl, c.nudge
		b := (*out)[:0]
		if !c.closed {
			c.control, c.crl, c.nudge = nil, nil, nil
			b = b[:len(c.sessions.take(b[:0:sessionShare]))]
			b = c.packets.take(b)
			c.roomLocked()
		}
		if c.closed || len(control)+len(crl)+len(nudge)+len(b) == 0 {
			c.writer = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		c.writing.Store(c.s.now())
		err := c.flush(control, nudge, b, crl)
		c.writing.Store(0)
		if err != nil {
			c.close()
		}
	}
}

func (c *client) flush(bufs ...[]byte) error {
	if c.lc != nil {
		c.lc.Cork()
	}
	var err error
	for _, b := range bufs {
		if len(b) > 0 && err == nil {
			_, err = c.c.Write(b)
		}
	}
	if c.lc != nil {
		if uncorkErr := c.lc.Uncork(); err == nil {
			err = uncorkErr
		}
	}
	return err
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
