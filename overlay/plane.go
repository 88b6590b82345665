package overlay

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/paths"
	"weft/overlay/internal/tunnels"
	"weft/overlay/internal/wg"
)

// The data plane and its sockets outlive a running half. What they bring goes to the
// one that runs.

// UDP says how a node uses UDP for direct paths. The zero value is the
// machine's own sockets and interfaces, a random port, and a port mapping where
// the gateway makes one.
type UDP struct {
	// Off has the node use relays only.
	Off bool
	// Port is the local port; 0 is a random one. A port that is taken is no
	// error: the node then uses relays only, and says so (Status, health
	// "udp-port-taken").
	Port uint16
	// Endpoints are addresses at which the node can be reached that it cannot
	// find out about by itself: those of a router that forwards a port to it.
	// At most 4 are used.
	Endpoints []netip.AddrPort
	// NoPortMap never asks the gateway for a port mapping.
	NoPortMap bool

	// Listen opens sockets and Interfaces lists the machine's addresses with
	// their networks; nil asks the system. They are for tests and for systems
	// that need other sockets (see bind.Config.Listen).
	Listen     func(network, address string) (net.PacketConn, error)
	Interfaces func() ([]Interface, error)
}

// Interface is an address of the machine: Name string, Net netip.Prefix (the address
// with its network's length), MTU int.
type Interface = paths.Interface

// plane is the data plane, with what it stands on. Constant.
type plane struct {
	forwarder *dataplane.Forwarder
	bind      *bind.Bind
	wg        interface {
		dataplane.Plane
		dataplane.Keys
	}
}

// now is the time of the filters (dataplane.Forwarder.Now).
func (p *plane) now() int64 { return p.forwarder.Now() }

// stats are what the tunnel with a peer has carried; ok is false without one.
func (p *plane) stats(id cert.NodeID) (s dataplane.Stats, ok bool) { return p.forwarder.Stats(id) }

// newKey gives the node another key pair, and ends all tunnels (dataplane.Keys).
func (p *plane) newKey() error { return p.wg.NewKey() }

// close closes the node's Net too.
func (p *plane) close() {
	p.wg.Close()
	p.forwarder.Close()
}

// makePlane makes the data plane, WireGuard with a key pair of its own, which
// lives until logout, the end of the process or a clock that is set back
// (rekey.go), and is never stored.
func (n *Node) makePlane() error {
	b := bind.New(n.bindConfig())
	refused := refusals{held: make(chan netip.Addr, 16), up: func() bool { return n.active.Load() != nil }}
	f := dataplane.New(dataplane.Config{
		Net: n.cfg.Net, Lull: n.cfg.Lull,
		// Miss is called once per destination for which packets are held.
		Miss: func(dst netip.Addr) {
			if p := n.tunnels(); p != nil {
				p.Miss(dst)
			} else {
				refused.ask(dst)
			}
		},
		Resumed: func() {
			if p := n.tunnels(); p != nil {
				p.Resumed()
			}
		},
	})
	dev, err := wg.New(wg.Config{Forwarder: f, Bind: b, Log: n.log, SetBack: func() {
		if p := n.tunnels(); p != nil {
			p.SetBack()
		}
	}, Wall: n.tuning.stamps})
	if err != nil {
		return fmt.Errorf("make WireGuard device: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.plane = &plane{forwarder: f, bind: b, wg: dev}
	n.bg.Go(func() { refused.run(n.bgCtx, func(dst netip.Addr) { f.Fail(dst, dataplane.Unreachable) }) })
	n.bg.Go(func() { n.keeper.Run(n.bgCtx) })
	return nil
}

// bindConfig is the bind's, with or without sockets.
func (n *Node) bindConfig() bind.Config {
	c := bind.Config{UnknownSender: func(from cert.NodeID, pkt []byte) {
		if p := n.tunnels(); p != nil {
			p.UnknownSender(from, pkt)
		}
	}}
	if n.cfg.UDP.Off {
		return c
	}
	c.Listen, c.Port = n.cfg.UDP.Listen, n.cfg.UDP.Port
	if c.Listen == nil {
		c.Listen = bind.Listen
	}
	to := func(f func(p *tunnels.Table, pkt []byte, from bind.Path)) func(pkt []byte, from bind.Path) {
		return func(pkt []byte, from bind.Path) {
			if p := n.tunnels(); p != nil {
				f(p, pkt, from)
			}
		}
	}
	c.Probe, c.STUN, c.LaneControl = to((*tunnels.Table).Probed), to((*tunnels.Table).STUN), to((*tunnels.Table).LaneControl)
	c.SendFailed = func(ep *bind.Endpoint, w bind.Path, err error) {
		if p := n.tunnels(); p != nil {
			p.SendFailed(ep, w, err)
		}
	}
	return c
}

// tunnels are those of the running half, nil while there is none.
func (n *Node) tunnels() *tunnels.Table {
	if r := n.active.Load(); r != nil {
		return r.peers
	}
	return nil
}

// refusals answer, while the node is down, what other programs send into the network: they
// fail at once. The routes of a kernel interface stay for that. Without them such packets
// would go the way of all others, out of the house and in the clear.
type refusals struct {
	held chan netip.Addr // held packets are for there
	up   func() bool     // whether the node is up
}

// ask has packets to dst refused. It does not wait.
func (r refusals) ask(dst netip.Addr) {
	select {
	case r.held <- dst:
	default: // they are asked for again
	}
}

// run refuses what is asked for with fail, until ctx ends.
func (r refusals) run(ctx context.Context, fail func(dst netip.Addr)) {
	for {
		select {
		case dst := <-r.held:
			if !r.up() {
				fail(dst)
			}
		case <-ctx.Done():
			return
		}
	}
}
