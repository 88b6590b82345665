package tunnels

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/intro"
)

// install makes or refreshes the tunnel with a session's keys: before
// accept goes out on the called side, as soon as the keys are known on the
// calling side.
func (t *Table) install(q *peer, s *intro.Session, ours bool, claim dataplane.Claim) error {
	snap, ok := t.cfg.Held.Get()
	if !ok {
		return ErrDown
	}
	if s.Own.Key != t.keys.Key().Public {
		return dataplane.ErrKeyGone // the peer was told the one before
	}
	node := s.Peer
	addrs := []netip.Addr{node.IPv4, node.IPv6}
	q.filter = t.cfg.Filters.Of(q.id, []netip.Addr{snap.Self.IPv4, snap.Self.IPv6}, addrs, filter.Compile(snap.Config.Rules, node))
	restarted := q.hello.Boot != s.Remote.Boot || q.local != s.Own.Boot
	if q.endpoint == nil {
		q.endpoint = bind.NewEndpoint(q.id, node.IPv4)
	}
	t.introduced(q, s)
	err := t.setPeer(dataplane.Peer{
		ID: q.id, Key: s.Remote.Key, Claim: claim, Secret: s.PSK, IPs: addrs, Trip: s.Trip,
		Endpoint: q.endpoint, Filter: q.filter, Initiate: s.Initiator,
	})
	if err != nil {
		if !q.installed() {
			t.setWay(q, nil)
			t.cfg.Filters.Release(q.id, t.forwarder.Now())
		}
		return fmt.Errorf("install peer %s: %w", node.Name, err)
	}
	t.bind.Admit(q.endpoint)
	if !q.installed() || restarted {
		t.log.Info("tunnel", "peer", node.Name, "id", q.id, "called", ours)
		q.nextHint = time.Time{} // whoever said that it started anew was right, and may say so again
		for _, w := range q.renewed {
			close(w)
		}
		q.renewed = nil
	}
	q.node, q.hello, q.local, q.ours, q.session = node, s.Remote, s.Own.Boot, ours, s
	q.gone = time.Time{} // whatever the relay said
	delete(t.silent, q.id)
	q.unanswered, q.pinging, q.proved = time.Time{}, time.Time{}, time.Now()
	if !q.installed() {
		q.made = time.Now()
		t.lookAt(q.made.Add(min(silentAfter, t.cfg.Idle)))
	}
	t.lookAt(t.renewal(node))
	if t.stale(q) {
		t.lookAt(time.Now())
	}
	t.paths.Begin(q.endpoint, s, restarted)
	t.cfg.Directory.Learn(&directory.Known{Node: node, Online: true, LastSeen: t.cfg.Clock.Now(), Stranger: !ours})
	t.publish()
	t.deliverEarly(q.id)
	return nil
}

// setPeer is Plane.SetPeer, for which a node has to give up a key that it has
// never shown to hold.
func (t *Table) setPeer(cfg dataplane.Peer) error {
	err := t.plane.SetPeer(cfg)
	if taken, ok := errors.AsType[*dataplane.TakenError](err); ok && taken.Yields {
		t.evict(taken.Holder)
		err = t.plane.SetPeer(cfg)
	}
	return err
}

// evict ends the tunnel of a node whose key is another's, as far as is
// known. The node may introduce itself anew. An introduction to it that is under
// way goes on, and makes a tunnel if the node accepts.
func (t *Table) evict(id cert.NodeID) {
	q := t.table[id]
	if q == nil || !q.installed() {
		t.plane.RemovePeer(id)
		return
	}
	if q.dial != nil && q.session == q.dial.session {
		q.session = nil // of what is under way
	}
	t.endTunnel(q, "its WireGuard key is another's", true)
	if q.dial == nil {
		delete(t.table, id)
	}
	t.publish()
}
