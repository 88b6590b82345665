package tunnels

import (
	"errors"
	"fmt"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/intro"
)

// numbersWait is how long nobody is accepted before our CRL is current, after the first
// who comes.
const numbersWait = 2 * time.Second

// knows reports whether a node is one to let in, as far as can be known before it
// shows its certificate: it has a tunnel, or it has shown one before that policy
// lets in, or the server has. It does not block.
func (t *Table) knows(id cert.NodeID) bool {
	if _, ok := t.Views()[id]; ok {
		return true
	}
	snap, ok := t.cfg.Held.Get()
	k := t.cfg.Directory.Peek(id)
	return ok && k != nil && filter.Compile(snap.Config.Rules, k.Node).Any()
}

// accept is asked by intro for each introduction by another node.
func (t *Table) accept(s *intro.Session) *intro.Deny {
	t.waitOnce.Do(func() { time.AfterFunc(numbersWait, t.UpToDate) })
	select {
	case <-t.current:
	case <-t.ctx.Done():
		return &intro.Deny{Reason: intro.DenyBusy, Text: "going down"}
	}
	var deny *intro.Deny
	err := t.inLoop(func() error {
		snap, ok := t.cfg.Held.Get()
		q := t.table[s.Peer.ID]
		// A list that came while we waited may have revoked the caller.
		if !ok || snap.CRL.Check(s.Peer) != nil {
			deny = &intro.Deny{Reason: intro.DenyCertificate, Text: "revoked"}
			return nil
		}
		// Policy may let a device say nothing first, and yet it has the answer to
		// what this node asked: after minutes, when the tunnel has ended.
		known := q != nil && (q.installed() || q.dial != nil) || t.cfg.Filters.Began(s.Peer.ID, t.forwarder.Now())
		if !known && !filter.Compile(snap.Config.Rules, s.Peer).Any() {
			deny = &intro.Deny{Reason: intro.DenyPolicy, Text: fmt.Sprintf("nothing on %s is open to %s", snap.Self.Name, s.Peer.Name)}
			return nil
		}
		if q == nil {
			q = &peer{id: s.Peer.ID}
			t.table[q.id] = q
		}
		q.spoke(s.Trip)
		if err := t.install(q, s, q.installed() && q.ours, claimOf(s)); err != nil {
			if !q.installed() && q.dial == nil {
				delete(t.table, q.id)
			}
			return err
		}
		q.failures, q.gone = 0, time.Time{}
		if q.dial != nil {
			q.dial.overtaken = true
		}
		return nil
	})
	if errors.Is(err, dataplane.ErrKeyGone) {
		s.Close() // the caller tries again
		return nil
	}
	if err != nil {
		t.log.Warn("cannot accept an introduction", "peer", s.Peer.Name, "err", err)
		return &intro.Deny{Reason: intro.DenyConflict, Text: err.Error()}
	}
	if deny != nil {
		t.early.take(s.Peer.ID)
	}
	return deny
}
