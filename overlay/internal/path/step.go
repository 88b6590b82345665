package path

import (
	"encoding/binary"
	"time"

	"weft/overlay/internal/probe"
)

// Tick does what is due at now.
func (a *Agent) Tick(now time.Time) { a.step(a.at(now)) }

// step does everything that is due at t.
func (a *Agent) step(t instant) {
	a.active = a.isActive(t)
	a.watch(t)
	a.choose(t)
	a.goQuiet(t)
	a.keepRound(t)
	a.keepSize(t)
	a.keepScan(t)
}

// goQuiet gives the path up when it was not used for QuietAfter.
func (a *Agent) goQuiet(t instant) {
	if a.quiet || a.active || t.sub(a.lastUse) < QuietAfter {
		return
	}
	a.quiet = true
	a.cur = Path{}
	for i := range a.links {
		l := &a.links[i]
		l.verified, l.next = 0, 0
		a.forgive(l)
	}
	a.dropLinks(func(l *link) bool { return l.path.Socket != 0 })
}

func (a *Agent) isActive(t instant) bool { return a.lastTx != 0 && t.sub(a.lastTx) < activeFor }

// Take returns what the owner has to do since the last call.
func (a *Agent) Take() Output {
	out := a.out
	out.Lane = a.wantLane()
	p := a.Selected()
	if q := a.shown; p.Kind != q.Kind || p.Path != q.Path || p.Limit != q.Limit || p.Quiet != q.Quiet || p.Reason != q.Reason || p.LAN != q.LAN {
		out.Changed = true
		a.shown = p
	}
	a.out = Output{Send: out.Send[:0], Admit: out.Admit[:0], Forget: out.Forget[:0]}
	return out
}

// Selected returns the path to use now.
func (a *Agent) Selected() Selection {
	p := Selection{Path: a.cur, Quiet: a.quiet, Reason: a.reason()}
	if l := a.find(a.cur); l != nil {
		p.Kind = Direct
		if l.path.Relayed {
			p.Kind = RelayedUDP
		}
		p.LAN, p.RTT, p.Limit = l.lan, l.rtt, l.limit()
	}
	return p
}

// Uses reports whether an extra socket is in use, or may be again.
func (a *Agent) Uses(socket uint16) bool {
	if a.scan.begun != 0 && int(socket) <= a.scan.open {
		return true
	}
	for i := range a.links {
		if a.links[i].path.Socket == socket {
			return true
		}
	}
	return false
}

// Next returns when to call Tick; the zero Time for never.
func (a *Agent) Next() time.Time {
	var next instant
	due := func(t instant) {
		if t != 0 && (next == 0 || t < next) {
			next = t
		}
	}
	if a.active {
		due(a.lastTx.add(activeFor))
		due(a.roundDue())
		due(a.scanStart())
		if a.cur == (Path{}) || a.cur.Relayed {
			due(a.waitsUntil())
		}
	}
	due(a.scan.due())
	if !a.quiet {
		due(a.lastUse.add(QuietAfter))
	}
	for i := range a.links {
		l := &a.links[i]
		due(l.next)
		if l.path == a.cur && a.active {
			due(a.nextPing(l))
			due(a.deadAt(l))
			due(l.size.due())
		}
	}
	return a.time(next)
}

func (a *Agent) newTx() (tx probe.Tx) {
	binary.BigEndian.PutUint64(tx[:], a.cfg.Rand())
	return tx
}

// bucket limits a rate.
type bucket struct {
	n  float64
	at instant
}

func (b *bucket) take(t instant, perSec, burst float64) bool {
	b.n = min(burst, b.n+perSec*t.sub(b.at).Seconds())
	b.at = t
	if b.n < 1 {
		return false
	}
	b.n--
	return true
}
