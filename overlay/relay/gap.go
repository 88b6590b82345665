package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"weft/overlay/cert"
)

// Packets that are sent while the connection is lost, and for a moment after the next one
// is made, are held and sent again. So a flow continues as soon as both nodes are
// connected, not when TCP inside the tunnel retransmits, which it does more and more
// seldom. WireGuard drops packets that arrive twice.
const (
	gapBytes = 64 << 10 // of the latest packets
	gapAge   = 2 * time.Second
	// recentFlush bounds the writes of which a copy is held too: the last packets of a
	// flow that sends little. A flow that sends much notices a loss by itself.
	recentFlush = 4 << 10
	recentBytes = 16 << 10
	recentAge   = 500 * time.Millisecond
	// gapAgain is when the packets are sent a second time: the other node may need a
	// little longer to reconnect, and until then packets to it are lost.
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

// hold copies messages. If there is no room, it drops the oldest.
func (g *gap) hold(to cert.NodeID, bufs [][]byte) {
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

// recent holds copies of the packets that were written last, because the connection may
// have been dead already. It belongs to the writer and allocates nothing.
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

// take returns the packets that were written lately, the oldest first.
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

// add inserts packets before those that are held.
func (g *gap) add(packets []gapPacket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range packets {
		g.bytes += len(p.b)
	}
	g.packets = append(packets, g.packets...)
}

// take removes and returns the held packets that are not too old, the oldest first.
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

// resend sends held packets over a connection, in order.
func (c *Conn) resend(packets []gapPacket) {
	for _, p := range packets {
		if c.SendPackets(p.to, [][]byte{p.b}) != nil {
			return
		}
	}
}
