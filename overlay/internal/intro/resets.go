package intro

import (
	"time"

	"weft/overlay/cert"
)

type reset struct {
	to  cert.NodeID
	sid uint64
}

// Reset sends a reset with id 0: this node has no WireGuard peer for the other. At most
// once a second per node. It does not block and may be called on the packet path.
func (sw *Switch) Reset(to cert.NodeID) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.closed || to == sw.cfg.ID {
		return
	}
	if p := sw.peerLocked(to, maxPeers); p != nil && time.Since(p.strayAt) >= time.Second {
		p.strayAt = time.Now()
		sw.resetLocked(to, 0)
	}
}

// resetLocked queues a reset that a goroutine sends, because Send may block.
func (sw *Switch) resetLocked(to cert.NodeID, sid uint64) {
	if len(sw.resets) >= maxResets {
		return
	}
	sw.resets = append(sw.resets, reset{to, sid})
	if !sw.resetting {
		sw.resetting = true
		sw.wg.Go(sw.sendResets)
	}
}

func (sw *Switch) sendResets() {
	for {
		sw.mu.Lock()
		if len(sw.resets) == 0 || sw.closed {
			sw.resets, sw.resetting = nil, false
			sw.mu.Unlock()
			return
		}
		r := sw.resets[0]
		sw.resets = sw.resets[1:]
		sw.mu.Unlock()
		sw.sendReset(r.to, r.sid)
	}
}

func (sw *Switch) sendReset(to cert.NodeID, sid uint64) {
	if err := sw.cfg.Send(to, appendFrame(nil, frame{id: sid, kind: kindReset})); err != nil {
		sw.log.Debug("send reset", "to", to, "err", err)
	}
}
