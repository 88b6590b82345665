package path

import (
	"net/netip"
	"slices"
	"time"

	"weft/overlay/internal/probe"
)

const (
	// MaxCandidates bounds the candidates of a peer.
	MaxCandidates = 32
	maxSeen       = 8 // other addresses from which the peer has sent probes

	// activeFor is how long after data were last sent they count as flowing.
	activeFor = time.Second
	// QuietAfter is how long a path counts as working without any traffic. Carrier NATs
	// forget mappings after 30 s.
	QuietAfter = 25 * time.Second

	openPings = 16 // pings of a link that may still be answered

	pongsPerSec = 64
	pongsBurst  = 256
)

// instant is a time as nanoseconds since the Agent was made, 0 for never.
type instant int64

func (t instant) add(d time.Duration) instant { return t + instant(d) }

func (t instant) sub(earlier instant) time.Duration { return time.Duration(t - earlier) }

// Agent decides for one peer. It belongs to one goroutine.
type Agent struct {
	cfg   Config
	epoch time.Time

	local  Local
	remote Remote
	links  []link // at most MaxCandidates+maxSeen+1
	lane   bool   // whether there is one
	cur    Path   // the path in use
	best   Path   // the direct path that was last in use
	quiet  bool

	lastTx, lastUse instant // data were last sent; anything was last sent or received
	active          bool

	roundAt    instant // when the last round began, 0 before the first
	roundBy    instant // when the peer last asked for a round
	nextRound  instant // 0: none is due
	failed     int     // how many rounds in a row found no direct path
	directAt   instant // since when cur is direct
	gathered   instant // when candidates were last asked for
	without    instant // since when data flow without a direct path
	now        instant // of the last step
	relayed    instant // when data last arrived through the relay
	hasRemote  bool    // SetRemote was called
	unverified bucket
	pongs      bucket
	scan       scan

	out   Output
	shown Selection // the path when Output.Changed was last set
}

// New makes an Agent at the time of the peer's introduction.
func New(now time.Time, cfg Config) *Agent {
	a := &Agent{cfg: cfg, epoch: now.Add(-time.Second), quiet: true}
	a.unverified.n, a.pongs.n = unverifiedBurst, pongsBurst
	return a
}

func (a *Agent) at(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	return instant(max(t.Sub(a.epoch), 1))
}

func (a *Agent) time(t instant) time.Time {
	if t == 0 {
		return time.Time{}
	}
	return a.epoch.Add(time.Duration(t))
}

// Open says that a tunnel was made, so that data are about to flow.
func (a *Agent) Open(now time.Time) { a.Data(now, now) }

// Data says when data were last sent to the peer. The owner calls it when data begin to
// flow after a pause of a second or more, and before each Tick.
func (a *Agent) Data(now, lastTx time.Time) {
	t, tx := a.at(now), a.at(lastTx)
	if tx <= a.lastTx || t.sub(tx) >= activeFor {
		a.lastTx = max(a.lastTx, tx)
		return
	}
	a.lastTx = tx
	a.lastUse = max(a.lastUse, tx)
	if a.active {
		return
	}
	a.active = true
	if l := a.find(a.cur); l != nil {
		a.forgive(l)
	}
	a.wake(t)
	a.step(t)
}

// wake looks for a path when data begin to flow, unless a search has just failed.
func (a *Agent) wake(t instant) {
	a.quiet = false
	failing := a.roundAt != 0 && a.directAt < a.roundAt
	if a.isDirect() || failing && t < a.nextRound {
		return
	}
	if failing {
		a.failed++
	}
	a.startRound(t, true)
}

// Relayed says when data last arrived through the relay connection.
func (a *Agent) Relayed(at time.Time) { a.relayed = max(a.relayed, a.at(at)) }

// Received says when data from the peer last arrived on a path.
func (a *Agent) Received(on Path, at time.Time) {
	t := a.at(at)
	if l := a.find(on); l != nil && t > l.received {
		l.received = t
		a.lastUse = max(a.lastUse, t)
	}
}

// SendFailed says that the system refuses to send on a path: a datagram is too long for the
// interface (tooLong), or the address is unreachable.
func (a *Agent) SendFailed(now time.Time, on Path, tooLong bool) {
	t := a.at(now)
	l := a.find(on)
	switch {
	case l == nil:
		return
	case tooLong:
		l.size = size{next: t.add(sizeFell)}
	case on == a.cur:
		a.lose(l, t)
	}
	a.step(t)
}

// SetLocal sets what this node has found out about itself. The Agent keeps the slices.
func (a *Agent) SetLocal(now time.Time, local Local) {
	a.local = local
	for i := range a.links {
		a.classify(&a.links[i])
	}
	a.step(a.at(now))
}

// SetRemote sets what the peer has sent about itself. The peer is online and probes.
// SetRemote ignores invalid candidates and those beyond MaxCandidates, and copies what it
// keeps.
func (a *Agent) SetRemote(now time.Time, remote Remote) {
	t := a.at(now)
	news := !a.hasRemote || a.remote.NAT != remote.NAT
	had := len(a.remote.Candidates)
	a.hasRemote = true
	a.remote.NAT = remote.NAT
	a.remote.Candidates = a.remote.Candidates[:0]
	for _, c := range remote.Candidates {
		c.Addr = netip.AddrPortFrom(c.Addr.Addr().Unmap().WithZone(""), c.Addr.Port())
		if len(a.remote.Candidates) == MaxCandidates {
			break
		}
		if a.admissible(c.Addr) && !slices.ContainsFunc(a.remote.Candidates, func(o Candidate) bool { return o.Addr == c.Addr }) {
			a.remote.Candidates = append(a.remote.Candidates, c)
		}
	}
	for i := range a.links {
		a.links[i].listed = false
	}
	for _, c := range a.remote.Candidates {
		on := Path{Addr: c.Addr}
		l := a.find(on)
		if l == nil {
			if l = a.addLink(on, c.Type, t); l == nil {
				continue
			}
			// It joins the round in progress.
			l.next, news = t, true
		}
		l.listed, l.typ = true, c.Type
	}
	a.dropLinks(func(l *link) bool { return !l.listed && l.typ != TypeSeen && !l.path.Relayed && l.path != a.cur })
	if news || had != len(a.remote.Candidates) {
		a.asked(t)
	}
	a.step(t)
}

