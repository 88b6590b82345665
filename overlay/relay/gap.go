package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
)

// What is sent while the connection is lost, and until a moment after the next
// one stands, is kept and sent again: a flow then goes on as soon as both nodes
// are back, and not when TCP inside the tunnel tries again, which by then it
// does seldom. WireGuard drops what arrives twice.
const (
	gapBytes = 64 << 10 // the latest are kept
	gapAge   = 2 * time.Second
	// recentFlush is what is also kept of what was written last: of a flow
	// that sends little. One that sends much notices a loss by itself.
	recentFlush = 4 << 10
	recentBytes = 16 << 10
	recentAge   = 500 * time.Millisecond
	// gapAgain is when it is sent once more: the other node may need a little
	// longer to come back, and what is for it is lost until then.
	gapAgain = 250 * time.Millisecond
)

type gap struct {
	open atomic.Bool // between two connections

	mu sync.Mutex
	// mu guards the following.
	packets []gapPacket
	bytes   int
}

type gapPacket struct {
	to cert.NodeID
	b  []byte
	at time.Time
}

// keep copies messages, and lets the oldest go for them.
func (g *gap) keep(to cert.NodeID, bufs [][]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range bufs {
		if len(b) == 0 || len(b) > MaxPacket {
			continue
		}
		g.packets = append(g.packets, gapPacket{to, append([]byte(nil), b...), time.Now()})
		g.bytes += len(b)
	}
	drop := 0
	for g.bytes > gapBytes {
		g.bytes -= len(g.packets[drop].b)
		drop++
	}
	if drop > 0 {
		g.packets = append([]gapPacket(nil), g.packets[drop:]...)
	}
}

// recent are the packets that were written last, for they may have been written
// into a connection that was dead already. It belongs to the writer and makes
// no garbage.
type recent struct {
	cur, prev     []byte // packet frames
	begun, before int64  // Conn.now of the first in cur and in prev
}

// note copies packet frames.
func (r *recent) note(b []byte, now int64) {
	if len(r.cur)+len(b) > recentBytes/2 || now-r.begun > int64(recentAge) {
		r.cur, r.prev = r.prev[:0], r.cur
		r.begun, r.before = now, r.begun
	}
	r.cur = append(r.cur, b...)
}

// take returns what was written lately, the oldest first.
func (r *recent) take(now int64) (out []gapPacket) {
	for _, half := range []struct {
		b     []byte
		begun int64
	}{{r.prev, r.before}, {r.cur, r.begun}} {
		if now-half.begun > 2*int64(recentAge) {
			continue
		}
		for b := half.b; len(b) > 0; b = b[FrameLen(b):] {
			out = append(out, gapPacket{Peer(b), append([]byte(nil), b[HeadLen+PeerLen:FrameLen(b)]...), time.Now()})
		}
	}
	return out
}

// add puts packets before those that are kept.
func (g *gap) add(packets []gapPacket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range packets {
		g.bytes += len(p.b)
	}
	g.packets = append(packets, g.packets...)
}

// take returns what is kept and not too old, the oldest first.
func (g *gap) take() []gapPacket {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.packets
	g.packets, g.bytes = nil, 0
	for len(all) > 0 && time.Since(all[0].at) > gapAge {
		all = all[1:]
	}
	return all
}

// sendKept sends packets over a connection, in order.
func (c *Conn) sendKept(packets []gapPacket) {
	for _, p := range packets {
		if c.SendPackets(p.to, [][]byte{p.b}) != nil {
			return
		}
	}
}
