package overlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"weft/overlay/age"
	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/hostname"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/network"
	"weft/overlay/internal/path"
	"weft/overlay/internal/pause"
	"weft/overlay/internal/tunnels"
	"weft/overlay/status"
)

const (
	// proveAfter is how long a connection over an existing tunnel may take
	// before the node asks whether the peer is still there, if one and a half
	// round trips take no longer.
	proveAfter = 500 * time.Millisecond
	// deadAfter is how long after that a tunnel may bring nothing at all
	// before the nodes introduce themselves anew, with the same condition.
	deadAfter = time.Second
	// lookupWait bounds a question to the server, if that is not far (see inTime).
	lookupWait = 5 * time.Second
	// lastSeenWait bounds the question "since when is it offline?".
	lastSeenWait = 700 * time.Millisecond
	// tripMost is the longest round trip that is believed.
	tripMost = 4 * time.Second
)

// Dial connects to "name:port" over the overlay: a short name, a full name or
// an overlay address. network is tcp, tcp4, tcp6, udp, udp4 or udp6.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.DialContext(ctx, network, address)
}

// Listen accepts connections that peers make to this node's port, as far as
// policy lets them. network is tcp, tcp4 or tcp6; the address is ":port".
func (n *Node) Listen(network, address string) (net.Listener, error) {
	s, ok := n.held.Get()
	if !ok {
		return nil, errNotJoined
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", address, err)
	}
	num, err := strconv.ParseUint(port, 10, 16)
	if err != nil || host != "" {
		return nil, fmt.Errorf("listen on %q: want \":PORT\"", address)
	}
	switch network {
	case "tcp", "tcp4":
		return n.cfg.Net.ListenTCP(netip.AddrPortFrom(s.Self.IPv4, uint16(num)))
	case "tcp6":
		return n.cfg.Net.ListenTCP(netip.AddrPortFrom(s.Self.IPv6, uint16(num)))
	}
	return nil, fmt.Errorf("listen on %q: network %q: want tcp, tcp4 or tcp6", address, network)
}

var errNotJoined = &status.Error{Kind: status.KindNotJoined, Message: "this device has not joined a network", Hint: "run: weft up TOKEN"}

// DialContext implements localapi.Node: it resolves, introduces and connects,
// the last two at once, so that the connection's first packet leaves as soon
// as the keys are known.
func (n *Node) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &status.Error{Kind: status.KindUsage, Message: fmt.Sprintf("address %q: %v", address, err)}
	}
	num, err := strconv.ParseUint(port, 10, 16)
	if err != nil || num == 0 {
		return nil, &status.Error{Kind: status.KindUsage, Message: fmt.Sprintf("port %q: want 1 to 65535", port)}
	}
	r, s, err := n.runs()
	if err != nil {
		return nil, err
	}
	k, err := n.resolve(ctx, s, host)
	if err != nil {
		return nil, err
	}
	if k.Node.ID == s.Self.ID {
		return nil, &status.Error{Kind: status.KindUsage, Message: k.Node.Name + " is this device", Hint: "use localhost"}
	}
	addr := k.Node.IPv4
	asked, aerr := netip.ParseAddr(host)
	switch {
	case network[len(network)-1] == '6', aerr == nil && asked.Is6() && !asked.Is4In6(),
		aerr != nil && network[len(network)-1] != '4' && k.Node.IPv6.IsValid() && n.health.Has(status.CodeIPv4Blocked):
		addr = k.Node.IPv6
	}
	target := netip.AddrPortFrom(addr, uint16(num)).String()
	if network[:3] == "udp" {
		if err := r.peers.Ensure(ctx, k.Node.ID); err != nil {
			return nil, n.sinceWhen(ctx, k, err)
		}
		return n.cfg.Net.DialContext(ctx, network, target)
	}
	var c net.Conn
	err = n.through(ctx, r, k.Node.ID, func(ctx context.Context) (err error) {
		c, err = n.cfg.Net.DialContext(ctx, network, target)
		if errors.Is(err, syscall.EHOSTUNREACH) {
			// The answer to an earlier introduction, which failed.
			if err := r.peers.Ensure(ctx, k.Node.ID); err != nil {
				return err // it says why
			}
			c, err = n.cfg.Net.DialContext(ctx, network, target)
		}
		return err
	})
	if err != nil {
		return nil, n.sinceWhen(ctx, k, dialError(k.Node.Name, port, err))
	}
	return c, nil
}

// errRenewed ends an attempt whose tunnel was made anew beneath it.
var errRenewed = errors.New("the tunnel was made anew")

