package overlay

import (
	"context"
	"crypto/x509"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/state"
	"weft/overlay/internal/wg"
)

// Through is running.through to a peer that the node knows.
func (n *Node) Through(ctx context.Context, name string, try func(context.Context) error) error {
	r, s, err := n.runs()
	if err != nil {
		return err
	}
	k, err := n.lookup.Resolve(ctx, s, name)
	if err != nil {
		return err
	}
	return r.through(ctx, k.Node.ID, try)
}

// SetIdle shortens the life of tunnels without data, before Start.
func (n *Node) SetIdle(d time.Duration) { n.tuning.idle = d }

// SetGuestIdle shortens the life of guest connections, before Start.
func (n *Node) SetGuestIdle(d time.Duration) { n.tuning.guestIdle = d }

// IgnoreWorld has the node not ask the kernel for changes of the network, before
// Start: who waits for the kernel stops simulated time.
func (n *Node) IgnoreWorld() {
	n.tuning.watchMachine = func(func()) (func(), error) { return func() {}, nil }
}

// Guests returns how many guest connections there are.
func (n *Node) Guests() int {
	if r := n.active.Load(); r != nil {
		return r.guests.Len()
	}
	return 0
}

// RelayVia returns how the node is connected to its relay: "direct", "websocket", or
// "" while it is not.
func (n *Node) RelayVia() string {
	if r := n.active.Load(); r != nil {
		return r.home.State().Via
	}
	return ""
}

// Versions returns what the node holds.
func (n *Node) Versions() api.Versions { return follow.Versions(&n.held, n.dir) }

// BreakDisk has disk called before what the node learns is written, before Start.
// An error of it is one of the disk.
func (n *Node) BreakDisk(disk func(file string) error) {
	n.disk.save = func(s *state.Dir, name string, b []byte) error {
		if err := disk(name); err != nil {
			return err
		}
		return s.Save(name, b)
	}
}

// CRLNumber returns the number of the revocation list that the node holds.
func (n *Node) CRLNumber() uint64 { return n.Versions().CRL }

// SaveHome makes a relay the home that a node starts with.
func SaveHome(dir, relayID string) error {
	s, err := state.Open(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.SaveJSON(state.HomeFile, relayID)
}

// WorldChanged tells a node that its network may have changed.
func (n *Node) WorldChanged() {
	if r := n.active.Load(); r != nil {
		r.dialer.Forget()
		r.home.Wake()
		r.peers.NetworkChanged()
	}
}

// SpoilKeys gives the tunnel with a peer another preshared key and forgets what
// was agreed upon with the old one, so that the two ends fit no more.
func (n *Node) SpoilKeys(name string) error { return n.tunnels().SpoilKeys(name) }

// IsServer reports whether the node takes changes of the directory from a relay
// that shows this chain.
func (n *Node) IsServer(chain []*x509.Certificate) bool { return n.held.IsServer(chain) }

// EndWhileCalling ends the tunnel with a peer, by the peer's bye or by ours,
// while this node introduces itself to it, and introduces it once more at once.
// It returns what those who waited for the two introductions got.
func (n *Node) EndWhileCalling(id cert.NodeID, bye bool) (first, next error) {
	return n.tunnels().EndWhileCalling(id, bye)
}

// ProveNothing has the node introduce itself like those that knew of no proofs of
// WireGuard keys, before Start.
func (n *Node) ProveNothing() { n.tuning.unproven = true }

// WireGuardKey returns the node's public key.
func (n *Node) WireGuardKey() [32]byte { return n.plane.wg.Key().Public }

// HeldEarly returns of how many nodes WireGuard messages are held that came ahead
// of their introduction, and whether the node is one.
func (n *Node) HeldEarly(id cert.NodeID) (senders int, held bool) {
	return n.tunnels().HeldEarly(id)
}

// SetStamps has the node believe that WireGuard goes by another clock, before
// Start.
func (n *Node) SetStamps(clock func() time.Time) { n.tuning.stamps = clock }

// ClockSet tells the node what the kernel tells when the clock was set.
func (n *Node) ClockSet() { n.tunnels().ClockSet() }

// Key returns the node's WireGuard key.
func (n *Node) Key() dataplane.Key { return n.plane.wg.Key() }

// KeyOf returns the WireGuard key of a peer with a tunnel, and the boot id that
// the peer told with it.
func (n *Node) KeyOf(id cert.NodeID) dataplane.Key {
	return dataplane.Key{Public: n.plane.wg.(*wg.Device).KeyOf(id), Boot: n.tunnels().BootOf(id)}
}
