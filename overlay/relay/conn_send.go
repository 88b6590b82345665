package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/limited"
	"weft/overlay/link"
)

// What a node sends over one connection. One goroutine (write) does all writing.

// ErrNoLanes is returned by RequestLane when the relay offers no lanes.
var ErrNoLanes = errors.New("the relay offers no relayed UDP")

// pendingPool has the buffers that SendPackets fills and the writer empties.
var pendingPool = sync.Pool{New: func() any { b := make([]byte, 0, maxPending+MaxFrame); return &b }}

// SendPackets queues messages of a data plane for a node. The bytes are copied. It blocks
// while more than 256 KB are queued, so that the sender is slowed down instead of packets
// being lost.
func (c *Conn) SendPackets(to cert.NodeID, bufs [][]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range bufs {
		for c.pending != nil && len(*c.pending)+len(b) > maxPending && !c.closed {
			c.room.Wait()
		}
		if c.closed {
			return c.endedLocked()
		}
		c.queueLocked(to, b)
	}
	return nil
}

// TrySendPackets is SendPackets for a sender that must not wait: what is more than maxTry
// bytes in the queue is dropped. It returns how many of bufs are queued.
func (c *Conn) TrySendPackets(to cert.NodeID, bufs [][]byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, c.endedLocked()
	}
	for i, b := range bufs {
		if c.pending != nil && len(*c.pending)+len(b) > maxTry() {
			return i, nil
		}
		c.queueLocked(to, b)
	}
	return len(bufs), nil
}

// maxTry bounds the queue of TrySendPackets. Nothing slows its sender down, so there is room
// for a few batches. It is computed when it is first needed: every verb of weft links this
// package, and limited.Share reads a dozen files of the system.
var maxTry = sync.OnceValue(func() int { return max(limited.Share(1<<20, 1./128), maxPending) })

// queueLocked appends a message to the queue.
func (c *Conn) queueLocked(to cert.NodeID, b []byte) {
	if len(b) == 0 || len(b) > MaxPacket {
		return // not a message of a data plane; the relay would close the connection
	}
	if c.pending == nil {
		c.pending = pendingPool.Get().(*[]byte)
		c.work.Signal()
	}
	*c.pending = AppendPeerFrame(*c.pending, TypePacket, to, b)
}

// SendSession queues an introduction frame of 1 to 16,384 bytes, before all
// packets. The bytes are copied. It never waits.
func (c *Conn) SendSession(to cert.NodeID, frame []byte) error {
	if len(frame) == 0 || len(frame) > MaxSession {
		return fmt.Errorf("introduction frame of %d bytes: %w", len(frame), ErrFrame)
	}
	return c.sendControl(maxPending, func(b []byte) []byte {
		c.expect = true // mu is held
		return AppendPeerFrame(b, TypeSession, to, frame)
	})
}

// SendVersions sends the versions that this node has. It makes the connection the node's
// home connection; guest connections do not send them.
func (c *Conn) SendVersions(v api.Versions) error {
	body, err := json.Marshal(Holds{v, c.process})
	if err != nil {
		return err
	}
	return c.sendControl(maxControl, func(b []byte) []byte { return AppendFrame(b, TypeVersions, body) })
}

// Lanes reports whether the relay offers lanes (relayed UDP); false before its welcome.
func (c *Conn) Lanes() bool { return c.lanes.Load() }

// RequestLane asks for a lane with a node that is connected to this relay. The answer is
// Handler.Lane or LaneGone, or Busy when this node has reached too many new nodes. The
// peer's Handler.Lane is called too. For a lane that exists the relay repeats the same
// one, also to the peer until both have bound it. RequestLane does not block.
func (c *Conn) RequestLane(peer cert.NodeID) error {
	if !c.Lanes() {
		return ErrNoLanes
	}
	return c.sendControl(maxControl, func(b []byte) []byte { return AppendPeerFrame(b, TypeLane, peer, nil) })
}

func (c *Conn) sendControl(limit int, appendTo func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.endedLocked()
	}
	if len(c.control) > limit {
		return fmt.Errorf("send to relay: %d bytes are queued already", len(c.control))
	}
	c.control = appendTo(c.control)
	c.work.Signal()
	return nil
}

// write sends queued frames, all that there are in one call, until the connection ends.
func (c *Conn) write() {
	for {
		c.mu.Lock()
		for len(c.control) == 0 && c.pending == nil && !c.closed {
			c.work.Wait()
		}
		if c.closed {
			c.mu.Unlock()
			return
		}
		control, pending, expect := c.control, c.pending, c.expect || c.pending != nil
		c.control, c.pending, c.expect = nil, nil, false
		c.room.Broadcast()
		c.mu.Unlock()

		if expect && c.awaiting.CompareAndSwap(0, c.now()) && c.dozing.Load() {
			select {
			case c.rouse <- struct{}{}:
			default:
			}
		}
		var packets []byte
		if pending != nil {
			packets = *pending
		}
		if len(packets) > 0 && len(packets) <= recentFlush {
			c.recent.note(packets, c.now())
		}
		part := cutFrames(packets, maxPending)
		err := link.WriteAll(c.c, c.lc, control, part)
		for rest := packets[len(part):]; len(rest) > 0 && err == nil; rest = rest[len(part):] {
			// Control frames do not wait for all of a long queue.
			c.mu.Lock()
			control, c.control = c.control, nil
			c.mu.Unlock()
			part = cutFrames(rest, maxPending)
			err = link.WriteAll(c.c, c.lc, control, part)
		}
		c.lastTx.Store(c.now())
		if pending != nil {
			*pending = (*pending)[:0]
			pendingPool.Put(pending)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// cutFrames returns the first frames of b, of at most n bytes together.
func cutFrames(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	end := FrameLen(b)
	for end < len(b) && end+FrameLen(b[end:]) <= n {
		end += FrameLen(b[end:])
	}
	return b[:end]
}