// through runs try, which sends something to a node and waits for the answer,
// and makes sure meanwhile that there is a tunnel and somebody at its other
// end. When there is not, try's context ends and the reason is returned. When
// the tunnel was made anew, what try had sent is lost: it is run once more.
func (n *Node) through(ctx context.Context, r *running, id cert.NodeID, try func(context.Context) error) error {
	for first := true; ; first = false {
		tctx, cancel := context.WithCancelCause(ctx)
		settled := make(chan struct{}) // closed when try has returned
		watched := make(chan struct{}) // closed when the watcher has
		go func() {
			defer close(watched)
			if err := n.watchTunnel(tctx, r, id, settled, first); err != nil {
				cancel(err)
			}
		}()
		begun := time.Now()
		err := try(tctx)
		if err == nil {
			r.peers.Took(id, time.Since(begun))
		}
		close(settled)
		cause := context.Cause(tctx)
		cancel(nil)
		<-watched
		switch {
		case err == nil || cause == nil || cause == context.Cause(ctx):
			return err
		case !errors.Is(cause, errRenewed):
			return cause
		case ctx.Err() != nil: // it ended when there was no time to begin again
			return ctx.Err()
		}
	}
}

// watchTunnel is the watcher of through.
func (n *Node) watchTunnel(ctx context.Context, r *running, id cert.NodeID, settled <-chan struct{}, again bool) error {
	if err := r.peers.Ensure(ctx, id); err != nil {
		return err
	}
	gone, renewed, stop := r.peers.Watch(id)
	defer stop()
	if !again {
		renewed = nil
	}
	t := time.NewTimer(max(proveAfter, r.peers.TripTo(id)*3/2))
	defer t.Stop()
	begun := time.Now()
	doubt := gone
	for {
		select {
		case <-settled:
			return nil
		case <-ctx.Done():
			return nil
		case <-renewed:
			return errRenewed
		case <-doubt:
		case <-t.C:
		}
		if doubt != nil {
			doubt = nil
			if err := r.peers.Prove(ctx, id, gone); err != nil && ctx.Err() == nil {
				return err
			}
			t.Reset(max(deadAfter, r.peers.TripTo(id)*3/2))
			continue
		}
		// The peer is there. If the tunnel brings nothing all the same, or
		// nothing there, the two ends hold different keys: two introductions at
		// once, and one answer lost, or two WireGuard handshakes, of which
		// wireguard-go may keep one under the index of the other.
		st, ok := n.forwarder.Stats(id)
		if ok && st.LastRx.After(begun) && r.peers.IsHeard(ctx, id, begun) {
			continue
		}
		if err := r.peers.CallAnew(ctx, id); err != nil && ctx.Err() == nil {
			return err
		}
		if again && ctx.Err() == nil {
			return errRenewed
		}
	}
}

// dialError sorts the errors of connecting through the tunnel.
func dialError(name, port string, err error) error {
	var known *status.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return &status.Error{Kind: status.KindRefused, Message: fmt.Sprintf("%s refused the connection: nothing listens on port %s there", name, port)}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &status.Error{Kind: status.KindDenied, Message: fmt.Sprintf("%s: denied by policy", name)}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return &status.Error{Kind: status.KindUnreachable, Message: fmt.Sprintf("%s is unreachable", name), Hint: "see: weft status"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return &status.Error{Kind: status.KindTimeout, Message: fmt.Sprintf("%s does not answer on port %s", name, port)}
	}
	return fmt.Errorf("connect to %s port %s: %w", name, port, err)
}

// sinceWhen adds to "is offline" when the peer was last seen.
func (n *Node) sinceWhen(ctx context.Context, k *directory.Known, err error) error {
	var e *status.Error
	if !errors.As(err, &e) || e.Kind != status.KindUnreachable {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lastSeenWait)
	defer cancel()
	seen := k.LastSeen
	if p, err := n.client().Lookup(ctx, "id", k.Node.ID.String()); err == nil && p.LastSeen != nil {
		seen = *p.LastSeen
		if p.Online || !p.Unknown {
			n.dir.SetPresence(directory.Sighting{ID: k.Node.ID, Online: p.Online, LastSeen: seen})
		}
	}
	if seen.IsZero() {
		return err
	}
	with := *e
	with.Message += fmt.Sprintf(" (last seen %s, %s)", seen.UTC().Format(time.RFC3339), age.Ago(n.clock.Now().Sub(seen)))
	return &with
}

// runs returns the running half of the node and what it holds of its network,
// both of one moment, or why there is none. Whoever has them goes on with them
// when the node goes down meanwhile, and is told so by the running half.
func (n *Node) runs() (*running, *network.Network, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, ok := n.held.Get()
	switch {
	case !ok:
		return nil, nil, errNotJoined
	case n.running == nil:
		return nil, nil, tunnels.ErrDown
	}
	return n.running, s, nil
}

