package tunnels

import (
	"errors"
	"fmt"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/intro"
)

// numbersWait is how long callers wait, from the first one on, until this node's CRL is
// known to be current.
const numbersWait = 2 * time.Second

// knows reports whether a node will probably be let in, before it has presented its
// certificate: it has a tunnel, or policy allows the certificate that it, or the server,
// has presented before. It does not block.
func (t *Table) knows(id cert.NodeID) bool {
	if _, ok := t.Views()[id]; ok {
		return true
	}
	snap, ok := t.cfg.Held.Get()
	k := t.cfg.Directory.Peek(id)
	return ok && k != nil && t.opens(snap, k.Node, intro.SuiteAES).Any()
}

// accept is called by package intro for each introduction by another node.
func (t *Table) accept(s *intro.Session) *intro.Deny {
	if r := t.cfg.Refused; r != nil {
		return &intro.Deny{Reason: intro.DenySuite, Text: r.Message}
	}
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
		// A revocation list received while we waited may have revoked the caller.
		if !ok || snap.CRL.Check(s.Peer) != nil {
			deny = &intro.Deny{Reason: intro.DenyCertificate, Text: "revoked"}
			return nil
		}
		// Policy may not allow a device to begin anything, but it may have an answer to
		// something that this node began, even minutes later when the tunnel has ended.
		known := q != nil && (q.installed() || q.dial != nil) || t.cfg.Filters.HasOwnFlow(s.Peer.ID, t.forwarder.Now())
		if !known && !t.opens(snap, s.Peer, s.Suite).Any() {
			if t.opens(snap, s.Peer, intro.SuiteAES).Any() {
				deny = &intro.Deny{Reason: intro.DenySuite, Text: fmt.Sprintf("policy demands AES from %s to %s, and one of them cannot use it", s.Peer.Name, snap.Self.Name)}
				return nil
			}
			if snap.Overdue[s.Peer.ID] {
				deny = &intro.Deny{Reason: intro.DenyPolicy, Text: fmt.Sprintf("%s has to be signed in again: run weft up there", s.Peer.Name)}
				return nil
			}
			deny = &intro.Deny{Reason: intro.DenyPolicy, Text: fmt.Sprintf("nothing on %s is open to %s", snap.Self.Name, s.Peer.Name)}
			return nil
		}
		if q == nil {
			q = &peer{id: s.Peer.ID}
			t.table[q.id] = q
		}
		q.answeredIn(s.Trip)
		if err := t.install(q, s, q.installed() && q.ours, claimOf(s)); err != nil {
			if !q.installed() && q.dial == nil {
				delete(t.table, q.id)
			}
			return err
		}
		q.failures, q.gone = 0, time.Time{}
		t.claim(s, true)
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
