package overlay

import (
	"context"
	"fmt"
	"sync"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/lookup"
	"weft/overlay/internal/network"
	"weft/overlay/internal/paths"
	"weft/overlay/internal/tunnels"
	"weft/overlay/link"
)

// running is the part of a node that exists between up and down: the relay connections,
// the tunnels, and the follower of the server.
type running struct {
	client   *client.Client
	dialer   *link.Dialer
	home     *homes.Home
	guests   *homes.Guests
	peers    *tunnels.Table
	follower *follow.Follower
	sinks    *network.Sinks
	presence *lookup.Presence
	stats    func(id cert.NodeID) (dataplane.Stats, bool) // counters of a tunnel
	keys     func(id cert.NodeID) (dataplane.KeyState, bool)

	// close ends the tunnels first, while there still is a relay for sending bye, then
	// the rest.
	endPeers, endRest context.CancelFunc
	tunnels, rest     sync.WaitGroup
}

// runs returns the running half of the node and its Network, both of one moment, or why
// there is none. If the node goes down while the caller uses them, the running half
// returns errors.
func (n *Node) runs() (*running, *network.Network, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, ok := n.held.Get()
	switch {
	case !ok:
		return nil, nil, lookup.ErrNotJoined
	case n.running == nil:
		return nil, nil, tunnels.ErrDown
	}
	return n.running, s, nil
}

// run makes the running half from the files on disk. It returns nil if there is one
// already. The node has a Network for as long as it runs.
func (n *Node) run() error {
	n.turn.Lock()
	defer n.turn.Unlock()
	return n.runInTurn(n.server.dialer(), nil)
}

// runInTurn is run for a caller that holds turn. A node that has just joined may have the
// directory already.
func (n *Node) runInTurn(dialer *link.Dialer, listed *api.Directory) error {
	n.mu.Lock()
	switch {
	case n.closed || n.state == nil:
		n.mu.Unlock()
		return fmt.Errorf("overlay: the node is closed")
	case n.running != nil:
		sinks := n.running.sinks
		n.mu.Unlock()
		sinks.Apply() // a join may have been repeated
		return nil
	case !n.held.Identity().Joined(): // a logout was faster
		n.mu.Unlock()
		return lookup.ErrNotJoined
	}
	s, err := n.disk.load(n.state, n.clock)
	if err != nil {
		n.mu.Unlock()
		return err
	}
	n.mu.Unlock()
	pctx, endPeers := context.WithCancel(context.Background())
	ctx, endRest := context.WithCancel(context.Background())
	r := &running{client: client.New(dialer.Transport(), n.times.server), dialer: dialer, stats: n.plane.stats, keys: n.plane.keys, endPeers: endPeers, endRest: endRest}
	r.client.Cargo = &n.claims
	r.home, r.guests = n.makeHomes(r, s.Self.ID)
	r.peers = tunnels.New(pctx, s, n.tunnelsConfig(r))
	r.presence = n.lookup.NewPresence(r.client, func(id cert.NodeID) bool { _, ok := r.peers.Views()[id]; return ok })
	r.follower = n.makeFollower(r, listed)
	r.sinks = n.sinks(r)
	r.sinks.Apply() // ranges must be set before addresses
	if err := n.cfg.Net.SetAddrs(s.Self.IPv4, s.Self.IPv6); err != nil {
		r.sinks.End()
		endPeers()
		endRest()
		return fmt.Errorf("set addresses: %w", err)
	}
	n.mu.Lock()
	n.running = r
	n.active.Store(r)
	n.mu.Unlock()

	r.tunnels.Go(r.peers.Run)
	r.rest.Go(func() { r.follower.Run(ctx) })
	r.rest.Go(func() { r.home.Run(ctx) })
	r.rest.Go(func() { n.machine(r).watch(ctx) })
	n.health.Notify()
	return nil
}

// tunnelsConfig returns the configuration of r's tunnels.
func (n *Node) tunnelsConfig(r *running) tunnels.Config {
	u, p := n.cfg.UDP, n.plane
	cfg := tunnels.Config{
		Held: &n.held, Directory: n.dir, Clock: n.clock, Health: &n.health, Log: n.log,
		Bind: p.bind, Forwarder: p.forwarder, Plane: p.wg, Keys: p.wg, Filters: n.filters, Home: r.home, Guests: r.guests,
		Refused: p.refused,
		UDP:     paths.UDP{Off: u.Off || p.refused != nil, Endpoints: u.Endpoints, NoPortMap: u.NoPortMap, Interfaces: u.Interfaces},
		Idle:    n.tuning.idle, Unproven: n.tuning.unproven,
		Identity: n.server.shown, Find: n.lookup.Find, Where: n.lookup.Where, AskTime: n.lookup.AskTime, Name: n.lookup.Name,
		Claims:  &n.claims,
		TakeCRL: func(der []byte) (bool, error) { return r.follower.TakeCRL(der) },
		Behind:  func() bool { return r.follower.Behind() },
	}
	if p.aes != nil {
		cfg.AES, cfg.OnlyAES = p.aes, p.onlyAES
	}
	return cfg
}

// makeFollower makes the follower that keeps r in step with the server.
func (n *Node) makeFollower(r *running, listed *api.Directory) *follow.Follower {
	return follow.New(follow.Config{
		Listed: listed,
		Client: r.client, Held: &n.held, Directory: n.dir, Clock: n.clock, Health: &n.health, Log: n.log, Software: n.cfg.Version,
		Keep: n.keeper.Mark, Changed: func() { r.sinks.Apply() }, NamesChanged: n.cfg.NamesChanged,
		Tell: r.home.SendVersions, Current: r.peers.UpToDate, Removed: n.removal.noticed,
	})
}

// close stops everything and waits for it.
func (r *running) close() {
	r.endPeers()
	r.tunnels.Wait()
	r.home.Flush()
	r.endRest()
	r.rest.Wait()
	r.sinks.End()
	r.dialer.Drop()
	r.client.CloseIdleConnections()
}
