package path

import (
	"net/netip"
	"time"

	"weft/overlay/internal/probe"
)

const (
	// Sockets bounds the extra sockets that the hard side opens.
	Sockets = 256

	scanAfter  = 500 * time.Millisecond // without a direct path
	scanUnsure = time.Second            // the same if it is unknown whether a NAT is hard
	scanLead   = 100 * time.Millisecond // head start for the hard side's mappings
	scanEvery  = 5 * time.Minute
	scanBatch  = 10
	scanTick   = 20 * time.Millisecond
	scanPorts  = 1536
	scanNear   = 128             // of them next to the port that was seen, since some NATs count upwards
	scanSecond = 2 * time.Second // when the hard side sends again, in case the first was lost
	scanTime   = 5 * time.Second // how long the hard side waits for the other
	firstPort  = 1024
	allPorts   = 1<<16 - firstPort
)

// scan is the search for a path through one hard NAT. A side that does not know the kind
// of its NAT does both halves.
type scan struct {
	sockets, ports bool           // the halves that this side does
	target         netip.AddrPort // the peer's address; its port is only a hint when the peer is the hard side
	begun          instant        // 0: no search is in progress
	at             instant        // when the next batch is due
	sent, tried    int            // sockets sent from, ports tried
	port           uint32         // position in the walk through the ports
	stride         uint32
	open           int     // sockets in use
	next           instant // not before
}

func (s *scan) due() instant {
	if s.begun == 0 {
		return 0
	}
	return s.at
}

// keepScan starts, continues and ends the search.
func (a *Agent) keepScan(t instant) {
	s := &a.scan
	switch {
	case s.begun == 0:
		a.beginScan(t)
	case a.isDirect() || t.sub(s.begun) >= scanTime:
		*s = scan{next: s.next}
	case t >= s.at:
		a.scanBatch(t)
	}
}

// halves returns what this side does: send from many sockets, if it may be the hard side,
// and to many ports, if the peer may be.
func (a *Agent) halves() (sockets, ports bool) {
	mine, theirs := a.local.NAT.IPv4, a.remote.NAT.IPv4
	if mine == MappingBlocked || theirs == MappingBlocked || mine == MappingHard && theirs == MappingHard {
		return false, false
	}
	maybe := func(m Mapping) bool { return m == MappingHard || m == MappingUnknown }
	return maybe(mine) && theirs != MappingHard, maybe(theirs) && mine != MappingHard
}

// scanStart returns when to start a search, 0 if it would be useless.
func (a *Agent) scanStart() instant {
	if !a.active || a.without == 0 || !a.hasRemote || a.isDirect() || a.scan.begun != 0 {
		return 0
	}
	sockets, ports := a.halves()
	if !sockets && !ports {
		return 0
	}
	at := a.without.add(scanAfter)
	if a.local.NAT.IPv4 == MappingUnknown || a.remote.NAT.IPv4 == MappingUnknown {
		at = a.without.add(scanUnsure)
	}
	if !sockets {
		at = at.add(scanLead)
	}
	return max(at, a.scan.next)
}

func (a *Agent) beginScan(t instant) {
	at := a.scanStart()
	if at == 0 || t < at {
		return
	}
	s := &a.scan
	s.next = t.add(scanEvery)
	s.target = netip.AddrPort{}
	for _, c := range a.remote.Candidates {
		if ip := c.Addr.Addr(); ip.Is4() && !ip.IsPrivate() && (c.Type == TypeSTUN || c.Type == TypeHost && a.remote.NAT.IPv4 == MappingNone && !s.target.IsValid()) {
			s.target = c.Addr
		}
	}
	if !s.target.IsValid() {
		return
	}
	s.sockets, s.ports = a.halves()
	s.begun, s.at, s.sent, s.tried = t, t, 0, 0
	s.port = uint32(a.cfg.Rand() % allPorts)
	// 64,512 = 2^10 * 3^2 * 7: a stride without these factors visits each port
	// once.
	for s.stride = 1; s.stride%2 == 0 || s.stride%3 == 0 || s.stride%7 == 0 || s.stride < 1000; {
		s.stride = uint32(a.cfg.Rand() % allPorts)
	}
	a.scanBatch(t)
}

func (a *Agent) scanBatch(t instant) {
	s := &a.scan
	s.at = s.begun.add(scanTime)
	if s.sockets && s.sent < 2*Sockets {
		if s.sent < Sockets || t.sub(s.begun) >= scanSecond {
			for range scanBatch {
				if s.sent < 2*Sockets {
					k := s.sent%Sockets + 1
					s.open = max(s.open, k)
					s.sent++
					a.scanPing(Path{Addr: s.target, Socket: uint16(k)})
				}
			}
			s.at = t.add(scanTick)
		} else {
			s.at = s.begun.add(scanSecond)
		}
	}
	if s.ports && s.tried < scanPorts {
		for range scanBatch {
			if s.tried < scanPorts {
				s.tried++
				a.scanPing(Path{Addr: netip.AddrPortFrom(s.target.Addr(), s.nextPort())})
			}
		}
		s.at = t.add(scanTick)
	}
}

// nextPort returns the next port to try: first those next to the one that was seen, then
// all others in an unordered walk.
func (s *scan) nextPort() uint16 {
	if port := int(s.target.Port()) + s.tried; s.tried <= scanNear && port < 1<<16 {
		return uint16(port)
	}
	s.port = (s.port + s.stride) % allPorts
	return uint16(firstPort + s.port)
}

// scanPing sends a ping without waiting for its answer: if it arrives, the peer pings
// back.
func (a *Agent) scanPing(on Path) {
	a.out.Send = append(a.out.Send, Send{Path: on, Kind: probe.Ping, Tx: a.newTx(), Size: probe.Len})
}
