package overlay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/network"
	"weft/overlay/internal/paths"
	"weft/overlay/internal/state"
	"weft/overlay/internal/tunnels"
	"weft/overlay/link"
	"weft/overlay/status"
)

// running is the part of a node that exists between up and down: the link to
// the relay, the tunnels, and what keeps in step with the server.
type running struct {
	n        *Node
	client   *client.Client
	dialer   *link.Dialer
	home     *homes.Home
	guests   *homes.Guests
	peers    *tunnels.Table
	follower *follow.Follower
	sinks    *network.Sinks

	// Close ends the tunnels first, while there still is a relay to say bye
	// through, then the rest.
	endPeers, endRest context.CancelFunc
	tunnels, rest     sync.WaitGroup
	rt                interface{ CloseIdleConnections() }

	asking chan struct{} // capacity 1: who holds its place asks for presence (look.go)
	asked  time.Time     // when that was last done; theirs
}

// run makes the running half from what is on disk. Nil when it runs already.
// What the node holds of its network is there for as long as it runs.
func (n *Node) run() error {
	n.turn.Lock()
	defer n.turn.Unlock()
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
	case !n.held.Identity().Joined(): // a logout came first
		n.mu.Unlock()
		return errNotJoined
	}
	s, err := n.loadLocked()
	if err != nil {
		n.mu.Unlock()
		return err
	}
	n.mu.Unlock()
	dialer := n.makeDialer()
	rt := dialer.Transport()
	pctx, endPeers := context.WithCancel(context.Background())
	ctx, endRest := context.WithCancel(context.Background())
	r := &running{n: n, client: client.New(rt, n.contact), dialer: dialer, endPeers: endPeers, endRest: endRest, asking: make(chan struct{}, 1)}
	r.rt, _ = rt.(interface{ CloseIdleConnections() })
	r.home, r.guests = n.makeHomes(r, dialer, s.Self.ID)
	r.peers = tunnels.New(pctx, s, n.tunnelsConfig(r))
	r.follower = n.makeFollower(r)
	r.sinks = n.sinks(r)
	r.sinks.Apply() // ranges come before addresses
	if err := n.cfg.Net.SetAddrs(s.Self.IPv4, s.Self.IPv6); err != nil {
		r.sinks.End()
		endPeers()
		endRest()
		return fmt.Errorf("set addresses: %w", err)
	}
	n.mu.Lock()
	n.running, n.down = r, false
	n.active.Store(r)
	n.mu.Unlock()

	r.tunnels.Go(r.peers.Run)
	r.rest.Go(func() { r.follower.Run(ctx) })
	r.rest.Go(func() { r.home.Run(ctx) })
	r.rest.Go(func() { n.watchWorld(ctx, r) })
	n.health.Notify()
	return nil
}

// tunnelsConfig is what the tunnels of r need of the node.
func (n *Node) tunnelsConfig(r *running) tunnels.Config {
	u := n.cfg.UDP
	return tunnels.Config{
		Held: &n.held, Directory: n.dir, Clock: n.clock, Health: &n.health, Log: n.log,
		Bind: n.bind, Forwarder: n.forwarder, Plane: n.plane, Keys: n.keys, Filters: n.filters, Home: r.home, Guests: r.guests,
		UDP:  paths.UDP{Off: u.Off, Endpoints: u.Endpoints, NoPortMap: u.NoPortMap, Interfaces: u.Interfaces},
		Idle: n.idleAfter, Unproven: n.unproven,
		Identity: n.shownCertificate, Find: n.find, Where: n.whereIs, AskTime: n.inTime, Name: n.nameOf,
		TakeCRL: func(der []byte) (bool, error) { return r.follower.TakeCRL(der) },
		Behind:  func() bool { return r.follower.Behind() },
	}
}

// makeFollower makes what keeps r in step with the server.
func (n *Node) makeFollower(r *running) *follow.Follower {
	return follow.New(follow.Config{
		Client: r.client, Held: &n.held, Directory: n.dir, Clock: n.clock, Health: &n.health, Log: n.log, Software: n.cfg.Version,
		Keep: n.keeper.Keep, Changed: func() { r.sinks.Apply() }, NamesChanged: n.cfg.NamesChanged,
		Tell: r.home.SendVersions, Current: r.peers.UpToDate, Removed: n.removed,
	})
}

// loadLocked fills what is held of the network and the directory from disk, where
// they are not there already.
func (n *Node) loadLocked() (*network.Network, error) {
	id := n.held.Identity()
	s, ok := n.held.Get()
	if !ok {
		crl := n.state.Load(state.CRLFile)
		var config api.Config
		err := errors.New("no usable configuration")
		if n.state.LoadCache(state.ConfigFile, &config) {
			s, err = network.New(id, &config, crl)
		}
		if err != nil { // or one that is older or newer than the identity
			s, err = network.New(id, id.BareConfig(), crl)
		}
		if err != nil {
			return nil, fmt.Errorf("state directory %s: %w", n.state.Path(), err)
		}
		pinned := map[string]cert.NodeID{}
		n.state.LoadCache(state.NamesFile, &pinned)
		n.dir.Pin(pinned)
		n.clock.Floor(id.ServerTime)
		n.held.Join(id, s)
	}
	var dir directory.Saved
	if n.state.LoadCache(state.DirectoryFile, &dir) && n.dir.Version().IsZero() {
		n.dir.Restore(dir, s.VerifyListed)
	}
	return s, nil
}

// close stops everything and waits for it.
func (r *running) close() {
	r.endPeers()
	r.tunnels.Wait()
	r.home.Flush()
	r.endRest()
	r.rest.Wait()
	r.sinks.End()
	if r.rt != nil {
		r.rt.CloseIdleConnections()
	}
	r.n.keepTime(time.Second)
	r.n.health.Clear(status.CodeRelayOffline) // it ended on purpose
	r.n.health.Notify()
}
