package path

import "slices"

// Reason says to users why a path is not a better one.
type Reason struct {
	Text string // a sentence that says what would make it better
	// Short is the same in a few words, for a list of many peers; "" where there is
	// nothing to explain.
	Short string
}

func (r Reason) String() string { return r.Text }

// The reasons of Path.
var (
	reasonLAN      = Reason{"both devices are in the same network", "same network"}
	reasonDirect   = Reason{"UDP goes directly to the peer's address", ""}
	reasonQuiet    = Reason{"nothing was sent lately; the next packet goes through the relay while weft looks for a direct path", ""}
	reasonUntold   = Reason{"looking for a direct path; the peer has not sent its addresses yet", "looking for a direct path"}
	reasonLooking  = Reason{"looking for a direct path", "looking for a direct path"}
	reasonOwnUDP   = Reason{"UDP does not leave this device's network; outgoing UDP allowed there would make it direct", "UDP is blocked here"}
	reasonPeerUDP  = Reason{"UDP does not leave the peer's network; outgoing UDP allowed there would make it direct", "UDP is blocked there"}
	reasonBothHard = Reason{"both sides are behind NATs that give each destination another port; a port mapping (UPnP, NAT-PMP) or IPv6 on either side would make it direct", "both behind hard NATs"}
	reasonOwnHard  = Reason{"this side's NAT gives each destination another port and the peer's lets in nobody else; a port mapping (UPnP, NAT-PMP) or IPv6 on either side would make it direct", "hard NAT here"}
	reasonPeerHard = Reason{"the peer's NAT gives each destination another port and this side's lets in nobody else; a port mapping (UPnP, NAT-PMP) or IPv6 on either side would make it direct", "hard NAT there"}
	reasonNone     = Reason{"the peer has no address that this device could reach; IPv4 or IPv6 on both sides would make it direct", "no address to reach it at"}
	reasonSmall    = Reason{"the way to the peer's address carries no packets of 1,280 bytes; a link in the middle with a larger MTU would make it direct", "MTU on the way too small"}
	reasonSilent   = Reason{"no answer from any of the peer's addresses: a firewall is in the way, or NATs that give each destination another port; a port mapping (UPnP, NAT-PMP) or IPv6 on either side would make it direct", "firewall or hard NATs"}
)

func (a *Agent) reason() Reason {
	mine, theirs := a.local.NAT, a.remote.NAT
	l := a.find(a.cur)
	switch {
	case l != nil && l.lan:
		return reasonLAN
	case a.isDirect():
		return reasonDirect
	case a.quiet:
		return reasonQuiet
	case !a.hasRemote:
		return reasonUntold
	case slices.ContainsFunc(a.links, func(l link) bool { return l.size.small && l.verified != 0 && !l.path.Relayed }):
		return reasonSmall
	case mine.blocked():
		return reasonOwnUDP
	case theirs.blocked():
		return reasonPeerUDP
	case a.failed == 0 && (a.now.sub(a.roundAt) < roundTime && !a.bothHard() || a.scan.begun != 0):
		return reasonLooking
	case !a.common():
		return reasonNone
	case a.bothHard():
		return reasonBothHard
	case mine.IPv4 == MappingHard:
		return reasonOwnHard
	case theirs.IPv4 == MappingHard:
		return reasonPeerHard
	}
	return reasonSilent
}

// common reports whether the peer has a candidate of an address family that this node
// has.
func (a *Agent) common() bool {
	var mine, theirs [2]bool
	of := func(c Candidate) int {
		if c.Addr.Addr().Is4() {
			return 0
		}
		return 1
	}
	for _, c := range a.local.Candidates {
		mine[of(c)] = true
	}
	for _, c := range a.remote.Candidates {
		theirs[of(c)] = true
	}
	return mine[0] && theirs[0] || mine[1] && theirs[1]
}
