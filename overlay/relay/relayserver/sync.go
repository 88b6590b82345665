package relayserver

import (
	"context"
	"slices"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay"
)

// Keeping nodes' versions in step: a client whose versions are not the current ones is
// nudged, and again every 30 s until they are. One timer serves all clients. A nudge
// carries a short delta of the directory, so that a rename costs no request.

// versions takes the versions that a client says it has. The first call makes it a home
// connection.
func (c *client) versions(v api.Versions) {
	c.mu.Lock()
	c.held, c.home = v, true
	c.mu.Unlock()
	c.presence(true)
	if c.s.cfg.Holds != nil {
		c.s.cfg.Holds(c.net.id, c.id, v)
	}
	current := c.s.compare(c, c.s.spread(c.net.id))
	if c.s.cfg.CRL == nil || v.CRL >= current.CRL {
		return
	}
	if der := c.s.cfg.CRL(c.net.id); len(der) > 0 && len(der) <= inlineCRL {
		c.pushCRL(relay.AppendFrame(nil, relay.TypeCRL, der))
	}
}

// inlineCRL is the longest CRL, in bytes, that is sent to a node that connects with an
// older one. A longer one it must fetch.
const inlineCRL = 64 << 10

// compare nudges c if its versions are not current, and remembers it until they are. It
// returns the current versions.
func (s *Server) compare(c *client, spread int) api.Versions {
	c.comparing.Lock()
	defer c.comparing.Unlock()
	current := s.cfg.Versions(c.net.id, c.id)
	changes := s.changes(c, current)
	if changes != nil {
		current.Directory = changes.Version
	}
	c.mu.Lock()
	behind := c.home && !s.cfg.unversioned && differ(c.held, current) && !c.closed && !c.finishing
	if behind {
		nudge := relay.Nudge{Versions: current, SpreadMS: spread, Away: s.cfg.Away(), Changes: changes}
		body := mustJSON(nudge)
		if len(body) > relay.MaxJSON {
			nudge.Changes = nil
			body = mustJSON(nudge)
		}
		c.nudge = relay.AppendFrame(nil, relay.TypeNudge, body)
		c.wakeLocked()
	}
	c.mu.Unlock()
	s.nudgeMu.Lock()
	defer s.nudgeMu.Unlock()
	if !behind || c.gone.Load() {
		delete(s.behind, c)
		return current
	}
	s.behind[c] = s.now()
	s.armLocked(nudgeEvery)
	return current
}

// changes returns the delta that a nudge to c may carry: a new one at most once a second,
// and the same again in a nudge that replaces the one before.
func (s *Server) changes(c *client, current api.Versions) *api.Changes {
	if s.cfg.Changes == nil {
		return nil
	}
	now := s.now()
	c.mu.Lock()
	held, delta := c.held.Directory, c.lastChanges
	behind := c.home && !held.IsZero() && held != current.Directory
	due := behind && (c.changed == 0 || now-c.changed >= int64(changesEvery))
	if due {
		c.changed = now
	}
	c.mu.Unlock()
	switch {
	case due:
		delta = s.cfg.Changes(c.net.id, c.id, held)
		c.mu.Lock()
		c.lastChanges = delta
		c.mu.Unlock()
		return delta
	case behind && delta != nil && delta.Since == held && delta.Version == current.Directory:
		return delta
	}
	return nil
}

// differ reports whether a node's versions are not the current ones. A relay that does
// not have a node's versions yet compares the CRL only. Names count only for a node that
// remembers some.
func differ(held, current api.Versions) bool {
	if current.Config.IsZero() {
		return held.CRL != current.CRL
	}
	if held.Names.IsZero() || current.Names.IsZero() {
		held.Names, current.Names = api.Version{}, api.Version{}
	}
	return held != current
}

// spread is over how many milliseconds the clients of a network should spread
// their fetches.
func (s *Server) spread(id cert.NetworkID) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := s.networks[id]; n != nil && len(n.clients) > spreadAbove {
		return len(n.clients)
	}
	return 0
}