// resolve finds a node of s by short name, full name or address.
func (n *Node) resolve(ctx context.Context, s *network.Network, name string) (*directory.Known, error) {
	key, ok := directory.Key(name, s.Config.Suffix)
	if !ok {
		return nil, n.unknownPeer(name, s)
	}
	if addr, err := netip.ParseAddr(key); key == s.Self.Name || err == nil && s.Self.Has(addr) {
		return &directory.Known{Node: s.Self, Online: true}, nil
	}
	return n.lookup(ctx, s, key)
}

func (n *Node) unknownPeer(name string, s *network.Network) error {
	hint := "list them with: weft status"
	if near := hostname.Nearest(name, n.dir.ShortNames()); near != "" {
		hint = "did you mean " + near + "? " + hint
	}
	return &status.Error{Kind: status.KindUnknown,
		Message: fmt.Sprintf("no device %q in this network that %s may reach", name, s.Self.Name), Hint: hint}
}

// inTime returns how long a question to the server may take: least where answers
// come at once, and four round trips more, which a connection and a question need,
// where they do not.
func (n *Node) inTime(least time.Duration) time.Duration {
	if r := n.active.Load(); r != nil {
		return least + 4*min(r.home.Trip(), tripMost)
	}
	return least
}

// find is lookup in the network that the node is in.
func (n *Node) find(ctx context.Context, key string) (*directory.Known, error) {
	s, ok := n.held.Get()
	if !ok {
		return nil, errNotJoined
	}
	return n.lookup(ctx, s, key)
}

// lookup finds a node of s by short name or address: in memory, else on the
// server, where questions for the same key at the same time become one.
func (n *Node) lookup(ctx context.Context, s *network.Network, key string) (*directory.Known, error) {
	k, missing := n.dir.Find(key)
	if k != nil && !k.Stranger && (!n.dir.Old(k) || n.health.Has(status.CodeServerOffline)) {
		if !k.Listed {
			n.uses() // it may have introduced itself, and nobody was asked
		}
		return k, nil
	}
	if missing || !s.Config.Directory && !s.Config.Version.IsZero() {
		// The latter: policy lets this node reach nobody, so why ask?
		return nil, n.unknownPeer(key, s)
	}
	kind := "name"
	if _, err := netip.ParseAddr(key); err == nil {
		kind = "ip"
	}
	ctx, cancel := context.WithTimeout(ctx, n.inTime(lookupWait))
	defer cancel()
	round := n.uses()
	p, err := n.client().Lookup(ctx, kind, key)
	if err != nil {
		var e *api.Error
		if errors.As(err, &e) && e.Status == http.StatusNotFound {
			n.whileIn(s, func(*network.Network) { n.dir.SetMissing(key) })
			return nil, n.unknownPeer(key, s)
		}
		if k != nil && !k.Stranger {
			return k, nil // as it was
		}
		return nil, unavailable("look up "+key, err)
	}
	k, err = directory.KnownOf(*p, s.VerifyListed)
	if err != nil {
		return nil, fmt.Errorf("look up %s: the server's answer is not usable: %w", key, err)
	}
	if addr, aerr := netip.ParseAddr(key); aerr == nil && !k.Node.Has(addr) || aerr != nil && k.Node.Name != key && !k.HasAlias(key, time.Now()) {
		return nil, fmt.Errorf("look up %s: the server answered with %s (%s)", key, k.Node.Name, k.Node.IPv4)
	}
	k.Round = round
	if !n.learn(s, k) {
		return nil, n.unknownPeer(key, s)
	}
	follow.PinNames(n.dir, &n.health, n.keeper.Keep)
	return k, nil
}

// whileIn runs f, with what is held now, if the node is still in the network
// that s is of: it may have left it, and joined another one, while the server
// was asked. f is not to wait. It reports whether f was run.
func (n *Node) whileIn(s *network.Network, f func(now *network.Network)) bool {
	return n.held.While(s, func(now *network.Network) *network.Network {
		f(now)
		return nil
	})
}

// learn notes a node that the server told of in the network that s is of. It
// reports false when that counts no more: this node has left the network, or the
// other one was revoked.
func (n *Node) learn(s *network.Network, k *directory.Known) bool {
	revoked := false
	in := n.whileIn(s, func(now *network.Network) {
		if revoked = now.CRL.Revoked(k.Node.Serial); !revoked {
			n.dir.Learn(k)
		}
	})
	return in && !revoked
}

