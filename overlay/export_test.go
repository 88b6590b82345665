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

// IgnoreChanges makes the node not watch the kernel for changes of the network. Call it
// before Start: a goroutine that waits for the kernel stops simulated time.
func (n *Node) IgnoreChanges() {
	n.tuning.watchMachine = func(func()) (func(), error) { return func() {}, nil }
}

// EnforceFIPS makes the node choose its data planes as when FIPS mode is enforced. Call it
// before Start.
func (n *Node) EnforceFIPS() { n.enforceFIPS() }

// Guests returns how many guest connections there are.
func (n *Node) Guests() int {
	if r := n.active.Load(); r != nil {
		return r.guests.Len()
	}
	return 0
}

// RelayTransport returns how the node is connected to its relay: "direct", "websocket", or
// "" while it is not.
func (n *Node) RelayTransport() string {
	if r := n.active.Load(); r != nil {
		return r.home.State().Transport
	}
	return ""
}

// Versions returns the versions that the node has.
func (n *Node) Versions() api.Versions { return follow.Versions(&n.held, n.dir) }

// BreakDisk makes the node call disk before it saves a file; an error of disk counts as
// one of the disk. Call it before Start.
func (n *Node) BreakDisk(disk func(file string) error) {
	n.disk.save = func(s *state.Dir, name string, b []byte) error {
		if err := disk(name); err != nil {
			return err
		}
		return s.Save(name, b)
	}
}

// CRLNumber returns the number of the node's revocation list.
func (n *Node) CRLNumber() uint64 { return n.Versions().CRL }

// SaveHome sets the home relay with which a node starts.
func SaveHome(dir, relayID string) error {
	s, err := state.Open(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.SaveJSON(state.Content{File: state.HomeFile, JSON: relayID})
}

// NetworkChanged tells a node that its network may have changed.
func (n *Node) NetworkChanged() {
	if r := n.active.Load(); r != nil {
		r.dialer.Forget()
		r.home.Wake()
		r.peers.NetworkChanged()
	}
}

// SpoilKeys gives the tunnel with a peer another preshared key and drops its WireGuard
// sessions, so that the keys of the two ends no longer match.
func (n *Node) SpoilKeys(name string) error { return n.tunnels().SpoilKeys(name) }

// IsServer reports whether the node takes changes of the directory from a relay with this
// certificate chain.
func (n *Node) IsServer(chain []*x509.Certificate) bool { return n.held.IsServer(chain) }

// EndWhileCalling ends the tunnel with a peer, by the peer's bye or by ours, while this
// node introduces itself to it, and at once introduces it again. It returns the results
// of the two introductions.
func (n *Node) EndWhileCalling(id cert.NodeID, bye bool) (first, next error) {
	return n.tunnels().EndWhileCalling(id, bye)
}

// ProveNothing makes the node introduce itself without proofs of WireGuard keys, like
// earlier versions. Call it before Start.
func (n *Node) ProveNothing() { n.tuning.unproven = true }

// WireGuardKey returns the node's public key.
func (n *Node) WireGuardKey() [32]byte { return n.plane.wg.Key().Public }

// HeldEarly returns from how many nodes early WireGuard messages are held, and whether
// the node is one of them.
func (n *Node) HeldEarly(id cert.NodeID) (senders int, held bool) {
	return n.tunnels().HeldEarly(id)
}

// SetStamps sets the clock for WireGuard's time stamps. Call it before Start.
func (n *Node) SetStamps(clock func() time.Time) { n.tuning.stamps = clock }

// ClockSet does what happens when the kernel reports that the clock was set.
func (n *Node) ClockSet() { n.tunnels().ClockSet() }

// Key returns the node's WireGuard key.
func (n *Node) Key() dataplane.Key { return n.plane.wg.Key() }

// KeyOf returns the WireGuard key of a peer with a tunnel, and the boot id that the peer
// has sent with it.
func (n *Node) KeyOf(id cert.NodeID) dataplane.Key {
	return dataplane.Key{Public: n.plane.wg.(*wg.Device).KeyOf(id), Boot: n.tunnels().BootOf(id)}
}

// OfferAES makes the node offer AES besides WireGuard, whatever the machine is good at. Call
// it before Start.
func (n *Node) OfferAES() { n.tuning.aes = true }

// Tags returns the tags in the node's certificate.
func (n *Node) Tags() []string {
	if s, ok := n.held.Get(); ok {
		return s.Self.Tags
	}
	return nil
}
