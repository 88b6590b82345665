package path

import (
	"net/netip"
	"time"

	"weft/overlay/probe"
)

const (
	// Sockets is how many extra sockets the hard side opens at most.
	Sockets = 256

	scanAfter  = 500 * time.Millisecond // without a direct path
	scanLead   = 100 * time.Millisecond // the hard side's mappings come first
	scanEvery  = 5 * time.Minute
	scanBatch  = 10
	scanTick   = 20 * time.Millisecond
	scanPorts  = 1536
	scanNear   = 128             // of them next to the port that was seen: some NATs count
	scanSecond = 2 * time.Second // the hard side sends a second time, in case the first was lost
	scanTime   = 5 * time.Second // the hard side waits for the other this long
	firstPort  = 1024
	allPorts   = 1<<16 - firstPort
)

// scan is the search for a way through one hard NAT.
type scan struct {
	hard    bool           // this side is the hard one
	target  netip.AddrPort // of the peer; its port is a hint when the peer is the hard side
	begun   instant        // 0: none is under way
	at      instant        // of the next batch
	sent    int
	port    uint32 // where the walk through the ports is
	stride  uint32
	sockets int     // in use
	next    instant // not before
}

func (s *scan) due() instant {
	if s.begun == 0 {
		return 0
	}
	return s.at
}

// keepScan begins, goes on with and ends the search.
func (a *Agent) keepScan(t instant) {
	s := &a.scan
	switch {
	case s.begun == 0:
		a.beginScan(t)
	case a.isDirect() || !a.active && t.sub(s.begun) > scanTime:
		*s = scan{next: s.next}
	case t >= s.at:
		a.scanBatch(t)
	}
}

// scanStart is when a search begins, 0 if it would be of no use.
func (a *Agent) scanStart() instant {
	if !a.active || a.without == 0 || !a.told || a.isDirect() || a.scan.begun != 0 {
		return 0
	}
	mine, theirs := a.local.NAT.IPv4, a.remote.NAT.IPv4
	if mine == MappingBlocked || theirs == MappingBlocked || (mine == MappingHard) == (theirs == MappingHard) {
		return 0
	}
	at := a.without.add(scanAfter)
	if theirs == MappingHard {
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
		if ip := c.Addr.Addr(); ip.Is4() && !ip.IsPrivate() && (c.Type == TypeSTUN || c.Type == TypeHost && !s.target.IsValid()) {
			s.target = c.Addr
		}
	}
	if !s.target.IsValid() {
		return
	}
	s.hard = a.local.NAT.IPv4 == MappingHard
	s.begun, s.at, s.sent = t, t, 0
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
	s.at = t.add(scanTick)
	for range scanBatch {
		if s.hard {
			if s.sent == Sockets && t.sub(s.begun) < scanSecond {
				s.at = s.begun.add(scanSecond)
				return
			}
			if s.sent == 2*Sockets {
				if s.at = s.begun.add(scanTime); t >= s.at {
					*s = scan{next: s.next}
				}
				return
			}
			k := s.sent%Sockets + 1
			s.sockets = max(s.sockets, k)
			s.sent++
			a.scanPing(Via{Addr: s.target, Socket: uint16(k)})
			continue
		}
		if s.sent == scanPorts {
			*s = scan{next: s.next}
			return
		}
		port := uint32(s.target.Port()) + uint32(s.sent) + 1
		if s.sent >= scanNear || port > 1<<16-1 {
			s.port = (s.port + s.stride) % allPorts
			port = firstPort + s.port
		}
		s.sent++
		a.scanPing(Via{Addr: netip.AddrPortFrom(s.target.Addr(), uint16(port))})
	}
}

// scanPing sends a ping whose answer nobody waits for: what gets through is a
// ping too, and is followed back.
func (a *Agent) scanPing(via Via) {
	a.out.Send = append(a.out.Send, Send{Via: via, Kind: probe.Ping, Tx: a.newTx(), Size: probe.Len})
}
