package relayserver

import (
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

// Detection of dead clients: they are pinged after silence, and when another node waits
// for their answer.

const (
	maxWaiters = 64
	// stuck is how long a write may take before the client is disconnected.
	stuck = 60 * time.Second
)

// probe is a ping to a silent client, for nodes that have sent it introduction frames.
type probe struct {
	at      int64
	asked   bool // the ping was sent
	waiters []cert.NodeID
	timer   *time.Timer
}

// probeLocked sends from a gone frame if nothing is received from this client within
// probeAnswer, or within the time that its answers are known to take, up to probeMost. A
// client that has been silent for long is pinged at once. Another gets time to answer the
// frame itself first: it may have died a moment ago.
func (c *client) probeLocked(from cert.NodeID, now int64) {
	if c.probe != nil && c.lastRx.Load() >= c.probe.at {
		c.probe.timer.Stop() // that one was answered; the new sender starts another
		c.probe = nil
	}
	if c.probe == nil {
		p := &probe{at: now, asked: now-c.lastRx.Load() > int64(probeAfter)}
		wait := probeAsk
		if p.asked {
			wait = c.trip.Wait(probeAnswer, probeMost)
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
		p.timer.Reset(c.trip.Wait(probeAnswer, probeMost) - probeAsk)
		c.mu.Unlock()
		return
	}
	c.probe = nil
	if !answered {
		c.unanswered = p.at
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

// tick pings after silence and disconnects a client that does not answer.
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
	var nonce [8]byte // zero, because any input counts as an answer
	c.controlLocked(relay.AppendFrame(nil, relay.TypePing, nonce[:]))
	c.pingAt = now
	c.timer.Reset(pingAnswer)
}