// CallMe says that the peer probes now and wants to be probed.
func (a *Agent) CallMe(now time.Time) { a.asked(a.at(now)) }

// asked starts a round because the peer wants one.
func (a *Agent) asked(t instant) {
	if a.roundBy == 0 || t.sub(a.roundBy) >= askedSpacing {
		a.roundBy = t
		if a.gathered == 0 || t.sub(a.gathered) >= gatherSpacing {
			// A NAT may have dropped the mappings that the peer knows.
			a.gathered = t
			a.out.Gather = true
		}
		if t.sub(a.roundAt) >= askedSpacing || a.roundAt == 0 {
			a.startRound(t, false)
		}
		a.quiet = false
		a.lastUse = max(a.lastUse, t)
	}
	a.step(t)
}

// SetLane says whether there is a lane. When a new lane replaces another, call it with
// false first.
func (a *Agent) SetLane(now time.Time, ready bool) {
	t := a.at(now)
	on := Path{Relayed: true}
	switch {
	case ready == a.lane:
	case ready:
		a.lane = true
		if l := a.addLink(on, "", t); l != nil {
			l.next = t
		}
	default:
		a.lane = false
		a.dropLinks(func(l *link) bool { return l.path.Relayed })
		if a.cur.Relayed {
			a.cur = Path{}
		}
	}
	a.step(t)
}

// NetworkChanged says that this node has moved to another network: nothing known about
// paths is valid.
func (a *Agent) NetworkChanged(now time.Time) {
	t := a.at(now)
	a.cur, a.best = Path{}, Path{}
	a.scan = scan{next: a.scan.next}
	for i := range a.links {
		l := &a.links[i]
		l.verified, l.received, l.answered, l.rtt, l.dev, l.next, l.size = 0, 0, 0, 0, 0, 0, size{}
		a.forgive(l)
	}
	a.dropLinks(func(l *link) bool { return !l.listed && !l.path.Relayed })
	a.failed, a.roundAt, a.nextRound, a.directAt = 0, 0, 0, 0
	if a.isActive(t) {
		a.startRound(t, true)
	} else {
		a.quiet = true
	}
	a.step(t)
}

// Ping says that an authentic ping of size bytes has arrived. It may be a replay.
func (a *Agent) Ping(now time.Time, on Path, tx probe.Tx, size int) {
	t := a.at(now)
	if !a.pongs.take(t, pongsPerSec, pongsBurst) {
		return
	}
	l := a.find(on)
	if l == nil && !on.Relayed && a.admissible(on.Addr) {
		l = a.addLink(on, TypeSeen, t)
	}
	if l != nil {
		a.sawPeer(l, t)
		if l.verified == 0 && on != a.cur && t.sub(l.pinged) >= minFollow {
			// Send the ping before the pong: when the peer has both, it knows that its
			// address is verified here.
			if !a.pingUnverified(l, t) && t.sub(l.followed) >= followAlways {
				// The peer answers there, so it may get one more now and then.
				l.followed = t
				a.ping(l, t, 0)
			}
		}
	}
	a.out.Send = append(a.out.Send, Send{Path: on, Kind: probe.Pong, Tx: tx, Size: probe.Len, To: on.Addr})
	a.step(t)
}

// Pong says that an authentic pong has arrived, and reports whether it answers an open
// ping.
func (a *Agent) Pong(now time.Time, on Path, tx probe.Tx) bool {
	t := a.at(now)
	l := a.find(on)
	if l == nil {
		return false
	}
	i := slices.IndexFunc(l.open[:], func(p ping) bool { return p.at != 0 && p.tx == tx })
	if i < 0 {
		return false
	}
	p := l.open[i]
	l.open[i] = ping{}
	a.sawPeer(l, t)
	l.size.answered(p, t)
	if p.size == 0 {
		rtt := max(t.sub(p.at), time.Microsecond)
		l.answered = max(l.answered, p.at)
		if l.rtt == 0 {
			l.rtt = rtt
		} else {
			l.dev += ((rtt - l.rtt).Abs() - l.dev) / 4
			l.rtt += (rtt - l.rtt) / 8
		}
	}
	if l.verified == 0 {
		l.next = 0 // no more pings of the round
		a.out.Admit = append(a.out.Admit, Admission{Path: l.path, Proven: true})
	}
	l.verified = t
	l.spent = 0
	if p.size == 0 {
		a.forgiveUntil(l, p.at)
	}
	a.step(t)
	return true
}

// hear records that the peer has sent something on a path.
func (a *Agent) sawPeer(l *link, t instant) {
	if l.probed == 0 {
		a.out.Admit = append(a.out.Admit, Admission{Path: l.path})
	}
	l.probed = t
	if l.path == a.cur {
		a.lastUse = max(a.lastUse, t)
	}
}

var (
	thisNet  = netip.MustParsePrefix("0.0.0.0/8")
	reserved = netip.MustParsePrefix("240.0.0.0/4")
)
