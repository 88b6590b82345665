package path

import "time"

const (
	pingEvery   = 250 * time.Millisecond // while data flow
	suspectPing = 100 * time.Millisecond // while an answer is missing
	suspectTime = 50 * time.Millisecond  // beyond 1.5 round trips
	deadTime    = 300 * time.Millisecond // without anything received: or 2.5 round trips, or more where they vary
	deafTime    = 2 * time.Second        // the same while data arrive
	deadMisses  = 3
	stallTime   = 300 * time.Millisecond // delay of a step beyond which this machine was busy
	unknownRTT  = 100 * time.Millisecond

	betterBy = 5 * time.Millisecond // and a fifth

	laneAfter = time.Second     // without a direct path
	laneKeep  = 5 * time.Second // after a direct path was found
)

func (a *Agent) isDirect() bool { return a.cur != (Path{}) && !a.cur.Relayed }

// watch pings the path in use and gives it up when it is dead.
func (a *Agent) watch(t instant) {
	before := a.now
	a.now = t
	l := a.find(a.cur)
	if l == nil || !a.active {
		return
	}
	stalled := t.sub(max(before, a.nextPing(l)))
	if stalled > stallTime && l.oldest != 0 {
		// This machine was busy: answers may be waiting to be read.
		l.oldest = min(l.oldest.add(stalled), t)
	}
	if d := a.deadAt(l); d != 0 && t >= d {
		a.lose(l, t)
		return
	}
	if t >= a.nextPing(l) {
		a.ping(l, t, 0)
	}
}

func (l *link) trip() time.Duration {
	if l.rtt == 0 {
		return unknownRTT
	}
	return l.rtt
}

// patience returns how long the path in use may receive nothing. Behind an uplink that
// fills up, each answer takes longer than the one before.
func (l *link) patience() time.Duration {
	return max(deadTime, l.trip()*5/2, l.rtt+4*l.dev)
}

// nextPing returns when to ping the path in use. The longer answers take, the fewer pings
// are sent, so that each is still in the table when its answer arrives.
func (a *Agent) nextPing(l *link) instant {
	if l.misses == 0 {
		return l.pinged.add(pingEvery)
	}
	late := l.pinged.sub(l.oldest) / (openPings * 3 / 8)
	suspect := max(l.pinged.add(max(suspectPing, late)), l.oldest.add(l.trip()*3/2+suspectTime))
	return min(l.pinged.add(max(pingEvery, late)), suspect)
}

// deadAt returns when the path in use is dead if nothing arrives until then; 0 while it
// is too early to say.
func (a *Agent) deadAt(l *link) instant {
	wait := l.patience()
	if l.misses >= 2 && a.relayed > l.oldest {
		// The peer has given this path up.
		late := min(l.trip()*3/2+suspectTime, wait)
		return max(a.relayed, l.oldest.add(late), l.verified.add(late))
	}
	if l.misses < deadMisses {
		return 0
	}
	at := l.oldest.add(wait)
	if l.received > l.oldest {
		at = min(max(at, l.received.add(wait)), l.oldest.add(max(deafTime, wait)))
	}
	// An answer counts, however old its ping.
	return max(at, l.verified.add(wait))
}

// lose takes traffic off a dead path and looks for another one.
func (a *Agent) lose(l *link, t instant) {
	l.verified, l.next = 0, 0
	a.forgive(l)
	a.cur = Path{}
	if l.path.Relayed {
		l.tries, l.next = 0, t
		return
	}
	a.failed = 0
	a.out.Doubt = true
	a.startRound(t, true)
}

// choose selects the best path that works.
func (a *Agent) choose(t instant) {
	cur := a.find(a.cur)
	if cur == nil || cur.verified == 0 {
		a.cur, cur = Path{}, nil
	}
	best := cur
	for i := range a.links {
		l := &a.links[i]
		if l.verified == 0 || l.size.small || l == best || t.sub(l.verified) >= QuietAfter {
			continue
		}
		if best == nil || l.beats(best, best == cur) {
			best = l
		}
	}
	if best != nil && best != cur {
		a.take(best, cur, t)
	}
	switch {
	case a.isDirect():
		a.without = 0
	case !a.active:
		a.without = 0
	case a.without == 0:
		a.without = t
	}
}

// beats reports whether l is a better path than o. used says that o is in use, so that
// the difference must be worth a switch.
func (l *link) beats(o *link, used bool) bool {
	if l.path.Relayed != o.path.Relayed {
		return o.path.Relayed
	}
	if l.lan != o.lan {
		return l.lan
	}
	if used {
		return l.rtt < o.rtt*4/5 && o.rtt-l.rtt > betterBy
	}
	return l.rtt < o.rtt
}

func (a *Agent) take(l, old *link, t instant) {
	a.cur = l.path
	a.quiet = false
	l.next = 0
	a.forgive(l)
	l.pinged = t // its answer has just arrived
	l.size.begin(t)
	if old != nil {
		a.forgive(old)
		old.next = t.add(keepKnown)
	}
	if l.path.Relayed {
		return
	}
	a.best, a.directAt = l.path, t
	a.failed, a.nextRound = 0, 0
	a.lastUse = max(a.lastUse, t)
}

// wantLane reports whether a lane is needed: there is no direct path, and probably will
// be none in a moment.
func (a *Agent) wantLane() bool {
	switch {
	case a.isDirect():
		return a.lane && a.now.sub(a.directAt) < laneKeep
	case a.quiet || !a.hasRemote || a.local.NAT.blocked() || a.remote.NAT.blocked():
		return false
	case a.lane:
		return true
	}
	return a.without != 0 && (a.bothHard() || a.now >= a.without.add(laneAfter))
}

// waitsUntil returns when a lane will be wanted.
func (a *Agent) waitsUntil() instant {
	if a.lane || a.without == 0 || a.now >= a.without.add(laneAfter) {
		return 0
	}
	return a.without.add(laneAfter)
}

func (a *Agent) bothHard() bool {
	return a.local.NAT.IPv4 == MappingHard && a.remote.NAT.IPv4 == MappingHard
}

// blocked reports whether a node's network blocks all outgoing UDP.
func (n NAT) blocked() bool {
	works := func(m Mapping) bool { return m != MappingBlocked && m != MappingUnknown }
	return !works(n.IPv4) && !works(n.IPv6) && (n.IPv4 == MappingBlocked || n.IPv6 == MappingBlocked)
}
