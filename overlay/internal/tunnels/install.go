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
	"weft/overlay/internal/network"
)

// install makes or updates the tunnel with a session's keys. The callee calls it before
// it sends accept, the caller as soon as it has the keys.
func (t *Table) install(q *peer, s *intro.Session, ours bool, claim dataplane.Claim) error {
	snap, ok := t.cfg.Held.Get()
	if !ok {
		return ErrDown
	}
	if s.Suite == intro.SuiteWireGuard && s.Own.Key != t.keys.Key().Public {
		return dataplane.ErrKeyGone // the peer was sent the previous key
	}
	node := s.Peer
	addrs := []netip.Addr{node.IPv4, node.IPv6}
	q.filter = t.cfg.Filters.Of(q.id, []netip.Addr{snap.Self.IPv4, snap.Self.IPv6}, addrs, t.opens(snap, node, s.Suite))
	restarted := q.hello.Boot != s.Remote.Boot || q.local != s.Own.Boot
	if q.endpoint == nil {
		q.endpoint = bind.NewEndpoint(q.id, node.IPv4)
	}
	t.introduced(q, s)
	if restarted {
		t.paths.End(q.id) // before a handshake of the plane begins: the peer would not take it there
	}
	cfg := q.result(s, claim)
	cfg.Restarted = q.hello.Boot != s.Remote.Boot
	err := t.setPeer(s.Suite, cfg)
	if err != nil {
		if !q.installed() {
			t.setConn(q, nil)
			t.cfg.Filters.Release(q.id, t.forwarder.Now())
		}
		return fmt.Errorf("install peer %s: %w", node.Name, err)
	}
	if q.installed() && q.suite != s.Suite {
		t.planeOf(q.suite).RemovePeer(q.id)
	}
	t.bind.Admit(q.endpoint)
	if !q.installed() || restarted {
		t.log.Info("tunnel", "peer", node.Name, "id", q.id, "called", ours, "suite", s.Suite)
		t.forwarder.Again(q.id)
		q.nextHint = time.Time{} // the report that it had restarted was right, so the next one counts at once
		for _, w := range q.renewed {
			close(w)
		}
		q.renewed = nil
	}
	q.node, q.hello, q.local, q.ours, q.session = node, s.Remote, s.Own.Boot, ours, s
	q.suite, q.exchange, q.keyed, q.keyless = s.Suite, s.KeyExchange, time.Now(), false
	q.accepted = claim > dataplane.Tentative
	q.gone = time.Time{} // whatever the relay has reported
	delete(t.silent, q.id)
	q.unanswered, q.pinging, q.proved = time.Time{}, time.Time{}, time.Now()
	if !q.installed() {
		q.made = time.Now()
		t.checkAt(q.made.Add(min(silentAfter, t.cfg.Idle)))
	}
	t.checkAt(t.renewal(node))
	t.refresh(q, q.keyed, time.Time{})
	if t.stale(q) {
		t.checkAt(time.Now())
	}
	t.paths.Begin(q.endpoint, s, restarted)
	t.cfg.Directory.Learn(&directory.Entry{Node: node, Online: true, LastSeen: t.cfg.Clock.Now(), CallerOnly: !ours})
	t.publish()
	t.deliverEarly(q.id)
	return nil
}

// opens returns what policy opens to a node that has a tunnel of a suite.
func (t *Table) opens(snap *network.Network, node *cert.Node, suite intro.Suite) *filter.Ports {
	return filter.Compile(snap.Config.Rules, node, filter.Terms{AES: suite == intro.SuiteAES, Overdue: snap.Overdue[node.ID]})
}

// result returns the result of an introduction, for the plane.
func (q *peer) result(s *intro.Session, claim dataplane.Claim) dataplane.Peer {
	return dataplane.Peer{
		ID: q.id, Key: s.Remote.Key, Claim: claim, Secret: s.Secret(), IPs: []netip.Addr{s.Peer.IPv4, s.Peer.IPv6}, Trip: s.Trip,
		Endpoint: q.endpoint, Filter: q.filter, Initiate: s.Initiator,
	}
}

// planeOf returns the plane of a suite.
func (t *Table) planeOf(s intro.Suite) dataplane.Plane {
	if s == intro.SuiteAES {
		return t.aes
	}
	return t.plane
}

// removePeer is RemovePeer of whichever plane has the node.
func (t *Table) removePeer(id cert.NodeID) {
	t.plane.RemovePeer(id)
	if t.aes != nil {
		t.aes.RemovePeer(id)
	}
}

// setPeer is Plane.SetPeer, except that a node that has never proven the same key first
// loses it.
func (t *Table) setPeer(suite intro.Suite, cfg dataplane.Peer) error {
	plane := t.planeOf(suite)
	err := plane.SetPeer(cfg)
	if taken, ok := errors.AsType[*dataplane.TakenError](err); ok && taken.Yields {
		t.evict(taken.Holder)
		err = plane.SetPeer(cfg)
	}
	return err
}

// evict ends the tunnel of a node whose key most probably belongs to another node. The
// node may introduce itself again. An introduction to it that is in progress continues,
// and makes a tunnel if the node accepts.
func (t *Table) evict(id cert.NodeID) {
	q := t.table[id]
	if q == nil || !q.installed() {
		t.removePeer(id)
		return
	}
	if q.dial != nil && q.session == q.dial.session {
		q.session = nil // it belongs to the introduction in progress
	}
	t.endTunnel(q, "its WireGuard key belongs to another device", true)
	if q.dial == nil {
		delete(t.table, id)
	}
	t.publish()
}
