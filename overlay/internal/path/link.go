package path

import (
	"net/netip"
	"slices"
	"time"

	"weft/overlay/internal/probe"
)

// link is a path to the peer, or a candidate for one.
type link struct {
	path   Path
	typ    Type
	listed bool // it is one of the peer's candidates
	lan    bool

	probed   instant // when the last authentic probe arrived from there
	verified instant // when the last pong arrived; 0: it does not count as working
	received instant // when data last arrived on it
	answered instant // when the newest answered small ping was sent
	rtt, dev time.Duration

	tries uint8   // pings in this round
	next  instant // when the next of them, or of the pings that keep it verified, is due; 0: none
	from  instant // budget: since this time …
	spent uint8   // … this many pings to it have had no answer

	open     [openPings]ping // pings without an answer
	oldest   instant         // when the first ping that counts as missed was sent
	misses   uint8           // how many count as missed
	pinged   instant         // when the last small ping was sent
	followed instant         // when the last ping beyond the budget was sent, because the peer pinged

	size size
}

type ping struct {
	tx   probe.Tx
	at   instant
	size uint16 // 0: a small ping
}

// find returns the link of a path, or nil.
func (a *Agent) find(on Path) *link {
	for i := range a.links {
		if a.links[i].path == on {
			return &a.links[i]
		}
	}
	return nil
}

// addLink makes a link. If there is no room, it drops an address that is not a candidate
// of the peer; if there is none, it returns nil.
func (a *Agent) addLink(on Path, typ Type, t instant) *link {
	if typ == TypeSeen {
		n, worst := 0, -1
		for i := range a.links {
			l := &a.links[i]
			if l.listed || l.path.Relayed {
				continue
			}
			n++
			if l.path != a.cur && (worst < 0 || l.probed < a.links[worst].probed) {
				worst = i
			}
		}
		if n >= maxSeen {
			if worst < 0 {
				return nil
			}
			w := a.links[worst].path
			a.dropLinks(func(l *link) bool { return l.path == w })
		}
	}
	a.links = append(a.links, link{path: on, typ: typ, from: t})
	l := &a.links[len(a.links)-1]
	a.classify(l)
	return l
}

func (a *Agent) dropLinks(drop func(*link) bool) {
	a.links = slices.DeleteFunc(a.links, func(l link) bool {
		if !drop(&l) {
			return false
		}
		if l.probed != 0 {
			a.out.Forget = append(a.out.Forget, l.path)
		}
		return true
	})
}

// classify sets whether a link stays in this node's LAN.
func (a *Agent) classify(l *link) {
	ip := l.path.Addr.Addr()
	l.lan = !l.path.Relayed && ip.IsPrivate() && slices.ContainsFunc(a.local.Nets, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// admissible reports whether an address can be a peer's.
func (a *Agent) admissible(addr netip.AddrPort) bool {
	ip := addr.Addr()
	return addr.Port() != 0 && ip.IsGlobalUnicast() && !ip.Is4In6() && ip.Zone() == "" &&
		!thisNet.Contains(ip) && !reserved.Contains(ip) && (a.cfg.Refuse == nil || !a.cfg.Refuse(ip))
}
