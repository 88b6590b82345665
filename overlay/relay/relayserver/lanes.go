package relayserver

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
	"weft/overlay/relay/lane"
)

// Lanes: who has one, and when it ends. Package lane has the datagrams; udp.go forwards
// them.

const (
	laneSweep = 30 * time.Second // how often to look for idle lanes
	// laneRepeat is how often a lane frame is repeated to the peer of a node that asks
	// again.
	laneRepeat = time.Second
)

// lanes are all lanes of a relay.
type lanes struct {
	// constant after New
	s      *Server
	secret [32]byte // key of cookies

	serving atomic.Int32 // how many sockets are served
	table   laneTable    // read without a lock

	// Counters, for Stats.
	bytes, dropped atomic.Uint64

	mu sync.Mutex
	// mu guards the following, writes to table, and the fields lanes, asked and
	// lanesEnded of clients. Neither is it taken while another lock is held, nor another
	// while it is.
	sides int
	timer *time.Timer // runs sweep while there are lanes
}

// laneSide is one node's side of a lane.
type laneSide struct {
	// constant
	id    lane.ID
	key   lane.Key
	owner *client
	other *laneSide
	asker bool // it counts against the owner's limit

	at    atomic.Pointer[binding] // nil: not bound yet
	used  atomic.Int64            // Server.now of the last datagram from it, within a second
	stray atomic.Int64            // when the owner was last sent a rebind

	lastSent int64 // when the owner last got a lane frame because the other asked; lanes.mu guards it
}

func (x *laneSide) info(idle time.Duration) []byte {
	return lane.AppendInfo(nil, lane.Info{Send: x.id, Recv: x.other.id, Key: x.key, Idle: idle})
}

// lane answers a request for a lane with a node. The goroutine that reads c
// calls it.
func (c *client) lane(to cert.NodeID, now int64) {
	if c.contact(to, now) == nil {
		return // the limit of new destinations; c was sent busy
	}
	l := &c.s.lanes
	if l.serving.Load() == 0 {
		c.sendPeer(relay.TypeLaneGone, to, byte(relay.LaneOff))
		return
	}
	dst := c.s.find(c.net, to)
	if dst == nil || dst == c {
		c.sendPeer(relay.TypeLaneGone, to, byte(relay.LaneAbsent))
		return
	}
	dst.met(c.id, now)
	mine, both, reason := l.get(c, dst, now)
	if mine == nil {
		c.sendPeer(relay.TypeLaneGone, to, byte(reason))
		return
	}
	idle := c.s.cfg.Limits.LaneIdle
	c.sendPeer(relay.TypeLane, to, mine.info(idle)...)
	if both {
		dst.sendPeer(relay.TypeLane, c.id, mine.other.info(idle)...)
	}
}

// get returns c's side of its lane with dst, a new one if there is none, and whether dst
// must be sent its side too.
func (l *lanes) get(c, dst *client, now int64) (mine *laneSide, both bool, reason relay.LaneReason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limits := &l.s.cfg.Limits
	mine = c.lanes[dst.id]
	switch {
	case c.lanesEnded || dst.lanesEnded:
		return nil, false, relay.LaneAbsent
	case mine != nil && mine.other.owner == dst:
		mine.used.Store(now)
		o := mine.other
		if both = (mine.at.Load() == nil || o.at.Load() == nil) && now-o.lastSent >= int64(laneRepeat); both {
			o.lastSent = now
		}
		return mine, both, 0
	}
	if mine != nil {
		l.removeLocked(mine) // its peer's connection was just replaced
	}
	if c.asked >= limits.LanesPerClient || l.sides >= 2*limits.Lanes {
		return nil, false, relay.LaneFull
	}
	mine = &laneSide{id: lane.NewID(), key: lane.NewKey(), owner: c, asker: true}
	o := &laneSide{id: lane.NewID(), key: lane.NewKey(), owner: dst, other: mine, lastSent: now}
	mine.other = o
	c.asked++
	for _, x := range [2]*laneSide{mine, o} {
		x.used.Store(now)
		if x.owner.lanes == nil {
			x.owner.lanes = map[cert.NodeID]*laneSide{}
		}
		x.owner.lanes[x.other.owner.id] = x
		l.sides++
		l.table.add(x, l.sides)
	}
	if l.timer == nil && l.s.ctx.Err() == nil {
		l.timer = time.AfterFunc(laneSweep, l.sweep)
	}
	return mine, true, 0
}

