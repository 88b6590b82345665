package overlaytest

import "time"

// Links with a rate: a home uplink whose modem has a long queue that uploads keep full.

const (
	maxPayload = 1448
	headers    = 52
	firstFlood = 10 * maxPayload // RFC 6928
	firstRTO   = time.Second     // RFC 6298
)

// queue is the queue in front of a link with a rate. Guarded by Internet.mu.
type queue struct {
	perSecond float64       // bytes; 0: no rate
	limit     time.Duration // capacity, as time at the rate
	busy      time.Time     // when everything queued will have been sent
}

// SetUplink gives the link a rate, in bits per second, for packets that leave the host or
// router, and a queue that has room for what the link sends in the time holds. Packets
// that find the queue full are lost. Incoming packets and TCP acknowledgements without
// data are not delayed. Call it before streams are made. A rate of 0 removes the limit.
func (l *Link) SetUplink(bitsPerSecond int, holds time.Duration) {
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	l.out = queue{perSecond: float64(bitsPerSecond) / 8, limit: holds}
}

// Queued returns how long a packet that is sent now would wait in the queue.
func (l *Link) Queued() time.Duration {
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	return l.out.waitLocked(time.Now())
}

func (q *queue) waitLocked(now time.Time) time.Duration { return max(q.busy.Sub(now), 0) }

// enterLocked queues a packet of size bytes and returns how long it takes until it is
// sent. It returns false when there is no room.
func (l *Link) enterLocked(size int) (time.Duration, bool) {
	q := &l.out
	if q.perSecond == 0 {
		return 0, true
	}
	now := time.Now()
	wait := q.waitLocked(now)
	if wait >= q.limit {
		return 0, false
	}
	wait += time.Duration(float64(size) / q.perSecond * float64(time.Second))
	q.busy = now.Add(wait)
	return wait, true
}

// enterLocked queues a packet of one end (0: from, 1: to) at each link that it
// leaves by.
func (p *path) enterLocked(end, size int) (wait time.Duration, ok bool) {
	for _, l := range p.leaves[end] {
		w, ok := l.enterLocked(size)
		if !ok {
			return 0, false
		}
		wait += w
	}
	return wait, true
}

// pace is the congestion control of one end of a stream over a link with a rate: TCP's,
// as in RFC 5681, with selective acknowledgements.
type pace struct {
	window, threshold float64 // bytes
	flying            int     // bytes sent and not acknowledged
	trip              time.Duration
	lostAt            time.Time // losses before this time were sent before the window was last halved
}

func (c *Conn) end() int {
	if c.host == c.path.from {
		return 0
	}
	return 1
}

// leavesLocked reports whether this end sends over a link with a rate.
func (c *Conn) leavesLocked() bool {
	for _, l := range c.path.leaves[c.end()] {
		if l.out.perSecond > 0 {
			return true
		}
	}
	return false
}

func (c *Conn) sendSlowlyLocked(s *segment) {
	if c.pace.window == 0 {
		c.pace = pace{window: firstFlood, threshold: Window, trip: firstRTO}
	}
	if s.data == nil {
		c.pending = append(c.pending, s)
	}
	for d := s.data; len(d) > 0; d = d[min(len(d), maxPayload):] {
		c.pending = append(c.pending, &segment{data: d[:min(len(d), maxPayload)]})
	}
	c.paceLocked()
}

// restartLocked sends again everything that has not arrived, after an interruption of the
// path.
func (c *Conn) restartLocked() {
	c.pace = pace{window: firstFlood, threshold: Window, trip: firstRTO}
	for _, s := range c.pending {
		s.sent = s.arrived
	}
	c.paceLocked()
}

// paceLocked sends what the window has room for.
func (c *Conn) paceLocked() {
	for _, s := range c.pending {
		if c.stalled || float64(c.pace.flying) >= c.pace.window {
			return
		}
		if s.sent {
			continue
		}
		if !c.path.openLocked() {
			c.stallLocked()
			return
		}
		c.flyLocked(s)
	}
}

// flyLocked sends one segment, and sends it again if it is lost.
func (c *Conn) flyLocked(s *segment) {
	in, round, size := c.host.in, c.round, len(s.data)+headers
	s.sent = true
	c.pace.flying += size
	sent := time.Now()
	queued, ok := c.path.enterLocked(c.end(), size)
	if !ok {
		// The sender notices by later segments, or else by a timer.
		wait := c.pace.trip
		if c.pace.flying == size {
			wait = max(firstRTO, wait*3/2) << min(s.resent, 6)
		}
		in.afterLocked(wait, func() {
			if c.round != round {
				return
			}
			c.pace.flying -= size
			s.sent, s.resent = false, s.resent+1
			if sent.After(c.pace.lostAt) {
				c.pace.threshold = max(c.pace.window/2, 2*maxPayload)
				c.pace.window, c.pace.lostAt = c.pace.threshold, time.Now()
			}
			c.paceLocked()
		})
		return
	}
	in.afterLocked(queued+c.path.delayLocked(), func() {
		if c.round != round {
			return
		}
		if !c.path.openLocked() {
			c.stallLocked()
			return
		}
		s.arrived = true
		for len(c.pending) > 0 && c.pending[0].arrived {
			first := c.pending[0]
			c.pending = c.pending[1:]
			c.peer.arriveLocked(first)
		}
		c.retireLocked()
	})
	in.afterLocked(queued+2*c.path.latencyLocked(), func() {
		if c.round != round {
			return
		}
		c.pace.flying -= size
		c.pace.trip = time.Since(sent)
		if c.pace.window < c.pace.threshold {
			c.pace.window += float64(size)
		} else {
			c.pace.window += maxPayload * float64(size) / c.pace.window
		}
		c.paceLocked()
	})
}