// whereIs asks the server where a peer is; not online when it does not know.
func (n *Node) whereIs(ctx context.Context, id cert.NodeID) homes.Whereabouts {
	s, ok := n.held.Get()
	if !ok {
		return homes.Whereabouts{}
	}
	p, err := n.client().Lookup(ctx, "id", id.String())
	var e *api.Error
	switch {
	case errors.As(err, &e) && e.Status == http.StatusNotFound:
		return homes.Whereabouts{}
	case err != nil:
		n.log.Debug("ask where a peer is", "peer", id, "err", err)
		return homes.Whereabouts{}
	}
	k, err := directory.KnownOf(*p, s.VerifyListed)
	if err != nil || k.Node.ID != id || !n.learn(s, k) {
		return homes.Whereabouts{}
	}
	return homes.Whereabouts{Online: p.Online, Relay: p.Relay, Unknown: p.Unknown && !p.Online}
}

// Resolve implements localapi.Node.
func (n *Node) Resolve(ctx context.Context, name string) (status.Peer, error) {
	s, ok := n.held.Get()
	if !ok {
		return status.Peer{}, errNotJoined
	}
	k, err := n.resolve(ctx, s, name)
	if err != nil {
		return status.Peer{}, err
	}
	return status.PeerOf(k.Node, k.Online, k.Node.ID == s.Self.ID), nil
}

// Ping implements localapi.Node: one echo through the tunnel.
func (n *Node) Ping(ctx context.Context, name string) (status.Pong, error) {
	r, s, err := n.runs()
	if err != nil {
		return status.Pong{}, err
	}
	k, err := n.resolve(ctx, s, name)
	if err != nil {
		return status.Pong{}, err
	}
	if k.Node.ID == s.Self.ID {
		return status.Pong{}, &status.Error{Kind: status.KindUsage, Message: k.Node.Name + " is this device"}
	}
	addr := k.Node.IPv4
	if asked, err := netip.ParseAddr(name); err == nil && asked.Is6() || err != nil && k.Node.IPv6.IsValid() && n.health.Has(status.CodeIPv4Blocked) {
		addr = k.Node.IPv6
	}
	// The tunnel first, so that the round trip is one of the tunnel alone.
	err = r.peers.Ensure(ctx, k.Node.ID)
	var rtt time.Duration
	if err == nil {
		err = n.through(ctx, r, k.Node.ID, func(ctx context.Context) (err error) {
			rtt, err = n.cfg.Net.Ping(ctx, addr)
			return err
		})
	}
	if err != nil {
		if status.KindOf(err) == status.KindTimeout {
			err = &status.Error{Kind: status.KindTimeout, Message: k.Node.Name + " does not answer"}
		}
		return status.Pong{}, n.sinceWhen(ctx, k, err)
	}
	r.peers.Measured(k.Node.ID, rtt)
	pong := status.Pong{
		Peer: status.PeerOf(k.Node, true, false), Addr: addr, RTT: rtt,
		Relay: r.peers.ViaOf(k.Node.ID),
	}
	var why path.Reason
	pong.Path, why, pong.Endpoint = r.peers.Views()[k.Node.ID].Tunnel().Shown()
	pong.Reason = why.Text
	return pong, nil
}

// Wait implements localapi.Node.
func (n *Node) Wait(ctx context.Context, name string) error {
	for {
		changed := n.health.Changed()
		st := n.State()
		if err := n.removedError(); err != nil {
			return err
		}
		if st == status.StateRunning {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return &status.Error{Kind: status.KindTimeout, Message: fmt.Sprintf("not connected to the relay (state: %s)", st), Hint: "see: weft status"}
		}
	}
	for name != "" {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := n.Ping(once, name)
		cancel()
		if err == nil {
			return nil
		}
		switch status.KindOf(err) {
		case status.KindDenied, status.KindUsage, status.KindNotJoined, status.KindUnknown:
			return err
		}
		if !pause.Sleep(ctx, 500*time.Millisecond) {
			return &status.Error{Kind: status.KindTimeout, Message: fmt.Sprintf("waited for %s in vain: %v", name, err)}
		}
	}
	return nil
}

// nameOf is a node's name as far as known, for messages.
func (n *Node) nameOf(id cert.NodeID) string {
	if k := n.dir.Get(id); k != nil {
		return k.Node.Name
	}
	return "node " + id.String()[:8]
}

// unavailable is the answer when nobody could be asked.
func unavailable(what string, err error) error {
	return &status.Error{Kind: status.KindUnavailable, Message: fmt.Sprintf("%s: the server does not answer: %v", what, err), Hint: "see: weft status"}
}
