package tunnels

import (
	"errors"
	"time"

	"weft/overlay/cert"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/filters"
)

// What happens to all tunnels at once, because what is around them has changed.

// UpToDate lets introductions in: our numbers are current, or nobody can say.
func (t *Table) UpToDate() { t.currentOnce.Do(func() { close(t.current) }) }

// Reconnected is told when the relay has welcomed the node again. What the
// relay said before about who is gone holds no more.
func (t *Table) Reconnected() {
	t.hint(func() {
		for _, q := range t.table {
			q.gone, q.nextRedial = time.Time{}, time.Time{}
		}
		t.paths.RelayBack()
		t.publish()
	})
}

// WorldChanged lets every peer be tried again at once: what failed before may
// have been the old network's fault.
func (t *Table) WorldChanged() {
	t.do(func() {
		for _, q := range t.table {
			q.nextRedial = time.Time{}
		}
	})
	t.paths.WorldChanged()
	t.guests.Check()
}

// ConfigChanged lets go of relays that the config names no more, and applies new
// rules to every tunnel, live flows included.
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
				list = append(list, filters.Opening{Filter: q.filter, Ports: filter.Compile(snap.Config.Rules, q.node)})
			}
		}
		t.cfg.Filters.Set(list)
		for _, q := range t.table {
			if q.installed() && !q.filter.Ports().Any() && !q.ours && !q.filter.Began(t.forwarder.Now()) {
				t.drop(q, "policy", true)
			}
		}
	})
}

// CRLChanged drops every tunnel and session whose certificate the list does not
// let stand.
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
