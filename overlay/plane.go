package overlay

import (
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

// makePlane makes the data plane, WireGuard with a key pair of its own, which
// lives until logout, the end of the process or a clock that is set back
// (rekey.go), and is never stored.
func (n *Node) makePlane() error {
	b := bind.New(n.bindConfig())
	f := dataplane.New(dataplane.Config{Net: n.cfg.Net, Miss: n.miss, Stir: func() {
		if p := n.tunnels(); p != nil {
			p.Stirred()
		}
	}, Lull: n.cfg.Lull})
	dev, err := wg.New(wg.Config{Forwarder: f, Bind: b, Log: n.log, SetBack: func() {
		if p := n.tunnels(); p != nil {
			p.SetBack()
		}
	}, Wall: n.stamps})
	if err != nil {
		return fmt.Errorf("make WireGuard device: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bind, n.forwarder, n.plane, n.keys = b, f, dev, dev
	n.bg.Go(func() { n.refuseMisses(f) })
	n.bg.Go(func() { n.keeper.Run(n.bgCtx) })
	return nil
}

// bindConfig is the bind's, with or without sockets.
func (n *Node) bindConfig() bind.Config {
	c := bind.Config{Stranger: func(from cert.NodeID, pkt []byte) {
		if p := n.tunnels(); p != nil {
			p.Stranger(from, pkt)
		}
	}}
	if n.cfg.UDP.Off {
		return c
	}
	c.Listen, c.Port = n.cfg.UDP.Listen, n.cfg.UDP.Port
	if c.Listen == nil {
		c.Listen = bind.Listen
	}
	to := func(f func(p *tunnels.Table, pkt []byte, from bind.Way)) func(pkt []byte, from bind.Way) {
		return func(pkt []byte, from bind.Way) {
			if p := n.tunnels(); p != nil {
				f(p, pkt, from)
			}
		}
	}
	c.Probe, c.STUN, c.Lane = to((*tunnels.Table).Probed), to((*tunnels.Table).STUN), to((*tunnels.Table).LaneSaid)
	c.Trouble = func(ep *bind.Endpoint, w bind.Way, err error) {
		if p := n.tunnels(); p != nil {
			p.Trouble(ep, w, err)
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

// miss is called by the forwarder once per destination for which it holds
// packets.
func (n *Node) miss(dst netip.Addr) {
	if p := n.tunnels(); p != nil {
		p.Miss(dst)
		return
	}
	select {
	case n.refuse <- dst:
	default: // they are asked for again
	}
}

// refuseMisses answers, while the node is down, what other programs send into
// the network: they fail at once. The routes of a kernel interface stay for
// that. Without them such packets would go the way of all others, out of the
// house and in the clear.
func (n *Node) refuseMisses(f *dataplane.Forwarder) {
	for {
		select {
		case dst := <-n.refuse:
			if n.active.Load() == nil {
				f.Fail(dst, dataplane.Unreachable)
			}
		case <-n.bgCtx.Done():
			return
		}
	}
}
