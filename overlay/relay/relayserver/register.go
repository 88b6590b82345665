package relayserver

import (
	"errors"
	"net"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

// Which connection a node has.

var (
	errKicked = errors.New("removed while it was connecting")
	errFull   = errors.New("the relay has no room for another client")
	errHeld   = errors.New("connections of this node have replaced each other too often, and the present one still answers")
)

// register makes c the connection of its NodeID. began is from before its certificate was
// verified: a node kicked since then is refused.
//
// After too many flips it returns errHeld, unless the present connection is silent, which
// has not answered a ping. With errHeld it returns the present connection if the caller
// may ping it now.
func (s *Server) register(c *client, id cert.NetworkID, began int64, silent *client) (holder *client, err error) {
	s.mu.Lock()
	at := address{id, c.id}
	f := s.flips[at]
	var old *client
	if n := s.networks[id]; n != nil {
		old = n.clients[c.id]
	}
	switch {
	case s.closed:
		err = net.ErrClosed
	case s.kicked[at] >= began:
		err = errKicked
	case s.cfg.Limits.Clients > 0 && s.clients.Load() >= int64(s.cfg.Limits.Clients):
		err = errFull
	case old != nil && old != silent && f != nil && s.now() < f.hold:
		err = errHeld
		if now := s.now(); now-f.asked >= int64(flipAsk) {
			f.asked, holder = now, old
		}
	}
	if err != nil {
		s.mu.Unlock()
		return holder, err
	}
	s.wg.Add(1)
	c.mu.Lock()
	c.timer = time.AfterFunc(pingAfter, c.tick)
	c.mu.Unlock()
	n := s.networks[id]
	if n == nil {
		n = &network{id: id, clients: map[cert.NodeID]*client{}}
		s.networks[id] = n
	}
	c.net = n
	c.number = s.numbers.Add(1)
	n.clients[c.id] = c
	s.clients.Add(1)
	alert := false
	if old != nil {
		s.clients.Add(-1)
		c.flipped, c.after = s.now(), old.process
		alert = s.flippedLocked(at, c.flipped)
	}
	s.mu.Unlock()
	if old != nil {
		s.replaced.Add(1)
		old.finish(relay.TypeReplaced, nil)
	}
	if alert {
		s.cfg.Log.Warn("connections of one node keep replacing each other: two machines may use a copy of its state directory", "network", id, "node", c.id, "remote", c.c.RemoteAddr(), "other", old.c.RemoteAddr())
		if s.cfg.Alert != nil {
			s.cfg.Alert(id, c.id)
		}
	}
	return nil, nil
}

func (s *Server) unregister(c *client) {
	s.mu.Lock()
	if c.net.clients[c.id] == c {
		delete(c.net.clients, c.id)
		s.clients.Add(-1)
	}
	if len(c.net.clients) == 0 && s.networks[c.net.id] == c.net {
		delete(s.networks, c.net.id)
	}
	s.mu.Unlock()
	s.nudgeMu.Lock()
	delete(s.behind, c)
	s.nudgeMu.Unlock()
	c.presence(false)
}

// find returns the connection of a node in a network, nil when it has none.
func (s *Server) find(n *network, id cert.NodeID) *client {
	s.mu.RLock()
	defer s.mu.RUnlock()
	// n may have been removed and another one added for the same network.
	if now := s.networks[n.id]; now != nil {
		return now.clients[id]
	}
	return nil
}

// all returns the clients of a network.
func (s *Server) all(id cert.NetworkID) []*client {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.networks[id]
	if n == nil {
		return nil
	}
	out := make([]*client, 0, len(n.clients))
	for _, c := range n.clients {
		out = append(out, c)
	}
	return out
}

// Kick ends a node's connection at once. A connection that is being verified meanwhile is
// refused, so call Kick after the change that makes Verify refuse.
func (s *Server) Kick(id cert.NetworkID, node cert.NodeID) {
	now := s.now()
	s.mu.Lock()
	for a, at := range s.kicked {
		if at < now-int64(kickMemory) {
			delete(s.kicked, a)
		}
	}
	s.kicked[address{id, node}] = now
	var c *client
	if n := s.networks[id]; n != nil {
		if c = n.clients[node]; c != nil {
			delete(n.clients, node)
			s.clients.Add(-1)
		}
	}
	s.mu.Unlock()
	if c != nil {
		c.finish(relay.TypeRefused, []byte{byte(relay.RefusedUnknown)})
	}
}

// Online reports whether a node is connected, and the number of its connection.
func (s *Server) Online(id cert.NetworkID, node cert.NodeID) (conn uint64, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := s.networks[id]; n != nil {
		if c := n.clients[node]; c != nil {
			return c.number, true
		}
	}
	return 0, false
}
