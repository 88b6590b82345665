package overlay

import (
	"context"
	"time"

	"weft/overlay/cert"
	"weft/overlay/fips"
	"weft/overlay/status"
)

// Warn adds a health warning from outside the node, such as a taken port.
func (n *Node) Warn(code status.Code, message string) {
	n.health.Set(code, message)
	n.outsideChanged(code)
}

// outsideChanged handles changes of warnings from outside: the warning of a Net that IPv4
// from peers does not arrive changes the addresses of names.
func (n *Node) outsideChanged(code status.Code) {
	if code == status.CodeIPv4Blocked {
		n.cfg.NamesChanged()
	}
}

// Clear removes a warning that Warn has added.
func (n *Node) Clear(code status.Code) {
	n.health.Clear(code)
	n.outsideChanged(code)
}

// State returns the state of the node as a whole.
func (n *Node) State() status.State {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.running
	switch {
	case !n.held.Identity().Joined():
		return status.StateUnjoined
	case r == nil:
		return status.StateDown
	case r.home.Connected():
		return status.StateRunning
	}
	return status.StateConnecting
}

// await waits until done returns true for the state. It returns an error early if this
// device was removed from its network, and ok false when ctx ends.
func (n *Node) await(ctx context.Context, done func(status.State) bool) (st status.State, ok bool, err error) {
	for {
		changed := n.health.Changed()
		st = n.State()
		if err := n.removal.err(); err != nil {
			return st, false, err
		}
		if done(st) {
			return st, true, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return st, false, nil
		}
	}
}

// Status implements localapi.Node.
func (n *Node) Status() status.Status { return n.statusOf(cert.NodeID{}) }

// statusOf is Status with one more peer, if it is known.
func (n *Node) statusOf(also cert.NodeID) status.Status { return status.Of(n.facts(also)) }

// facts collects the facts for the status.
func (n *Node) facts(also cert.NodeID) status.Facts {
	f := status.Facts{State: n.State(), Version: n.cfg.Version, Health: n.health.List(), ServerSeen: n.times.answered(), FIPS: fips.Now()}
	n.mu.Lock()
	r := n.running
	s, ok := n.held.Get()
	if id := n.held.Identity(); id != nil {
		f.Network, f.ServerURL = id.Network.String(), id.URLs[0]
	}
	n.mu.Unlock()
	if !ok {
		return f
	}
	f.Self, f.Reports, f.SignIn = s.Self, s.Config.Introductions, signInStatus(s.Config.SignIn, n.clock.Now())
	if r == nil {
		return f
	}
	f.Up, f.Online, f.Relay = true, r.home.Connected(), r.home.Relay().Name
	f.ServerOffline = n.health.Has(status.CodeServerOffline)
	f.Skew, _ = n.clock.Skew()
	f.Now, f.WeftNow = time.Now(), n.clock.Now()
	tunnels := r.peers.Views()
	for _, k := range n.dir.All() {
		p := status.PeerFacts{
			Node: k.Node, Shown: k.Listed || k.Node.ID == also,
			Reported: status.Presence{Online: k.Online, At: k.PresenceAt}, LastSeen: k.LastSeen,
		}
		if v, ok := tunnels[k.Node.ID]; ok {
			p.Tunnel = v.Tunnel()
			if st, ok := r.stats(k.Node.ID); ok {
				p.Tunnel.Rx, p.Tunnel.Tx, p.Tunnel.LastReceived, p.Tunnel.LastHandshake = st.RxBytes, st.TxBytes, st.LastRx, st.LastHandshake
			}
			if keys, ok := r.keys(k.Node.ID); ok {
				p.Tunnel.KeysSince, p.Tunnel.KeysPackets = keys.Since, keys.Packets
			}
		}
		f.Peers = append(f.Peers, p)
	}
	return f
}

// Relays implements localapi.Node.
func (n *Node) Relays() []status.Relay {
	out := []status.Relay{}
	n.mu.Lock()
	r := n.running
	s, ok := n.held.Get()
	n.mu.Unlock()
	if !ok {
		return out
	}
	current := ""
	if r != nil {
		current = r.home.Relay().ID
	}
	out = append(out, status.Relay{Name: "server", URLs: s.Config.ServerURLs, STUN: []string{}, Server: true})
	for _, rl := range s.Config.Relays {
		out = append(out, status.Relay{ID: rl.ID, Name: rl.Name, URLs: rl.URLs, STUN: rl.STUN, Current: rl.ID == current})
	}
	return out
}