// removeLocked removes both sides of a lane.
func (l *lanes) removeLocked(x *laneSide) {
	for _, x := range [2]*laneSide{x, x.other} {
		l.table.remove(x)
		l.sides--
		delete(x.owner.lanes, x.other.owner.id)
		if x.asker {
			x.owner.asked--
		}
	}
}

// end ends all lanes of a connection and makes sure that it gets no new ones. The other
// nodes are sent lanegone. The caller holds no lock.
func (l *lanes) end(c *client) {
	l.mu.Lock()
	c.lanesEnded = true
	var left []*client
	for _, x := range c.lanes {
		left = append(left, x.other.owner)
		l.removeLocked(x)
	}
	l.mu.Unlock()
	if l.s.ctx.Err() != nil {
		return // the relay is shutting down
	}
	for _, o := range left {
		o.sendPeer(relay.TypeLaneGone, c.id, byte(relay.LaneAbsent))
	}
}

// sweep ends idle lanes. Both nodes are sent lanegone, because packets to a lane that no
// longer exists are lost.
func (l *lanes) sweep() {
	now, idle := l.s.now(), int64(l.s.cfg.Limits.LaneIdle)
	var old []*laneSide
	l.mu.Lock()
	l.table.each(func(x *laneSide) {
		if x.asker && now-max(x.used.Load(), x.other.used.Load()) > idle {
			old = append(old, x)
		}
	})
	for _, x := range old {
		l.removeLocked(x)
	}
	l.timer = nil
	if l.sides > 0 && l.s.ctx.Err() == nil {
		l.timer = time.AfterFunc(laneSweep, l.sweep)
	}
	l.mu.Unlock()
	for _, x := range old {
		x.owner.sendPeer(relay.TypeLaneGone, x.other.owner.id, byte(relay.LaneIdle))
		x.other.owner.sendPeer(relay.TypeLaneGone, x.owner.id, byte(relay.LaneIdle))
	}
}

// stop stops the timer.
func (l *lanes) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
}

// laneTable finds sides by ID. Readers take no lock: each bucket is an immutable list
// that is replaced as a whole. The relay chooses IDs at random, so nobody can fill one
// bucket.
type laneTable struct {
	buckets atomic.Pointer[[]atomic.Pointer[laneNode]] // their number is a power of two; nil at first
}

type laneNode struct {
	side *laneSide
	next *laneNode
}

const laneBuckets = 64 // at first

// find returns the side with an ID, nil for none.
func (t *laneTable) find(id lane.ID) *laneSide {
	b := t.buckets.Load()
	if b == nil {
		return nil
	}
	for n := bucketOf(*b, id).Load(); n != nil; n = n.next {
		if n.side.id == id {
			return n.side
		}
	}
	return nil
}

func bucketOf(b []atomic.Pointer[laneNode], id lane.ID) *atomic.Pointer[laneNode] {
	return &b[binary.LittleEndian.Uint64(id[:])&uint64(len(b)-1)]
}

// add inserts a side. count is the number of sides with it.
func (t *laneTable) add(x *laneSide, count int) {
	b := t.buckets.Load()
	switch {
	case b == nil:
		made := make([]atomic.Pointer[laneNode], laneBuckets)
		b = &made
		t.buckets.Store(b)
	case count > len(*b):
		made := make([]atomic.Pointer[laneNode], 2*len(*b))
		t.each(func(x *laneSide) { push(bucketOf(made, x.id), x) })
		b = &made
		t.buckets.Store(b)
	}
	push(bucketOf(*b, x.id), x)
}

func push(to *atomic.Pointer[laneNode], x *laneSide) { to.Store(&laneNode{x, to.Load()}) }

func (t *laneTable) remove(x *laneSide) {
	bucket := bucketOf(*t.buckets.Load(), x.id)
	var rest *laneNode
	for n := bucket.Load(); n != nil; n = n.next {
		if n.side != x {
			rest = &laneNode{n.side, rest}
		}
	}
	bucket.Store(rest)
}

// each calls f for all sides.
func (t *laneTable) each(f func(*laneSide)) {
	b := t.buckets.Load()
	if b == nil {
		return
	}
	for i := range *b {
		for n := (*b)[i].Load(); n != nil; n = n.next {
			f(n.side)
		}
	}
}