func (s *Server) armLocked(in time.Duration) {
	if s.nudgeTimer == nil && s.ctx.Err() == nil {
		s.nudgeTimer = time.AfterFunc(in, s.again)
	}
}

// again nudges the clients whose last nudge was 30 s ago.
func (s *Server) again() {
	now := s.now()
	var due []*client
	s.nudgeMu.Lock()
	s.nudgeTimer = nil
	next := int64(nudgeEvery)
	for c, at := range s.behind {
		if wait := int64(nudgeEvery) - (now - at); wait > 0 {
			next = min(next, wait)
		} else {
			due = append(due, c)
		}
	}
	if len(s.behind) > 0 {
		s.armLocked(max(time.Duration(next), time.Second))
	}
	s.nudgeMu.Unlock()
	for _, c := range due {
		s.compare(c, s.spread(c.net.id))
	}
}

// Notify says that versions changed: of one node, or with nil of any node in
// the network. Clients that are behind are nudged. It does not wait for them,
// but asks Config.Versions for each.
func (s *Server) Notify(id cert.NetworkID, node *cert.NodeID) {
	if node != nil {
		s.mu.RLock()
		var c *client
		if n := s.networks[id]; n != nil {
			c = n.clients[*node]
		}
		s.mu.RUnlock()
		if c != nil {
			s.compare(c, 0)
		}
		return
	}
	spread := s.spread(id)
	for _, c := range s.all(id) {
		s.compare(c, spread)
	}
}

// NotifyAway says that the result of Config.Away has changed. It nudges all home
// connections.
func (s *Server) NotifyAway(id cert.NetworkID) {
	for _, c := range s.all(id) {
		c.comparing.Lock()
		current, away := s.cfg.Versions(id, c.id), s.cfg.Away()
		c.mu.Lock()
		if c.home && !c.closed && !c.finishing {
			c.nudge = relay.AppendFrame(nil, relay.TypeNudge, mustJSON(relay.Nudge{Versions: current, SpreadMS: s.spread(id), Away: away}))
			c.wakeLocked()
		}
		c.mu.Unlock()
		c.comparing.Unlock()
	}
}

// PushCRL sends a network's new CRL to its clients: at once to those that exchanged
// frames with a revoked node in the last quarter of an hour, and to such a node itself,
// which may only need another certificate; to the others at 500 a
// second. A later push replaces one in progress. A CRL that is too long for a frame is
// not pushed: nudged nodes fetch it.
func (s *Server) PushCRL(id cert.NetworkID, der []byte, revoked []cert.NodeID) {
	if len(der) == 0 || len(der) > relay.MaxCRL {
		return
	}
	frame := relay.AppendFrame(nil, relay.TypeCRL, der)
	var later []*client
	for _, c := range s.all(id) {
		if slices.Contains(revoked, c.id) || c.knows(revoked) {
			c.pushCRL(frame)
		} else {
			later = append(later, c)
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed || len(later) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.nudgeMu.Lock()
	if stop := s.pushes[id]; stop != nil {
		stop()
	}
	s.pushes[id] = cancel
	s.nudgeMu.Unlock()
	s.wg.Go(func() {
		defer cancel()
		s.pushSlowly(ctx, frame, later)
	})
}

func (s *Server) pushSlowly(ctx context.Context, frame []byte, to []*client) {
	const slice = 50 // every 100 ms
	for len(to) > 0 {
		n := min(slice, len(to))
		for _, c := range to[:n] {
			c.pushCRL(frame)
		}
		if to = to[n:]; len(to) == 0 {
			return
		}
		select {
		case <-time.After(time.Second * slice / crlPerSecond):
		case <-ctx.Done():
			return
		}
	}
}

func (c *client) pushCRL(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && !c.finishing {
		c.crl = frame
		c.wakeLocked()
	}
}
