package overlay

import (
	"net/netip"
	"sort"
	"sync"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/path"
	"weft/overlay/status"
)

// The reasons of what is no path of an agent.
var (
	relayReason   = path.Reason{Text: "this device has no UDP socket; one would make direct paths possible", Short: "no UDP here"}
	idleReason    = path.Reason{Text: "no tunnel: nothing was sent lately"}
	unknownReason = path.Reason{Text: "no tunnel; whether the peer is online is not known: the server has not said so since this daemon started"}
	offlineReason = path.Reason{Text: "not connected to a relay"}
)

// health is what needs attention.
type health struct{ status.Warnings }

func (h *health) has(code status.Code) bool { return h.Has(code) }
func (h *health) changed() <-chan struct{}  { return h.Changed() }

// Warn adds a health warning from outside the node, such as a taken port.
func (n *Node) Warn(code status.Code, message string) {
	n.health.Set(code, message)
	n.outsideChanged(code)
}

// codeNoIPv4 is the warning of a Net that what peers send over IPv4 does not
// arrive here.
const codeNoIPv4 = status.CodeIPv4Blocked

func (n *Node) outsideChanged(code status.Code) {
	if code == codeNoIPv4 {
		n.cfg.NamesChanged()
	}
}

// Clear takes back what Warn has added.
func (n *Node) Clear(code status.Code) {
	n.health.Clear(code)
	n.outsideChanged(code)
}

// State says what the node is doing as a whole.
func (n *Node) State() status.State {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.id.joined():
		return status.StateUnjoined
	case n.running == nil:
		return status.StateDown
	case n.running.home.connected():
		return status.StateRunning
	}
	return status.StateConnecting
}

// contact takes the time that came with an answer of the server.
func (n *Node) contact(serverTime time.Time) {
	n.clock.Contact(serverTime)
	n.keepTime(timeKept)
	now := time.Now().UTC()
	n.heard.Store(&now)
}

// lateRenewal returns a warning when the certificate should have been renewed
// long ago: with 21 days left of 90, "" before. It is renewed with a third of its
// life left, unless the server says otherwise.
func (n *Node) lateRenewal(self *cert.Node) string {
	left := self.NotAfter.Sub(n.clock.Now())
	switch {
	case left > self.NotAfter.Sub(self.NotBefore)*7/30:
		return ""
	case left <= 0:
		return "this device's certificate ended " + ago(-left) + " ago: other devices do not believe it until it is renewed, which happens when the server is reached"
	}
	return "this device's certificate ends in " + ago(left) + " and could not be renewed: see to it that the server is reached"
}

// Status implements localapi.Node.
func (n *Node) Status() status.Status { return n.statusOf(cert.NodeID{}) }

// statusOf is Status with one more peer in it, if it is known.
func (n *Node) statusOf(also cert.NodeID) status.Status {
	st := status.Status{
		Schema: status.Schema, State: n.State(), Version: n.cfg.Version,
		Peers: []status.PeerStatus{}, Health: n.health.List(),
	}
	if at := n.heard.Load(); at != nil {
		st.Server.LastSeen = at
	}
	n.mu.Lock()
	r := n.running
	s, ok := n.snap.get()
	if n.id != nil {
		st.Network = n.id.Network.String()
		st.Server.URL = n.id.URLs[0]
	}
	n.mu.Unlock()
	if !ok {
		return st
	}
	st.Self = status.SelfStatus{
		ID: s.self.ID.String(), Name: s.self.Name, FQDN: s.self.FQDN,
		IPv4: s.self.IPv4.String(), IPv6: s.self.IPv6.String(),
	}
	expires := s.self.NotAfter.UTC()
	st.Self.CertificateExpires = &expires
	if r == nil {
		return st
	}
	st.Self.Online = r.home.connected()
	st.Self.Relay = r.home.relay().Name
	st.Server.Online = st.Self.Online && !n.health.Has(status.CodeServerOffline)
	if late := n.lateRenewal(s.self); late != "" {
		st.Health = append(st.Health, status.Health{Code: status.CodeCertificate, Message: late})
	}
	if skew, ok := n.clock.Skew(); ok && skew.Abs() > 5*time.Minute {
		st.Health = append(st.Health, status.Health{Code: status.CodeClock, Message: "this machine's clock is off by " + ago(skew.Abs()) + "; weft goes by the server's, other programs may not"})
	}
	now, weftNow := time.Now(), n.clock.Now().UTC()
	st.Time = &weftNow
	// weftTime is when something was by the clock that the server's times go by.
	weftTime := func(at time.Time) *time.Time {
		t := weftNow.Add(-now.Sub(at))
		return &t
	}
	tunnels := *r.peers.view.Load()
	for _, k := range n.dir.all() {
		t, tunnel := tunnels[k.node.ID]
		if k.node.ID == s.self.ID || !tunnel && !k.listed && k.node.ID != also {
			continue // of the latter: looked up once, no tunnel
		}
		p := status.PeerStatus{
			ID: k.node.ID.String(), Name: k.node.Name, FQDN: k.node.FQDN,
			IPv4: k.node.IPv4.String(), IPv6: k.node.IPv6.String(), Path: status.PathIdle,
		}
		if !k.lastSeen.IsZero() {
			t := k.lastSeen.UTC()
			p.LastSeen = &t
		}
		why, is := idleReason, presenceAt(now, k, nil, time.Time{})
		if is.at.IsZero() {
			why = unknownReason
		}
		if tunnel {
			p.Path, why, p.Relay = status.PathRelay, relayReason, t.via
			if t.trip != nil {
				p.Path, why, p.Endpoint = t.shown()
			}
			if rtt := t.roundTrip(); rtt > 0 {
				ms := float64(rtt.Microseconds()) / 1000
				p.RTTms = &ms
			}
			p.KeyExchange = "X25519MLKEM768"
			var heard time.Time
			if ws, ok := n.device.Stats(k.node.ID); ok {
				p.RxBytes, p.TxBytes, heard = ws.RxBytes, ws.TxBytes, ws.LastRx
				if !ws.LastHandshake.IsZero() {
					h := ws.LastHandshake.UTC()
					p.LastHandshake = &h
				}
			}
			is = presenceAt(now, k, &t, heard)
			if at := weftTime(heard); !heard.IsZero() && (p.LastSeen == nil || at.After(*p.LastSeen)) {
				p.LastSeen = at
			}
		}
		p.Online = is.online
		if !is.at.IsZero() {
			p.PresenceAt = weftTime(is.at)
			if !is.online {
				p.Path, why, p.Endpoint = status.PathOffline, offlineReason, ""
			}
		}
		p.PathReason, p.PathNote = why.Text, why.Short
		st.Peers = append(st.Peers, p)
	}
	sort.Slice(st.Peers, func(i, j int) bool { return st.Peers[i].Name < st.Peers[j].Name })
	return st
}

