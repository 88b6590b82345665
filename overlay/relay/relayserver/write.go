package relayserver

import (
	"sync"

	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
)

// Output to a client: control frames are queued here, packets and introduction frames in
// deliver.go. A goroutine writes only while there is something to write.

const (
	controlRoom = 16 << 10
	// batch is how many bytes one write takes. It has room for introduction frames up to
	// their share, and for the longest packet frame.
	batch        = 128 << 10
	sessionShare = 48 << 10
)

var outPool = sync.Pool{New: func() any { b := make([]byte, 0, batch); return &b }}

// send queues a control frame. It never blocks. When 16 KB of them are queued it drops
// the frame, because all of them are hints.
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
	if c.closed || c.finishing || len(c.control)+len(f) > controlRoom {
		return
	}
	c.control = append(c.control, f...)
	c.wakeLocked()
}

func (c *client) roomLocked() {
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// wakeLocked makes sure that a goroutine writes what is queued.
func (c *client) wakeLocked() {
	if c.writer || c.closed {
		return
	}
	c.writer = true
	c.wg.Go(c.write)
}

// write sends until nothing is queued.
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
		err := link.WriteAll(c.c, c.lc, control, nudge, b, crl)
		c.writing.Store(0)
		if err != nil {
			c.close()
		}
	}
}
