package relayserver

import (
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

// From one client to another's queue. All of this runs in the goroutine that reads the
// sender: when it waits, TCP slows the sender down.

const (
	packetRoom  = 192 << 10
	sessionRoom = 64 << 10

	// patience is how long the reader of a sender waits for a destination that is taking
	// data. A destination counts as taking data while its current write is no older than
	// that. A sender that has sent to more than one node within mixedFor gets less,
	// because one destination must not delay the others.
	patience      = 100 * time.Millisecond
	patienceMixed = 5 * time.Millisecond
	mixedFor      = time.Second
)

// deliver queues packets from another client. The goroutine that reads that client calls
// it.
func (c *client) deliver(from *client, run []byte, now int64) {
	wait, all := patience, len(run)
	if now < from.mixed {
		wait = patienceMixed
	}
	c.mu.Lock()
	for c.packets.bytes+len(run) > c.packets.limit && !c.closed && !c.finishing && c.taking(wait) {
		if n := c.packets.fits(run); n > 0 {
			c.packets.put(from.id, run[:n])
			run = run[n:]
			c.wakeLocked()
		}
		if !c.waitRoom(wait) {
			break
		}
	}
	if c.closed || c.finishing || len(run) == 0 {
		c.mu.Unlock()
		return
	}
	dropped := c.packets.put(from.id, run)
	c.wakeLocked()
	c.mu.Unlock()
	c.received.Add(uint64(all - dropped))
	if dropped > 0 {
		c.s.dropped.Add(uint64(dropped))
		from.busy(c.id, now)
	}
}

// taking reports whether the client's socket has taken data within the last while.
func (c *client) taking(while time.Duration) bool {
	began := c.writing.Load()
	return began == 0 || time.Duration(c.s.now()-began) < while
}

// waitRoom waits until the writer takes something, at most for atMost, and reports
// whether it did. mu is held before and after, not while it waits.
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

// introduce queues one introduction frame. It pings a client that has been silent for
// long.
func (c *client) introduce(from *client, f []byte, now int64) {
	c.mu.Lock()
	if c.closed || c.finishing {
		c.mu.Unlock()
		return
	}
	dropped := c.sessions.put(from.id, f)
	// A client that did not answer the last probe does not get two more seconds.
	silent := c.unanswered != 0 && c.lastRx.Load() < c.unanswered
	c.probeLocked(from.id, now)
	c.wakeLocked()
	c.mu.Unlock()
	c.received.Add(uint64(len(f) - dropped))
	if silent {
		from.sendPeer(relay.TypeGone, c.id, byte(relay.GoneSilent))
	}
	if dropped > 0 {
		c.s.dropped.Add(uint64(dropped))
		from.busy(c.id, now)
	}
}

// busy sends a busy frame, at most once a second per destination: packets were lost. The
// goroutine that reads c calls it.
func (c *client) busy(peer cert.NodeID, now int64) {
	if ct := c.last; ct != nil && c.lastID == peer && (ct.busyAt == 0 || now-ct.busyAt >= int64(hintEvery)) {
		ct.busyAt = now
		c.sendPeer(relay.TypeBusy, peer)
	}
}