// shown is the path of a tunnel, for people. A quiet one is idle: its next packet
// takes the relay, and perhaps only that one.
func (v peerView) shown() (kind status.PathKind, reason path.Reason, endpoint string) {
	switch {
	case v.path.Kind == path.Direct:
		return status.PathDirect, v.path.Reason, v.path.Via.Addr.String()
	case v.path.Kind == path.Lane:
		return status.PathLane, v.path.Reason, ""
	case v.path.Quiet:
		return status.PathIdle, v.path.Reason, ""
	}
	return status.PathRelay, v.path.Reason, ""
}

// roundTrip is that of the way in use, else that of the last ping.
func (v peerView) roundTrip() time.Duration {
	if v.trip != nil && v.path.Kind != path.Relay {
		if rtt := time.Duration(v.trip.Load()); rtt > 0 {
			return rtt
		}
	}
	return v.rtt
}

// nameCache keeps the snapshot of names until something changes.
type nameCache struct {
	mu sync.Mutex
	// mu guards the following.
	names   *status.Names
	snap    *snapshot
	changes uint64
	online  bool
}

// Names implements localapi.Node.
func (n *Node) Names() *status.Names {
	s, ok := n.snap.get()
	dir := n.dir
	r := n.active.Load()
	online := r != nil && r.home.connected() && !n.health.Has(status.CodeServerOffline)
	c := &n.names
	c.mu.Lock()
	defer c.mu.Unlock()
	changes := dir.changeCount()
	noIPv4 := n.health.Has(codeNoIPv4)
	if c.names != nil && c.snap == s && c.changes == changes && c.online == online && c.names.NoIPv4 == noIPv4 {
		return c.names
	}
	next := &status.Names{Serial: 1, NoIPv4: noIPv4}
	if c.names != nil {
		next.Serial = c.names.Serial + 1
	}
	if ok {
		next.Ready = true
		next.LookedUp = dir.currentRound()
		next.Suffix = s.config.Suffix
		next.IPv4, _ = netip.ParsePrefix(s.config.Self.IPv4Prefix)
		next.IPv6, _ = netip.ParsePrefix(s.config.Self.IPv6Prefix)
		next.Complete = online && s.readsDirectory() && !dir.currentVersion().IsZero()
		next.Peers = append(next.Peers, peerOf(s.self, true, true))
		list := dir.all()
		for _, k := range list {
			if k.node.ID != s.self.ID {
				p := peerOf(k.node, k.online, false)
				p.LookedUp = !k.listed
				next.Peers = append(next.Peers, p)
				for _, a := range k.aliases {
					if k.listed {
						next.Aliases = append(next.Aliases, status.Alias{Name: a.Name, Target: k.node.Name, Until: a.Until})
					}
				}
			}
		}
		sort.Slice(next.Peers, func(i, j int) bool { return next.Peers[i].Name < next.Peers[j].Name })
		sort.Slice(next.Aliases, func(i, j int) bool { return next.Aliases[i].Name < next.Aliases[j].Name })
	}
	c.names, c.snap, c.changes, c.online = next, s, changes, online
	return next
}

// Relays implements localapi.Node.
func (n *Node) Relays() []status.Relay {
	out := []status.Relay{}
	n.mu.Lock()
	r := n.running
	s, ok := n.snap.get()
	n.mu.Unlock()
	if !ok {
		return out
	}
	current := ""
	if r != nil {
		current = r.home.relay().ID
	}
	out = append(out, status.Relay{Name: "server", URLs: s.config.ServerURLs, STUN: []string{}, Server: true})
	for _, rl := range s.config.Relays {
		out = append(out, status.Relay{ID: rl.ID, Name: rl.Name, URLs: rl.URLs, STUN: rl.STUN, Current: rl.ID == current})
	}
	return out
}
