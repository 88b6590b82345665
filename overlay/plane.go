package overlay

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"weft/overlay/cert"
	"weft/overlay/fips"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/paths"
	"weft/overlay/internal/tunnels"
	"weft/overlay/internal/wg"
	"weft/overlay/status"
)

// The data plane and its sockets outlive a running half. Their packets go to the present
// one.

// UDP configures direct paths. The zero value means the machine's own sockets and
// interfaces, a random port, and a port mapping if the gateway grants one.
type UDP struct {
	// Off makes the node use relays only.
	Off bool
	// Port is the local port; 0 is a random one. If the port is taken, the node uses
	// relays only and reports it (Status, health "udp-port-taken").
	Port uint16
	// Endpoints are addresses at which the node can be reached and which it cannot find
	// out: those of a router that forwards a port to it. At most 4 are used.
	Endpoints []netip.AddrPort
	// NoPortMap disables requests to the gateway for a port mapping.
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

// plane is the data planes with their parts. Constant.
type plane struct {
	forwarder *dataplane.Forwarder
	bind      *bind.Bind
	wg        interface { // a dataplane.None if the node may not use WireGuard
		dataplane.Plane
		dataplane.Keys
	}
	refused *status.Error // why there are no tunnels, nil if there are
	aes     aesPlane      // nil: the node uses WireGuard only
	onlyAES bool          // peers that cannot use it are refused
}

// aesPlane is a *gcm.Device.
type aesPlane interface {
	tunnels.AESPlane
	Clear()
	Keys(id cert.NodeID) (k dataplane.KeyState, ok bool)
}

// The values of Config.Suite.
const (
	SuiteAuto      = ""          // AES with peers where both machines are fast at it, else WireGuard
	SuiteWireGuard = "wireguard" // WireGuard only
	SuiteAES       = "aes"       // AES only: refuse peers that cannot use it
)

// now returns the time for filters (dataplane.Forwarder.Now).
func (p *plane) now() int64 { return p.forwarder.Now() }

// stats returns the counters of the tunnel with a peer; ok is false if there is none.
func (p *plane) stats(id cert.NodeID) (s dataplane.Stats, ok bool) { return p.forwarder.Stats(id) }

// newKey gives the node another WireGuard key pair and ends all tunnels (dataplane.Keys).
func (p *plane) newKey() error {
	if p.aes != nil {
		p.aes.Clear()
	}
	return p.wg.NewKey()
}

// keys returns the state of the keys with a peer; ok is false if there is no tunnel with it,
// or WireGuard has them.
func (p *plane) keys(id cert.NodeID) (k dataplane.KeyState, ok bool) {
	if p.aes == nil {
		return k, false
	}
	return p.aes.Keys(id)
}

// close closes the node's Net too.
func (p *plane) close() {
	if p.aes != nil {
		p.aes.Close()
	}
	p.wg.Close()
	p.forwarder.Close()
}

// makePlane makes the data planes, WireGuard with a new key pair. The key pair lives until
// logout, the end of the process or a clock that is set back (package tunnels), and is
// never saved.
func (n *Node) makePlane() error {
	b := bind.New(n.bindConfig())
	refused := refusals{held: make(chan netip.Addr, 16), up: func() bool { return n.active.Load() != nil }}
	_, _, outlives := n.cfg.Net.Outlives() // then connections are the kernel's
	f := dataplane.New(dataplane.Config{
		Net: n.cfg.Net, Lull: n.cfg.Lull, Opens: outlives != 0,
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
	if r := n.refused; r != nil {
		n.health.Set(status.CodeFIPS, r.Message+"; no packets reach or leave this device")
		n.hold(&plane{forwarder: f, bind: b, wg: dataplane.NewNone(f, r), refused: r}, refused)
		return nil
	}
	if n.strict {
		aes, err := n.makeAES(b, f)
		if err != nil {
			return fmt.Errorf("make AES data plane: %w", err)
		}
		n.hold(&plane{forwarder: f, bind: b, wg: dataplane.NewNone(nil, notFIPS), aes: aes, onlyAES: true}, refused)
		return nil
	}
	if fips.Enabled() {
		n.health.Set(status.CodeFIPS, "FIPS mode is on, but packets to and from other devices are not encrypted by its module alone")
	}
	dev, err := wg.New(wg.Config{Forwarder: f, Bind: b, Log: n.log, SetBack: func() {
		if p := n.tunnels(); p != nil {
			p.SetBack()
		}
	}, Wall: n.tuning.stamps})
	if err != nil {
		return fmt.Errorf("make WireGuard device: %w", err)
	}
	aes, err := n.makeAES(b, f)
	if err != nil {
		return fmt.Errorf("make AES data plane: %w", err)
	}
	n.hold(&plane{forwarder: f, bind: b, wg: dev, aes: aes, onlyAES: n.cfg.Suite == SuiteAES}, refused)
	return nil
}

// hold takes the data plane that was made.
func (n *Node) hold(p *plane, refused refusals) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.plane = p
	n.bg.Go(func() { refused.run(n.bgCtx, func(dst netip.Addr) { p.forwarder.Fail(dst, dataplane.Unreachable) }) })
	n.bg.Go(func() { n.keeper.Run(n.bgCtx) })
}

// notFIPS is why a node does not use WireGuard when FIPS mode is enforced.
var notFIPS = &status.Error{Kind: status.KindDenied, Message: fips.Refused, Hint: fips.RefusedHint}

// enforceFIPS makes the node use AES alone, or no tunnels if it cannot.
func (n *Node) enforceFIPS() {
	n.strict, n.refused = true, nil
	if !hasAES || n.cfg.Suite == SuiteWireGuard {
		n.refused = notFIPS
	}
}

// bindConfig returns the configuration of the bind, with or without sockets.
func (n *Node) bindConfig() bind.Config {
	c := bind.Config{UnknownSender: func(from cert.NodeID, pkt []byte) {
		if p := n.tunnels(); p != nil {
			p.UnknownSender(from, pkt)
		}
	}}
	if n.cfg.UDP.Off || n.refused != nil {
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

// tunnels returns the tunnels of the running half, nil while there is none.
func (n *Node) tunnels() *tunnels.Table {
	if r := n.active.Load(); r != nil {
		return r.peers
	}
	return nil
}

// refusals answers packets of programs to the network while the node is down, so that the
// programs fail at once. The routes of a kernel interface stay for that. Without them
// such packets would leave by the default route, unencrypted.
type refusals struct {
	held chan netip.Addr // destinations to refuse while down
	up   func() bool     // whether the node is up
}

// ask makes packets to dst be refused. It does not block.
func (r refusals) ask(dst netip.Addr) {
	select {
	case r.held <- dst:
	default: // a later packet asks again
	}
}

// run calls fail for each destination until ctx ends.
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
