package ops

import (
	"context"
	"slices"
	"strings"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

// Outlook is what the server knows about how to reach a device: its connection to a relay, or
// likely reasons why it has none. The server does not know which paths devices use between
// each other.
type Outlook struct {
	// Here says that the device's relay connection, if it has one, is to the relay in this
	// process, which can measure the round trip.
	Here bool
	// Since is when that connection was made, or when the device was last online; zero if
	// unknown.
	Since   time.Time
	Traffic *Traffic // through that connection; nil if unknown
	Causes  []Cause  // if the device is offline, the likeliest first
	// Reports are the latest introductions that the device reported; none if the actor may not
	// read them.
	Reports []store.Introduction
}

// Traffic is how many bytes a relay forwarded from and to a device since the device connected
// to it. Traffic on direct paths is not included.
type Traffic struct{ Sent, Received uint64 }

// CauseKind says what may keep a device offline.
type CauseKind string

// The kinds of Cause.
const (
	CauseNever       CauseKind = "never"       // it has joined, but was never connected
	CauseRelay       CauseKind = "relay"       // its relay is offline too
	CauseSite        CauseKind = "site"        // all devices at its address went offline at about the same time
	CauseAlone       CauseKind = "alone"       // other devices at its address are online
	CauseCertificate CauseKind = "certificate" // its certificate has ended
	CauseClock       CauseKind = "clock"       // it reported impossible times, so its clock may be wrong
	CauseVersion     CauseKind = "version"     // it runs another version than the server
	CauseItself      CauseKind = "itself"      // nothing else is known, so the device itself may be off
)

// Cause is a likely reason why a device is offline, or a hint to one.
type Cause struct {
	Kind  CauseKind
	Count int       // for CauseSite and CauseAlone: the other devices, of those that the actor may see
	Name  string    // for CauseRelay: of the relay; for CauseVersion: the server's version
	At    time.Time // for CauseRelay: when the server last heard from the relay; for CauseCertificate: its end
}

const (
	// together is how far apart devices may have been last online to count as gone at the same
	// time. A relay notices within 140 s that a device is silent, and its last sign of life may
	// be as old.
	together = 5 * time.Minute
	// latestReports is how many introductions an Outlook has.
	latestReports = 5
)

// Outlook returns what the server knows about how to reach a device.
func (s *Service) Outlook(ctx context.Context, a Actor, id cert.NodeID) (Outlook, error) {
	var n store.Node
	err := s.store.Read(ctx, func(r *store.Reader) (err error) { n, err = r.Node(s.network, id); return err })
	if err == nil {
		err = opDeviceRead.authorize(a, deviceTarget(n))
	}
	if err != nil {
		return Outlook{}, About(KindDevice, id.String(), err)
	}
	st, known := s.presence.Get(id)
	out := Outlook{Here: st.Relay == s.auth.RelayID(), Since: n.Seen}
	if known {
		out.Since = st.Since
	}
	if sent, received, ok := s.relay.get().Traffic(s.network, id); ok && out.Here && st.Online {
		out.Traffic = &Traffic{sent, received}
	}
	if a.ReadsAudit() {
		list, err := s.Introductions(ctx, a, IntroductionQuery{Device: id.String(), Limit: latestReports})
		if err != nil {
			return out, err
		}
		out.Reports = list.Introductions
	}
	if st.Online || s.unsure(id) {
		return out, nil
	}
	f := absence{now: s.now(), since: out.Since, expires: n.Expires, software: n.Software, server: s.software, reports: out.Reports}
	if rl, ok := s.index.relay(st.Relay); ok {
		f.relay = rl.Name
		f.relayHeard, f.relayThere = s.RelayHeard(rl.ID)
	}
	for other, o := range s.presence.Beside(id) {
		if opDeviceRead.authorize(a, s.index.targetOf(other)) != nil {
			continue
		}
		if o.Online {
			f.there++
		} else if o.Since.Sub(out.Since).Abs() <= together {
			f.gone++
		}
	}
	out.Causes = causesOf(f)
	return out, nil
}

// absence is the input of causesOf. Zero times mean never.
type absence struct {
	now, since, expires time.Time
	software, server    string // versions
	relay               string // the last relay of the device, if it is not the built-in one
	relayHeard          time.Time
	relayThere          bool
	there, gone         int // other devices at its address: online, and offline since about the same time
	reports             []store.Introduction
}

// causesOf returns why a device may be offline, the likeliest cause first, and at least one.
func causesOf(f absence) (list []Cause) {
	add := func(c Cause) { list = append(list, c) }
	switch {
	case f.since.IsZero():
		add(Cause{Kind: CauseNever})
	case f.relay != "" && !f.relayThere:
		add(Cause{Kind: CauseRelay, Name: f.relay, At: f.relayHeard})
	case f.there == 0 && f.gone > 0:
		add(Cause{Kind: CauseSite, Count: f.gone})
	case f.there > 0:
		add(Cause{Kind: CauseAlone, Count: f.there})
	default:
		add(Cause{Kind: CauseItself})
	}
	if f.expires.Before(f.now) {
		add(Cause{Kind: CauseCertificate, At: f.expires})
	}
	for _, r := range f.reports {
		if slices.Contains(strings.Fields(r.Doubts), DoubtTime) {
			add(Cause{Kind: CauseClock})
			break
		}
	}
	if f.software != f.server && f.software != "" {
		add(Cause{Kind: CauseVersion, Name: f.server})
	}
	return list
}
