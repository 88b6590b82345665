package tunnels

import (
	"errors"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/filters"
)

// Changes that affect all tunnels.

// UpToDate lets introductions in: this node's CRL is current, as far as is known.
func (t *Table) UpToDate() { t.currentOnce.Do(func() { close(t.current) }) }

// Reconnected is called when the relay has welcomed the node again. Earlier reports of
// the relay about gone peers no longer count.
func (t *Table) Reconnected() {
	t.hint(func() {
		for _, q := range t.table {
			q.gone, q.nextRedial = time.Time{}, time.Time{}
		}
		t.paths.RelayBack()
		t.publish()
	})
}

// NetworkChanged allows every peer to be tried again at once: earlier failures may have
// been the old network's fault.
func (t *Table) NetworkChanged() {
	t.do(func() {
		for _, q := range t.table {
			q.nextRedial = time.Time{}
		}
	})
	t.paths.NetworkChanged()
	t.guests.Check()
}

// ConfigChanged ends connections to relays that are no longer in the config, and applies
// new rules to every tunnel, live flows included.
func (t *Table) ConfigChanged() {
	if s, ok := t.cfg.Held.Get(); ok {
		t.guests.KeepOnly(s.Config.Relays)
	}
	t.do(func() {
		snap, ok := t.cfg.Held.Get()
		if !ok {
			return
		}
		var list []filters.Opening
		for _, q := range t.table {
			if q.installed() {
				list = append(list, filters.Opening{Filter: q.filter, Ports: t.opens(snap, q.node, q.suite)})
			}
		}
		t.cfg.Filters.Set(list)
		for _, q := range t.table {
			if q.installed() && !q.filter.Ports().Any() && !q.ours && !q.filter.HasOwnFlow(t.forwarder.Now()) {
				t.drop(q, "policy", true)
			}
		}
	})
}

// CRLChanged drops every tunnel and session whose certificate the revocation list
// refuses.
func (t *Table) CRLChanged() {
	t.intro.Recheck()
	t.do(func() {
		snap, ok := t.cfg.Held.Get()
		if !ok {
			return
		}
		for _, q := range t.table {
			if q.node == nil {
				continue
			}
			if err := snap.CRL.Check(q.node); errors.Is(err, cert.ErrRevoked) {
				t.drop(q, "revoked", false)
			} else if err != nil && q.installed() {
				t.endAndRedial(q, "its certificate has expired", true)
			}
		}
	})
}
