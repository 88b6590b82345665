package tunnels

import (
	"errors"
	"net/netip"

	"weft/overlay/cert"
	"weft/overlay/internal/dataplane"
)

// Methods for tests of whole nodes. No program calls them, so the linker leaves them out.

// SpoilKeys gives the tunnel with a peer another preshared key and drops its WireGuard
// sessions, so that the keys of the two ends no longer match.
func (t *Table) SpoilKeys(name string) error {
	return t.inLoop(func() error {
		for _, q := range t.table {
			if q.installed() && q.node.Name == name {
				t.removePeer(q.id)
				return t.planeOf(q.suite).SetPeer(dataplane.Peer{
					ID: q.id, Key: q.hello.Key, Claim: dataplane.Claimed, Secret: [32]byte{1}, IPs: []netip.Addr{q.node.IPv4, q.node.IPv6},
					Endpoint: q.endpoint, Filter: q.filter,
				})
			}
		}
		return errors.New("no tunnel")
	})
}

// EndWhileCalling ends the tunnel with a peer, by the peer's bye or by ours, while this
// node introduces itself to it, and at once introduces it again. It returns the results
// of the two introductions.
func (t *Table) EndWhileCalling(id cert.NodeID, bye bool) (first, next error) {
	one, two := make(chan error, 1), make(chan error, 1)
	t.do(func() {
		q := t.table[id]
		t.call(q, one)
		if bye {
			t.endAndRedial(q, "bye", false)
		} else {
			t.drop(q, "policy", true)
			q = &peer{id: id}
			t.table[id] = q
		}
		t.call(q, two)
	})
	return <-one, <-two
}

// HeldEarly returns from how many nodes early messages are held, and whether the node is
// one of them.
func (t *Table) HeldEarly(id cert.NodeID) (senders int, held bool) {
	t.early.mu.Lock()
	defer t.early.mu.Unlock()
	return len(t.early.from), t.early.from[id] != nil
}

// BootOf returns the boot id that a peer has sent, 0 if there is none.
func (t *Table) BootOf(id cert.NodeID) uint64 {
	boot, _ := fromLoop(t, func() uint64 {
		if q := t.table[id]; q != nil {
			return q.hello.Boot
		}
		return 0
	})
	return boot
}
