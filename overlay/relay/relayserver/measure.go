package relayserver

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"weft/overlay/cert"
	"weft/overlay/relay"
)

// maxMeasures bounds the concurrent measurements of one client.
const maxMeasures = 16

// ErrAbsent is returned by Ping for a node that is not connected here.
var ErrAbsent = errors.New("not connected to this relay")

// errBusy is returned by Ping when maxMeasures others are measuring.
var errBusy = errors.New("too many measurements of this device at once")

// Ping measures the round trip between the relay and a connected node, for a user who
// looks at a device. It returns ErrAbsent when the node is not connected or disconnects,
// and the error of ctx when no answer comes.
func (s *Server) Ping(ctx context.Context, id cert.NetworkID, node cert.NodeID) (time.Duration, error) {
	s.mu.RLock()
	var c *client
	if n := s.networks[id]; n != nil {
		c = n.clients[node]
	}
	s.mu.RUnlock()
	if c == nil {
		return 0, ErrAbsent
	}
	return c.ask(ctx)
}

// answers pings the client and reports whether it answers within flipAsk, or longer if
// its answers are known to be slow.
func (c *client) answers(ctx context.Context) bool {
	c.mu.Lock()
	wait := c.trip.Wait(flipAsk, probeMost)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_, err := c.ask(ctx)
	return err == nil || errors.Is(err, errBusy)
}

// ask is Ping for one connection.
func (c *client) ask(ctx context.Context) (time.Duration, error) {
	var nonce [8]byte
	rand.Read(nonce[:])
	nonce[0] |= 1 // pings after silence have a nonce of zero
	done := make(chan struct{})
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return 0, ErrAbsent
	case len(c.measures) >= maxMeasures:
		c.mu.Unlock()
		return 0, errBusy
	case c.measures == nil:
		c.measures = map[[8]byte]chan struct{}{}
	}
	c.measures[nonce] = done
	c.controlLocked(relay.AppendFrame(nil, relay.TypePing, nonce[:]))
	c.mu.Unlock()
	start := time.Now()
	defer func() {
		c.mu.Lock()
		delete(c.measures, nonce)
		c.mu.Unlock()
	}()
	select {
	case <-done:
		if c.gone.Load() {
			return 0, ErrAbsent
		}
		return time.Since(start), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Look pings those of nodes that are connected here and have been silent for a while, for
// a user who looks at a list of them. It waits until all have answered or ctx ends. A
// node that does not answer is disconnected as after a ping of the relay's own; until
// then it is not pinged again.
func (s *Server) Look(ctx context.Context, id cert.NetworkID, nodes []cert.NodeID) {
	var wg sync.WaitGroup
	defer wg.Wait()
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.networks[id]
	if n == nil {
		return
	}
	for _, node := range nodes {
		if c := n.clients[node]; c != nil && c.doubt() {
			wg.Go(func() { c.ask(ctx) })
		}
	}
}

// doubt starts to wait for input of a client that has been silent, unless somebody is
// waiting already, and reports whether it did. The caller must then send a ping.
func (c *client) doubt() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, rx := c.s.now(), c.lastRx.Load()
	if c.closed || now-rx <= int64(probeAfter) || c.pingAt != 0 && rx < c.pingAt {
		return false
	}
	c.pingAt = now
	c.timer.Reset(pingAnswer)
	return true
}

// Heard returns when anything was last received from a connected node, by Config.Now. ok
// is false if the node is not connected.
func (s *Server) Heard(id cert.NetworkID, node cert.NodeID) (time.Time, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := s.networks[id]; n != nil {
		if c := n.clients[node]; c != nil {
			return s.cfg.Now().Add(-time.Duration(s.now() - c.lastRx.Load())), true
		}
	}
	return time.Time{}, false
}

// Traffic returns how many bytes of packets, introductions and relayed UDP a connected
// node has sent through the relay since it connected, and how many were forwarded to it.
// ok is false if the node is not connected.
func (s *Server) Traffic(id cert.NetworkID, node cert.NodeID) (sent, received uint64, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := s.networks[id]; n != nil {
		if c := n.clients[node]; c != nil {
			return c.sent.Load(), c.received.Load(), true
		}
	}
	return 0, 0, false
}

// measured handles a pong.
func (c *client) measured(nonce []byte, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if [8]byte(nonce) == ([8]byte{}) && c.pingAt != 0 {
		c.trip.Add(time.Duration(now - c.pingAt))
	}
	if done, ok := c.measures[[8]byte(nonce)]; ok {
		delete(c.measures, [8]byte(nonce))
		close(done)
	}
}
