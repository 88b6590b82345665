package relayserver

import (
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

// With whom a client exchanges frames. New destinations are limited. When a node leaves,
// those that may be waiting for it get a gone frame.

const (
	contactFor  = 15 * time.Minute
	maxContacts = 4096
	hintEvery   = time.Second
)

// contact is another node with which this client has exchanged frames.
type contact struct {
	peer           *client // its connection at the last lookup; may be nil
	seen           int64
	goneAt, busyAt int64 // when this client was last sent gone and busy for it
}

// destination returns the connection of a node, or nil after it has sent this client the
// reason. New destinations are limited.
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
			// Packets arrive by the thousand, so their gone frames are limited. The
			// sender of a session frame waits for an answer.
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

// contact returns this client's record of a node. Only the reading goroutine changes a
// record; mu guards the map.
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

// allowNew takes a token from the bucket for new destinations and reports whether there
// was one.
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
			delete(c.contacts, k) // an arbitrary one
		}
	}
	ct := &contact{seen: now}
	c.contacts[id] = ct
	return ct
}

// met records that another node has sent to this one: an answer is not a new destination.
func (c *client) met(id cert.NodeID, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ct := c.contacts[id]; ct != nil {
		ct.seen = now
	} else if !c.closed {
		c.addContactLocked(id, now)
	}
}

// knows reports whether this client has exchanged frames with any of the nodes.
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
