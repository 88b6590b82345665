package homes

import (
	"slices"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/intro"
)

// Which connection an introduction or a tunnel uses.

type sessionKey struct {
	peer cert.NodeID
	id   uint64
}

// notes bounds the recorded sessions of one connection, so that a relay that invents
// introductions does not push out those of another relay, and a peer that opens many
// pushes out its own only.
type notes struct {
	keys []sessionKey // oldest first
	of   map[cert.NodeID]int
}

// add records one more and returns the one that is dropped for it: the oldest of the peer
// that has most.
func (n *notes) add(key sessionKey) (old sessionKey) {
	if n.of == nil {
		n.of = map[cert.NodeID]int{}
	}
	if len(n.keys) >= notedSessions {
		out, most := 0, 0
		for i, k := range n.keys {
			if c := n.of[k.peer]; c > most {
				out, most = i, c
			}
		}
		old = n.keys[out]
		n.keys = slices.Delete(n.keys, out, out+1)
		if n.of[old.peer]--; n.of[old.peer] == 0 {
			delete(n.of, old.peer)
		}
	}
	n.keys = append(n.keys, key)
	n.of[key.peer]++
	return old
}

// Calling records over which connection this node introduces itself to a peer, until done
// is called.
func (g *Guests) Calling(peer cert.NodeID, w RelayConn) (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls[peer] = w
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.calls, peer)
	}
}

// called records over which connection a peer introduces itself.
func (g *Guests) called(w RelayConn, from cert.NodeID, frame []byte) {
	id, opens := intro.FrameSession(frame)
	if !opens {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.noteLocked(sessionKey{from, id}, w)
}

// stray records over which connection a node without a tunnel sends WireGuard messages,
// so that it can be sent a reset.
func (g *Guests) stray(w RelayConn, from cert.NodeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if key := (sessionKey{from, 0}); g.sessions[key] != w {
		g.noteLocked(key, w)
	}
}

func (g *Guests) noteLocked(key sessionKey, w RelayConn) {
	noted := &g.atHome
	if c, ok := w.(*Guest); ok {
		if c.ctx.Err() != nil {
			return
		}
		noted = &c.notes
	}
	if old := noted.add(key); g.sessions[old] == w {
		delete(g.sessions, old)
	}
	g.sessions[key] = w
}

// SetTunnel sets the connection of the tunnel with a peer; nil when the tunnel has ended. It
// reports whether that connection exists.
func (g *Guests) SetTunnel(peer cert.NodeID, w RelayConn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if old, ok := g.peers[peer].(*Guest); ok {
		old.users--
		old.used = time.Now()
		if old.users == 0 && old.ctx.Err() == nil {
			old.timer.Reset(g.idle)
		}
	}
	delete(g.peers, peer)
	if w == nil {
		return false
	}
	if c, ok := w.(*Guest); ok {
		if c.ctx.Err() != nil {
			return false
		}
		c.users++
	}
	g.peers[peer] = w
	return true
}

// Of returns the connection of an introduction.
func (g *Guests) Of(peer cert.NodeID, session uint64) RelayConn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w := g.sessions[sessionKey{peer, session}]; w != nil {
		return w
	}
	return g.home
}

// SendSession sends an introduction frame over the connection of its introduction.
func (g *Guests) SendSession(to cert.NodeID, frame []byte) error {
	id, opens := intro.FrameSession(frame)
	key := sessionKey{to, id}
	g.mu.Lock()
	w := g.sessions[key]
	if w == nil {
		w = g.calls[to]
		if w == nil {
			w = g.peers[to]
		}
		if w == nil {
			w = g.home
		}
		if opens {
			g.noteLocked(key, w)
		}
	}
	g.mu.Unlock()
	return w.SendSession(to, frame)
}
