package netcheck

import (
	"fmt"

	"weft/overlay/internal/gather"
	"weft/overlay/internal/path"
	"weft/overlay/portmap"
)

// familyCheck describes one address family. up means that the server or a relay answers
// by TCP: if none does, no answer by UDP proves nothing.
func familyCheck(name string, f gather.Family, up bool) FamilyCheck {
	c := FamilyCheck{Address: f.Local, UDP: f.UDP, Mapping: string(f.Mapping), STUNAddresses: f.Addresses}
	if f.Mapping == path.MappingUnknown {
		c.Mapping = "unknown"
	}
	if f.Seen.IsValid() {
		c.Endpoint = f.Seen.String()
	}
	switch f.Mapping {
	case path.MappingNone:
		c.Text = "no NAT: the address seen from outside is this device's own"
	case path.MappingEasy:
		c.Text = "easy NAT: the same outside port for every destination"
		if f.Addresses == 1 {
			c.Text += "(tested with two ports of one STUN address only)"
		}
	case path.MappingHard:
		c.Text = "hard NAT: another outside port for each destination"
	case path.MappingBlocked:
		c.Text = "UDP is blocked: no STUN server answered"
		if !up {
			c.Mapping, c.Text = "unknown", "not known: neither a STUN server nor the server or a relay answers"
		}
	default:
		switch {
		case f.UDP:
			c.Text = "a NAT of unknown kind: there is only one STUN address (a second relay would tell)"
		case !f.Local:
			c.Text = "no " + name + " address"
		case f.Asked == 0:
			c.Text = "not known: no STUN server is reachable over " + name
		default:
			c.Text = "not known: no STUN server answered"
		}
	}
	return c
}

// portMapCheck describes the port mapping.
func portMapCheck(s portmap.Status) PortMapCheck {
	c := PortMapCheck{Asked: !s.Tried.IsZero(), Protocol: string(s.Kind), Useless: s.Useless}
	if s.Gateway.IsValid() {
		c.Gateway = s.Gateway.String()
	}
	protocol := map[portmap.Kind]string{portmap.KindPCP: "PCP", portmap.KindNATPMP: "NAT-PMP", portmap.KindUPnP: "UPnP"}[s.Kind]
	switch {
	case s.External.IsValid() && s.Useless:
		c.External = s.External.String()
		c.Text = fmt.Sprintf("%s by %s, but that gateway is behind another NAT (%s): no use from outside", protocol, s.Gateway, s.External.Addr())
	case s.External.IsValid():
		c.External = s.External.String()
		c.Text = fmt.Sprintf("%s by %s; seen from outside this device is %s", protocol, s.Gateway, s.External)
	case s.Err != "":
		c.Text = "none: " + s.Err
	default:
		c.Text = "not asked for"
	}
	return c
}

// direct describes the meaning of all checks in one sentence.
func direct(s *gather.Snapshot, up bool) string {
	four, six := s.IPv4, s.IPv6
	mapped := s.PortMap.External.IsValid() && !s.PortMap.Useless
	open6 := six.Mapping == path.MappingNone
	const change = "a port mapping (UPnP or NAT-PMP, in the router's settings) or IPv6 here would change that"
	switch {
	case len(s.Answers) == 0:
		return "nothing is known about direct paths: no relay has a STUN address"
	case !four.UDP && !six.UDP && !up:
		return "nothing is known about direct paths: neither the server nor a relay answers"
	case !four.UDP && !six.UDP && mapped:
		return "direct paths are unlikely: there is no answer by UDP, in spite of the port mapping; traffic goes through the relay over TCP"
	case !four.UDP && !six.UDP:
		return "no direct paths except with peers in the same network: UDP is blocked here, or no STUN server is up; traffic goes through the relay over TCP"
	case four.Mapping == path.MappingNone:
		return "direct paths with nearly every peer: this device has a public IPv4 address"
	case mapped:
		return "direct paths with nearly every peer: the router lets them in at a mapped port"
	case four.Mapping == path.MappingEasy:
		return "direct paths with nearly every peer; with those behind a hard NAT finding one takes some seconds"
	case four.Mapping == path.MappingHard && open6:
		return "direct paths with every peer that has IPv6, and by IPv4 with those that have an easy NAT or none; others go through the relay"
	case four.Mapping == path.MappingHard:
		return "direct paths only with peers that have an easy NAT or none; others go through the relay; " + change
	case open6 && !four.UDP:
		return "direct paths with peers that have IPv6; others go through the relay"
	case open6:
		return "direct paths with every peer that has IPv6, and likely with others"
	}
	return "direct paths are likely; one STUN address cannot tell how likely"
}
